package main

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// An emptyRoot is a file system with one file, "file", that has size bytes of
// nothing in particular and forgets what is written: what FUSE costs by itself.
type emptyRoot struct {
	fs.Inode
	size uint64
}

var _ fs.NodeOnAdder = (*emptyRoot)(nil)

func (r *emptyRoot) OnAdd(ctx context.Context) {
	r.AddChild("file", r.NewPersistentInode(ctx, &emptyFile{size: r.size}, fs.StableAttr{}), true)
}

type emptyFile struct {
	fs.Inode
	size uint64
}

var (
	_ fs.NodeOpener    = (*emptyFile)(nil)
	_ fs.NodeGetattrer = (*emptyFile)(nil)
	_ fs.NodeReader    = (*emptyFile)(nil)
	_ fs.NodeWriter    = (*emptyFile)(nil)
	_ fs.NodeFsyncer   = (*emptyFile)(nil)
)

func (*emptyFile) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES, 0
}

func (f *emptyFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = 0o600, f.size
	return 0
}

func (*emptyFile) Read(_ context.Context, _ fs.FileHandle, p []byte, _ int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultData(p), 0
}

func (*emptyFile) Write(_ context.Context, _ fs.FileHandle, p []byte, _ int64) (uint32, syscall.Errno) {
	return uint32(len(p)), 0
}

func (*emptyFile) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return 0 }
