package vfstest

import (
	"sheepdog/sheep/store/vfs"
)

// An Op names a call that changes the disk or makes something durable.
type Op string

// The calls that pass a hook.
const (
	OpOpen     Op = "open"
	OpList     Op = "list"
	OpMkdir    Op = "mkdir"
	OpRemove   Op = "remove"
	OpRename   Op = "rename"
	OpSyncDir  Op = "syncdir"
	OpWrite    Op = "write"
	OpTruncate Op = "truncate"
	OpPunch    Op = "punch"
	OpSync     Op = "sync"
	OpDataSync Op = "datasync"
	OpSetAttr  Op = "setattr"
	OpRead     Op = "read"
)

// Hooked returns fs with hook called before each of the calls above, with the
// name of the file. If it returns an error the call fails with it and does
// nothing. It may be called concurrently.
func Hooked(fs vfs.FS, hook func(op Op, name string) error) vfs.FS {
	return hookedFS{fs, hook}
}

type hookedFS struct {
	vfs.FS
	hook func(Op, string) error
}

func (h hookedFS) Open(name string, flag int) (vfs.File, error) {
	if err := h.hook(OpOpen, name); err != nil {
		return nil, err
	}
	f, err := h.FS.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return &hookedFile{f, name, h.hook}, nil
}

func (h hookedFS) List(name string) ([]string, error) {
	if err := h.hook(OpList, name); err != nil {
		return nil, err
	}
	return h.FS.List(name)
}

func (h hookedFS) Mkdir(name string) error {
	if err := h.hook(OpMkdir, name); err != nil {
		return err
	}
	return h.FS.Mkdir(name)
}

func (h hookedFS) Remove(name string) error {
	if err := h.hook(OpRemove, name); err != nil {
		return err
	}
	return h.FS.Remove(name)
}

func (h hookedFS) Rename(from, to string) error {
	if err := h.hook(OpRename, to); err != nil {
		return err
	}
	return h.FS.Rename(from, to)
}

func (h hookedFS) SyncDir(name string) error {
	if err := h.hook(OpSyncDir, name); err != nil {
		return err
	}
	return h.FS.SyncDir(name)
}

type hookedFile struct {
	vfs.File
	name string
	hook func(Op, string) error
}

func (h *hookedFile) ReadAt(p []byte, off int64) (int, error) {
	if err := h.hook(OpRead, h.name); err != nil {
		return 0, err
	}
	return h.File.ReadAt(p, off)
}

func (h *hookedFile) WriteAt(p []byte, off int64) (int, error) {
	if err := h.hook(OpWrite, h.name); err != nil {
		return 0, err
	}
	return h.File.WriteAt(p, off)
}

func (h *hookedFile) Truncate(size int64) error {
	if err := h.hook(OpTruncate, h.name); err != nil {
		return err
	}
	return h.File.Truncate(size)
}

func (h *hookedFile) Punch(off, n int64) error {
	if err := h.hook(OpPunch, h.name); err != nil {
		return err
	}
	return h.File.Punch(off, n)
}

func (h *hookedFile) Sync() error {
	if err := h.hook(OpSync, h.name); err != nil {
		return err
	}
	return h.File.Sync()
}

func (h *hookedFile) DataSync() error {
	if err := h.hook(OpDataSync, h.name); err != nil {
		return err
	}
	return h.File.DataSync()
}

func (h *hookedFile) SetAttr(name string, value []byte) error {
	if err := h.hook(OpSetAttr, h.name); err != nil {
		return err
	}
	return h.File.SetAttr(name, value)
}
