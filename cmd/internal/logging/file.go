package logging

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// FileName returns the name of a program's log in its directory.
func FileName(program string) string { return program + ".log" }

// MaxFile is the size in bytes at which the log is rotated.
const MaxFile = 500 << 20

// A File is the log file. It is rotated when it is full and by Rotate: it gets
// a name with the time, and a new one takes its place.
type File struct {
	path string
	max  int64
	now  func() time.Time
	open func(*os.File) // told of every file that becomes the log; may be nil

	mu   sync.Mutex
	f    *os.File // guarded by mu; nil after Close
	size int64    // guarded by mu
}

var _ Sink = (*File)(nil)

// OpenFile opens the program's log in dir, to append to it. It calls opened, which may be
// nil, with the file, and again with each one that follows it.
func OpenFile(dir, program string, opened func(*os.File)) (*File, error) {
	return openFile(filepath.Join(dir, FileName(program)), MaxFile, time.Now, opened)
}

func openFile(path string, max int64, now func() time.Time, opened func(*os.File)) (*File, error) {
	f := &File{path: path, max: max, now: now, open: opened}
	if err := f.reopen(); err != nil {
		return nil, err
	}
	return f, nil
}

// Emit appends a line.
func (f *File) Emit(_ Severity, line []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f == nil {
		return fs.ErrClosed
	}
	var rotated error
	if f.size > 0 && f.size+int64(len(line)) > f.max {
		rotated = f.rotate()
	}
	n, err := f.f.Write(line)
	f.size += int64(n)
	return errors.Join(rotated, err)
}

// Rotate renames the log and opens a new one. If somebody has moved the log
// away it only opens a new one.
func (f *File) Rotate() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f == nil {
		return fs.ErrClosed
	}
	return f.rotate()
}

// Close closes the log.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f == nil {
		return nil
	}
	err := f.f.Close()
	f.f = nil
	return err
}

// rotate does the work of Rotate under mu. If it fails, the log goes on in the
// file that it has.
func (f *File) rotate() error {
	if f.current() {
		name, err := f.freeName()
		if err != nil {
			return fmt.Errorf("rotate %s: %w", f.path, err)
		}
		if err := os.Rename(f.path, name); err != nil {
			return fmt.Errorf("rotate the log: %w", err)
		}
	}
	return f.reopen()
}

// current reports whether the path still leads to the open file.
func (f *File) current() bool {
	open, err := f.f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(f.path)
	return err == nil && os.SameFile(open, named)
}

// freeName returns the name for the file that is full: with the time of day,
// and with a number if there was another rotation in the same minute.
func (f *File) freeName() (string, error) {
	base := f.path + f.now().Format(".2006-01-02-15-04")
	name := base
	for i := 1; ; i++ {
		_, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return name, nil
		}
		if err != nil {
			return "", err
		}
		name = base + "." + strconv.Itoa(i)
	}
}

// reopen opens what the path leads to and lets go of the file before it.
func (f *File) reopen() error {
	next, err := os.OpenFile(f.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	info, err := next.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open the log: %w", err), next.Close())
	}
	if f.open != nil {
		f.open(next)
	}
	if f.f != nil {
		f.f.Close() // nothing was buffered; there is nothing to be done about an error
	}
	f.f, f.size = next, info.Size()
	return nil
}
