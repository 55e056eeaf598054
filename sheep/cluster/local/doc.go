// Package local is the cluster driver for daemons on one machine: they share a
// directory, and a log file in it.
//
// The log is appended to by single O_APPEND writes of checksummed records; the
// order of the file is the order of the cluster. Nothing is locked meanwhile, so
// a process that is stopped or killed at any instruction blocks nobody: a record
// that it tore is skipped by everyone alike. Each process holds a lock on a file
// of its own for as long as it lives, which makes deaths certain and quick to
// notice, and writes its heartbeat there, so that one that is stopped or whose
// store hangs is expelled after a while.
//
// The driver promises what cluster.Driver asks for, on one machine, until that
// reboots: the log is not synced, and a log of an earlier boot is not trusted
// but replaced by an empty one. It has no majority to ask, because it needs none.
//
// The files of the directory:
//
//	log.N          generation N of the log: header, snapshot of the state when
//	               generation N-1 ended, then records; appears by link(2), whole
//	member.X       of the process with incarnation X: lock, heartbeat
//	*.tmp          of a process that is making one of these
package local
