package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// A pidFile holds the id of this process. It is locked as long as the process
// lives, so a file that a crash left behind is not mistaken for a running sheep.
type pidFile struct {
	path string
	f    *os.File
}

// errPidLocked means that another process holds the lock of the pid file.
var errPidLocked = errors.New("another process holds it")

// openPidFile makes the file, locks it and writes the process id. fd is the
// open file if an earlier life of this process left it behind, or 0.
func openPidFile(path string, fd int) (*pidFile, error) {
	p := &pidFile{path: path}
	var err error
	if fd > 0 {
		p.f = os.NewFile(uintptr(fd), path)
	} else {
		p.f, err = lockPidFile(path)
	}
	if err == nil {
		err = p.write()
	}
	if err != nil {
		return nil, fmt.Errorf("failed to pid file '%s' - %s", path, reason(err))
	}
	return p, nil
}

// lockPidFile opens the file and takes its lock. It starts again if whoever had
// the lock before removed the file meanwhile.
func lockPidFile(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		// A lock of the open file description excludes C Sheepdog's record
		// lock, and unlike that one stays with the file across an exec.
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			err = errPidLocked
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if named(f, path) {
			return f, nil
		}
		f.Close()
	}
}

// named reports whether path leads to f.
func named(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(open, there)
}

// write replaces the content of the file, however long it was.
func (p *pidFile) write() error {
	if err := p.f.Truncate(0); err != nil {
		return err
	}
	_, err := p.f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return err
}

// remove removes the file, if it is still ours, and lets the lock go.
func (p *pidFile) remove() error {
	if p == nil {
		return nil
	}
	var err error
	if named(p.f, p.path) {
		err = os.Remove(p.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, p.f.Close())
}

// keep lets the file and its lock survive an exec. It returns the descriptor.
func (p *pidFile) keep() (int, error) {
	if p == nil {
		return 0, nil
	}
	fd := p.f.Fd()
	_, err := unix.FcntlInt(fd, unix.F_SETFD, 0)
	return int(fd), err
}
