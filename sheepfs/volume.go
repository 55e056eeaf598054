package sheepfs

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"sheepdog/sheep"
)

// A volumeFile is the bytes of a disk or of a snapshot. It behaves as a block
// device does: its size is not changed by writing, and opening it with O_TRUNC
// destroys nothing.
type volumeFile struct {
	fs.Inode

	tree  *FS
	disks *disks
	name  string
}

var (
	_ fs.NodeOpener    = (*volumeFile)(nil)
	_ fs.NodeGetattrer = (*volumeFile)(nil)
	_ fs.NodeSetattrer = (*volumeFile)(nil)
)

// Permissions of volumes, before the umask.
const (
	headMode     = syscall.S_IFREG | 0o644
	snapshotMode = syscall.S_IFREG | 0o444
)

// attributes asks what the volume is like.
func (f *volumeFile) attributes(ctx context.Context, out *fuse.Attr) error {
	_, h, err := f.tree.found(ctx, f.name)
	if err != nil {
		return err
	}
	f.fill(out, h.Size, h.Snapshot())
	return nil
}

func (f *volumeFile) fill(out *fuse.Attr, size uint64, snapshot bool) {
	mode := uint32(headMode)
	if snapshot {
		mode = snapshotMode
	}
	f.tree.fill(out, mode)
	out.Size = size
	out.Blksize = maxTransfer
	out.Blocks = (size + 511) / 512
}

// attrTimeout is how long the kernel may believe in a size. It asks before every
// read from its page cache, which then should not cost a request to the cluster.
func (f *volumeFile) attrTimeout() time.Duration {
	if f.tree.settings.pageCache.Load() {
		return fresh
	}
	return 0
}

// Getattr tells the size that the disk has now.
func (f *volumeFile) Getattr(ctx context.Context, fh fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	ctx, cancel := f.tree.reading(ctx)
	defer cancel()
	out.SetTimeout(f.attrTimeout())
	if h, ok := fh.(*volumeHandle); ok {
		size, err := h.disk.sizeNow(ctx)
		if err != nil {
			return ioErrno(err)
		}
		f.fill(&out.Attr, size, h.disk.ReadOnly())
		return 0
	}
	return errnoOf(f.attributes(ctx, &out.Attr))
}

// Setattr makes the disk larger. Times are ignored. A size of 0 is, too, unless it
// comes from ftruncate: it cannot be told from an open with O_TRUNC, as shells do.
func (f *volumeFile) Setattr(ctx context.Context, fh fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		return syscall.EPERM
	}
	if size, ok := in.GetSize(); ok && (size != 0 || fh != nil) {
		ctx, cancel := f.tree.changing(ctx)
		defer cancel()
		if errno := f.resize(ctx, fh, size); errno != 0 {
			return errno
		}
	}
	return f.Getattr(ctx, fh, out)
}

func (f *volumeFile) resize(ctx context.Context, fh fs.FileHandle, size uint64) syscall.Errno {
	h, ok := fh.(*volumeHandle)
	if !ok || !h.write {
		var errno syscall.Errno
		if h, errno = f.open(ctx, true); errno != 0 {
			return errno
		}
		defer h.Release(ctx)
	}
	err := h.disk.use(ctx, true)
	if err == nil {
		err = h.disk.Resize(ctx, size)
	}
	if errors.Is(err, sheep.ErrInvalid) && size > h.disk.Size() {
		return syscall.EFBIG
	}
	return ioErrno(err)
}

// Open opens the disk that has the name now.
func (f *volumeFile) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	ctx, cancel := f.tree.changing(ctx)
	defer cancel()
	h, errno := f.open(ctx, flags&syscall.O_ACCMODE != syscall.O_RDONLY)
	switch {
	case errno != 0:
		return nil, 0, errno
	case f.tree.settings.pageCache.Load():
		return h, 0, 0
	}
	return h, fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES, 0
}

func (f *volumeFile) open(ctx context.Context, write bool) (*volumeHandle, syscall.Errno) {
	sel, _, err := f.tree.found(ctx, f.name)
	if err != nil {
		return nil, errnoOf(err)
	}
	d, err := f.disks.open(ctx, sel, write)
	if err != nil {
		f.tree.log.Info("refused", "op", "open", "file", printable("volume/"+f.name), "write", write, "err", printable(err.Error()))
		return nil, errnoOf(err)
	}
	h := &volumeHandle{file: f, disk: d, write: write}
	h.seen.Store(d.faults.Load())
	return h, 0
}
