// Package powerfs is a disk that can lose its power: a FUSE file system for
// tests that forgets on command whatever was not synced.
//
// Killing a process proves nothing about durability, because the kernel still
// holds what the process wrote. A store placed on this file system sees all its
// writes at once, as on any file system, but Cut takes it back to what it had
// made durable: the bytes and the size of a file at its last fsync or
// fdatasync, its extended attributes at its last fsync, and the names of a
// directory at that directory's last fsync. A rename is atomic, and becomes
// durable with an fsync of either directory.
//
// A real disk may have written more than it was asked to, in any order. Cut
// with a seed therefore keeps a random subset of the unsynced changes: single
// 4 KiB pages, sizes, attributes and names, each on its own, except that a
// change of a name is never kept without the earlier changes of that name. Half
// of the time names survive as in a file system with a journal: all changes up
// to one of them.
//
// The whole file system lives in the memory of the process that mounted it.
// Locks are the kernel's own. syncfs(2) does not reach a FUSE server and makes
// nothing durable here. A process must be careful with a mount that it serves
// itself: memory-mapped files and child processes with their working directory
// there can deadlock it.
package powerfs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// An FS is a mounted disk. Its methods may be called at any time, from any
// goroutine.
type FS struct {
	dir    string
	disk   *disk
	server *fuse.Server
}

// Available returns nil if this process can mount a file system, and otherwise
// why it cannot.
func Available() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if os.Geteuid() == 0 {
		return nil
	}
	_, err = exec.LookPath("fusermount3")
	return err
}

// Mount mounts an empty disk of one tebibyte on the directory dir, which must
// exist. The caller unmounts it.
func Mount(dir string) (*FS, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	d := newDisk()
	root := os.Geteuid() == 0
	server, err := fuse.NewServer(newBridge(d), dir, &fuse.MountOptions{
		FsName:             "powerfs",
		Name:               "powerfs",
		DirectMountStrict:  root,
		MaxWrite:           1 << 20,
		MaxBackground:      64,
		DisableReadDirPlus: true,
		DisableSplice:      true,

		// All changes go through the kernel, so its page cache is right.
		ExplicitDataCacheControl: true,
	})
	if err != nil {
		return nil, fmt.Errorf("mount powerfs on %s: %w", dir, err)
	}
	go server.Serve() // ends with the mount
	if err := server.WaitMount(); err != nil {
		return nil, fmt.Errorf("mount powerfs on %s: %w", dir, err)
	}
	return &FS{dir: dir, disk: d, server: server}, nil
}

// Dir returns the absolute path of the mount point.
func (f *FS) Dir() string { return f.dir }

// Cut turns the power off and on again. The tree then shows what was durable
// and nothing else; every file that was open before answers EIO for ever. A
// seed that is not zero lets a random part of the unsynced changes survive.
//
// The disk loses its power before its user does. To cut the power of a whole
// machine, kill the processes first: what they had not synced is still only
// here.
func (f *FS) Cut(seed uint64) {
	if seed == 0 {
		f.disk.cut(nil)
		return
	}
	f.disk.cut(rand.New(rand.NewPCG(seed, 0x706f776572)))
}

// SetCapacity limits the disk to n bytes of data. What is there already stays,
// even if it is more; writes that need new pages then fail with ENOSPC.
func (f *FS) SetCapacity(n int64) { f.disk.setCapacity(n) }

// SetReadOnly makes every change fail with EROFS, or allows changes again.
func (f *FS) SetReadOnly(on bool) { f.disk.setReadOnly(on) }

// Used returns the number of bytes in the pages of all files.
func (f *FS) Used() int64 { return f.disk.usedBytes() }

// Unmount removes the file system, even if files on it are still open, and
// forgets its contents.
func (f *FS) Unmount() error {
	if os.Geteuid() == 0 {
		if err := detach(f.dir); err != nil {
			return fmt.Errorf("unmount %s: %w", f.dir, err)
		}
		return nil
	}
	return f.server.Unmount()
}

// detach unmounts dir now for paths and later for files that are still open.
func detach(dir string) error { return syscall.Unmount(dir, syscall.MNT_DETACH) }
