// Package vfs is the ground that the object store stands on: the few system
// calls that it makes, as an interface.
//
// The store reaches its disk only through an FS, so that a test can put
// something else under it: a disk in memory that forgets on command whatever
// was not synced, or one whose n'th call fails (both in vfstest). OS is the
// real thing.
//
// The interface promises no more than POSIX does. What was written is durable
// after a sync of the file; that a name exists, is gone or has another file
// under it is durable after a sync of its directory. A rename is atomic.
package vfs

import "io"

// An FS is a directory and what lies below it. Names are relative, with
// slashes. Errors are those of the system calls: errors.Is finds
// fs.ErrNotExist, syscall.ENOSPC and the like in them. All methods may be
// called concurrently.
type FS interface {
	// Open opens a file for reading and writing; flag may add os.O_CREATE,
	// os.O_EXCL and os.O_TRUNC.
	Open(name string, flag int) (File, error)
	// Mkdir makes a directory. It is no error if it exists.
	Mkdir(name string) error
	// Remove removes a file or an empty directory.
	Remove(name string) error
	// Rename renames a file and replaces the one that has the new name.
	Rename(from, to string) error
	// Exists reports whether there is a file of the name.
	Exists(name string) (bool, error)
	// List returns the names in a directory, in no order.
	List(name string) ([]string, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error
	// Space returns the size of the disk and how many bytes may still be written
	// to it.
	Space() (total, free uint64, err error)
	// Used returns how many bytes of the disk the files in a directory take.
	Used(name string) (uint64, error)
	// Lock takes the lock file name, which it makes if it is missing, for this
	// process until it is closed. It fails with ErrLocked if another has it.
	Lock(name string) (io.Closer, error)
	// Close ends the use of the FS. Open files stay open.
	Close() error
}

// A File is an open file. All methods may be called concurrently, Close too:
// a call that loses against it fails with os.ErrClosed. Files compare with ==.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	Truncate(size int64) error
	// Punch zeroes n bytes at off, giving their space back where the disk can
	// do that. It does not change the file's size.
	Punch(off, n int64) error
	// Dense reports whether all of n bytes at off have their space on the disk
	// already, so that writing them takes none.
	Dense(off, n int64) (bool, error)
	// Forget drops what memory has of the content and the disk has, too, so that
	// it is read from there. It is advice.
	Forget() error
	// Sync makes content, size and attributes durable.
	Sync() error
	// DataSync makes content and size durable.
	DataSync() error
	// Attr returns an extended attribute, nil if the file has none of the name.
	Attr(name string) ([]byte, error)
	SetAttr(name string, value []byte) error
}
