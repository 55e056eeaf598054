package sheepfs

import (
	"context"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"sheepdog/sheep/vdi"
)

// ioErrno returns the error number for a request about bytes. What has become of
// the disk as a whole is an I/O error to those who have it open.
func ioErrno(err error) syscall.Errno {
	switch errno := errnoOf(err); errno {
	case 0, syscall.EINTR, syscall.EINVAL, syscall.ENOSPC, syscall.ENOMEM, syscall.EROFS, syscall.EOPNOTSUPP:
		return errno
	}
	return syscall.EIO
}

// A volumeHandle is one opened volume.
type volumeHandle struct {
	file  *volumeFile
	disk  *openDisk
	write bool // it is one of the disk's writers

	dirty atomic.Bool   // it has written since its last flush
	seen  atomic.Uint64 // faults of the disk that it has heard of
}

var (
	_ fs.FileReader    = (*volumeHandle)(nil)
	_ fs.FileWriter    = (*volumeHandle)(nil)
	_ fs.FileFsyncer   = (*volumeHandle)(nil)
	_ fs.FileFlusher   = (*volumeHandle)(nil)
	_ fs.FileReleaser  = (*volumeHandle)(nil)
	_ fs.FileAllocater = (*volumeHandle)(nil)
	_ fs.FileLseeker   = (*volumeHandle)(nil)
)

// Read reads what lies within the disk.
func (h *volumeHandle) Read(ctx context.Context, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	ctx, cancel := h.file.tree.reading(ctx)
	defer cancel()
	n, err := h.within(ctx, off, len(p), false)
	if err == nil && n > 0 {
		err = h.disk.ReadAt(ctx, p[:n], uint64(off))
	}
	if err != nil {
		return nil, h.failed("read", err)
	}
	return fuse.ReadResultData(p[:n]), 0
}

// Write writes what lies within the disk. At its end there is no space.
func (h *volumeHandle) Write(ctx context.Context, p []byte, off int64) (uint32, syscall.Errno) {
	ctx, cancel := h.file.tree.changing(ctx)
	defer cancel()
	n, err := h.within(ctx, off, len(p), true)
	switch {
	case err != nil:
		return 0, h.failed("write", err)
	case n == 0 && len(p) > 0:
		return 0, syscall.ENOSPC
	}
	defer h.wrote()
	if err := h.disk.WriteAt(ctx, p[:n], uint64(off), false); err != nil {
		return 0, h.failed("write", err)
	}
	return uint32(n), 0
}

// wrote notes the end of a write: a flush that began before does not count.
func (h *volumeHandle) wrote() {
	if !h.dirty.Load() {
		h.dirty.Store(true)
	}
}

// within returns how many of n bytes from off lie within the disk. If that are not
// all, the disk may have grown elsewhere.
func (h *volumeHandle) within(ctx context.Context, off int64, n int, write bool) (int, error) {
	if err := h.disk.use(ctx, write); err != nil {
		return 0, err
	}
	size := h.disk.Size()
	if uint64(off)+uint64(n) > size {
		var err error
		if size, err = h.disk.sizeNow(ctx); err != nil {
			return 0, err
		}
	}
	if uint64(off) >= size {
		return 0, nil
	}
	return int(min(uint64(n), size-uint64(off))), nil
}

// failed logs why a request has failed.
func (h *volumeHandle) failed(op string, err error) syscall.Errno {
	errno := ioErrno(err)
	if errno != 0 && errno != syscall.EINTR {
		h.file.tree.log.Warn("request failed", "op", op, "file", printable("volume/"+h.file.name), "err", printable(err.Error()))
	}
	return errno
}

// Fsync makes durable what was written.
func (h *volumeHandle) Fsync(ctx context.Context, _ uint32) syscall.Errno {
	ctx, cancel := h.file.tree.changing(ctx)
	defer cancel()
	h.dirty.Store(false)
	return h.failed("fsync", h.disk.sync(ctx, &h.seen))
}

// Flush, at each close, makes durable what was written: it is the last chance to
// tell of what is lost.
func (h *volumeHandle) Flush(ctx context.Context) syscall.Errno {
	if !h.dirty.Load() {
		return 0
	}
	return h.Fsync(ctx, 0)
}

// Release gives the disk back.
func (h *volumeHandle) Release(context.Context) syscall.Errno {
	return h.failed("close", h.disk.release(h.write))
}

// Allocate makes zeroes, by punching holes. To reserve space, which a thin disk
// does not do, and to shift contents is refused, as block devices refuse it.
func (h *volumeHandle) Allocate(ctx context.Context, off, n uint64, mode uint32) syscall.Errno {
	switch mode {
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE:
	default:
		return syscall.EOPNOTSUPP
	}
	if !h.write {
		return syscall.EBADF
	}
	ctx, cancel := h.file.tree.changing(ctx)
	defer cancel()
	if err := h.disk.use(ctx, true); err != nil {
		return h.failed("zero", err)
	}
	size, err := h.disk.sizeNow(ctx)
	switch {
	case err != nil:
		return h.failed("zero", err)
	case mode == unix.FALLOC_FL_ZERO_RANGE && (off > size || n > size-off):
		return syscall.EINVAL // to grow a disk is not done in passing
	case off >= size:
		return 0
	}
	defer h.wrote()
	return h.failed("zero", h.disk.Zero(ctx, off, min(n, size-off), vdi.ZeroOptions{}))
}

// Lseek finds data and holes, by whole objects.
func (h *volumeHandle) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, syscall.EINVAL
	}
	ctx, cancel := h.file.tree.reading(ctx)
	defer cancel()
	err := h.disk.use(ctx, false)
	if err != nil {
		return 0, h.failed("seek", err)
	}
	size, err := h.disk.sizeNow(ctx)
	if err != nil {
		return 0, h.failed("seek", err)
	}
	if off >= size {
		return 0, syscall.ENXIO
	}
	at := off
	err = h.disk.Extents(ctx, off, size-off, func(n uint64, e vdi.Extent) bool {
		if (e == vdi.ExtentHole) == (whence == unix.SEEK_HOLE) {
			return false
		}
		at += n
		return true
	})
	switch {
	case err != nil:
		return 0, h.failed("seek", err)
	case at >= size && whence == unix.SEEK_DATA:
		return 0, syscall.ENXIO
	}
	return at, 0
}
