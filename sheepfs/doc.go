// Package sheepfs shows a cluster as a tree of files: its state in files to
// read, its disks as directories and as files with their bytes, and what can be
// done to them as files to write a line into.
//
// The tree talks to a sheep as dog does, over one connection that moves to
// another sheep when its own dies; it keeps nothing on this machine. A file's
// content is made when the file is opened and stays what it was until it is
// closed, so that a reader never sees half of two states. Looking at the
// attributes of a file asks the cluster at most for one thing, never for a scan.
//
// A control file takes lines. A line acts when it ends, or when the file is
// closed; the error number of that write, or of that close, is exact, and the
// reason in words follows the file's content until the next write. What is
// written is a name or a number and nothing else: it never reaches a shell or a
// path of this machine.
//
// Every operation ends within a bounded time, whatever has become of the
// cluster, so that no process hangs for ever and an unmount goes through.
package sheepfs
