package vfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrLocked means that another process holds the lock file.
var ErrLocked = errors.New("locked by another process")

// Permissions of what is made below an FS; those that C Sheepdog gives.
const (
	fileMode = 0o640
	dirMode  = 0o750
)

// OS returns the directory dir of the operating system. It makes it, but not
// its parents, if it is missing.
func OS(dir string) (FS, error) {
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return osFS{root}, nil
}

// syncDir makes the names in a directory durable: whoever made the directory of
// the store may have left that to others.
func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

type osFS struct{ root *os.Root }

func (s osFS) Open(name string, flag int) (File, error) {
	f, err := s.root.OpenFile(name, os.O_RDWR|flag, fileMode)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (s osFS) Mkdir(name string) error {
	err := s.root.Mkdir(name, dirMode)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

func (s osFS) Remove(name string) error          { return s.root.Remove(name) }
func (s osFS) Rename(from, to string) error      { return s.root.Rename(from, to) }
func (s osFS) Close() error                      { return s.root.Close() }
func (s osFS) dir(name string) (*os.File, error) { return s.root.Open(name) }

func (s osFS) List(name string) ([]string, error) {
	d, err := s.dir(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func (s osFS) Exists(name string) (bool, error) {
	_, err := s.root.Lstat(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (s osFS) SyncDir(name string) error {
	d, err := s.dir(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (s osFS) Space() (total, free uint64, err error) {
	d, err := s.dir(".")
	if err != nil {
		return 0, 0, err
	}
	defer d.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(d.Fd()), &st); err != nil {
		return 0, 0, os.NewSyscallError("fstatfs", err)
	}
	return st.Blocks * uint64(st.Bsize), st.Bavail * uint64(st.Bsize), nil
}

func (s osFS) Used(name string) (used uint64, err error) {
	d, err := s.dir(name)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return 0, err
	}
	for _, file := range names {
		var st unix.Stat_t
		switch err := unix.Fstatat(int(d.Fd()), file, &st, unix.AT_SYMLINK_NOFOLLOW); {
		case err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG:
			used += uint64(st.Blocks) * 512
		case err == nil:
		case err != unix.ENOENT: // gone since it was listed
			return 0, os.NewSyscallError("fstatat", err)
		}
	}
	return used, nil
}

// Lock uses a lock of the open file description. It excludes the process-wide
// record lock that C Sheepdog takes on the same file, and unlike that one also
// a second store in this process.
func (s osFS) Lock(name string) (io.Closer, error) {
	f, err := s.root.OpenFile(name, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
	if err == nil {
		return f, nil
	}
	f.Close()
	if err == unix.EAGAIN || err == unix.EACCES {
		return nil, ErrLocked
	}
	return nil, fmt.Errorf("lock %s: %w", name, err)
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// control runs call with the descriptor, which stays open meanwhile.
func (f osFile) control(name string, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		for inner = call(int(fd)); inner == unix.EINTR; {
			inner = call(int(fd))
		}
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError(name, inner)
}

func (f osFile) DataSync() error {
	return f.control("fdatasync", unix.Fdatasync)
}

func (f osFile) Punch(off, n int64) error {
	err := f.control("fallocate", func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return writeZeroes(f, off, n)
	}
	return err
}

// Dense asks where the first hole is. That of a file which has none is its end.
func (f osFile) Dense(off, n int64) (dense bool, err error) {
	err = f.control("lseek", func(fd int) error {
		hole, err := unix.Seek(fd, off, unix.SEEK_HOLE)
		dense = hole >= off+n
		if err == unix.ENXIO { // off is behind the end
			dense, err = false, nil
		}
		return err
	})
	return dense, err
}

func (f osFile) Forget() error {
	return f.control("fadvise64", func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) })
}

// writeZeroes stands in for punching a hole where the disk cannot do it.
func writeZeroes(f File, off, n int64) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	zero := make([]byte, min(n, 1<<20))
	for end := min(off+n, size); off < end; {
		m, err := f.WriteAt(zero[:min(int64(len(zero)), end-off)], off)
		if err != nil {
			return err
		}
		off += int64(m)
	}
	return nil
}

func (f osFile) Attr(name string) ([]byte, error) {
	var value [64]byte
	var n int
	err := f.control("fgetxattr", func(fd int) (err error) {
		n, err = unix.Fgetxattr(fd, name, value[:])
		return err
	})
	if errors.Is(err, unix.ENODATA) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return append([]byte{}, value[:n]...), nil
}

func (f osFile) SetAttr(name string, value []byte) error {
	return f.control("fsetxattr", func(fd int) error {
		return unix.Fsetxattr(fd, name, value, 0)
	})
}
