package powerfs

import (
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// open returns the number of a new handle of n.
func (b *bridge) open(n *node) uint64 {
	b.disk.lastFH++
	b.disk.handles[b.disk.lastFH] = &handle{node: n}
	return b.disk.lastFH
}

// file returns the node of an open file, unless the power failed since.
func (b *bridge) file(fh uint64) *node {
	if h := b.disk.handles[fh]; h != nil {
		return h.node
	}
	return nil
}

func (b *bridge) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n, status := b.make(&in.InHeader, name, syscall.S_IFREG|in.Mode&0o7777, &out.EntryOut)
	if status != fuse.OK {
		return status
	}
	out.Fh, out.OpenFlags = b.open(n), fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

func (b *bridge) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n := b.node(in.NodeId)
	switch {
	case n == nil:
		return fuse.EIO
	case in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY && b.disk.readOnly:
		return fuse.EROFS
	case in.Flags&syscall.O_TRUNC != 0:
		b.truncate(n, 0)
	}
	out.Fh, out.OpenFlags = b.open(n), fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

func (b *bridge) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	delete(b.disk.handles, in.Fh)
}

func (b *bridge) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n := b.file(in.Fh)
	if n == nil {
		return nil, fuse.EIO
	}
	return fuse.ReadResultData(buf[:n.read(buf, int64(in.Offset))]), fuse.OK
}

func (b *bridge) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n := b.file(in.Fh)
	if n == nil {
		return 0, fuse.EIO
	}
	if status := b.room(n, in.Offset, uint64(len(data))); status != fuse.OK {
		return 0, status
	}
	before := n.blocks
	n.write(data, int64(in.Offset))
	b.disk.used += n.blocks - before
	n.mtime = time.Now()
	if in.Flags&syscall.O_DSYNC != 0 {
		n.sync(in.Flags&syscall.O_SYNC == syscall.O_SYNC)
	}
	return uint32(len(data)), fuse.OK
}

// room says whether size bytes may be written at off.
func (b *bridge) room(n *node, off, size uint64) fuse.Status {
	switch {
	case b.disk.readOnly:
		return fuse.EROFS
	case off > maxSize || size > maxSize-off:
		return fuse.Status(syscall.EFBIG)
	case b.disk.used+n.fresh(int64(off), int64(size)) > b.disk.capacity:
		return fuse.Status(syscall.ENOSPC)
	}
	return fuse.OK
}

// The modes of fallocate(2).
const (
	fallocKeepSize  = 0x01
	fallocPunchHole = 0x02
	fallocZeroRange = 0x10
)

func (b *bridge) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n := b.file(in.Fh)
	if n == nil {
		return fuse.EIO
	}
	off, size := int64(in.Offset), int64(in.Length)
	before := n.blocks
	defer func() { b.disk.used += n.blocks - before }()
	switch in.Mode &^ fallocKeepSize {
	case fallocPunchHole:
		if b.disk.readOnly {
			return fuse.EROFS
		}
		n.punch(off, size)
		return fuse.OK
	case fallocZeroRange, 0:
		if status := b.room(n, in.Offset, in.Length); status != fuse.OK {
			return status
		}
		if in.Mode&fallocZeroRange != 0 {
			n.punch(off, size)
		}
		n.allocate(off, size)
		if in.Mode&fallocKeepSize == 0 {
			n.live.size = max(n.live.size, off+size)
		}
		return fuse.OK
	}
	return fuse.Status(syscall.EOPNOTSUPP)
}

func (b *bridge) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	const seekData, seekHole = 3, 4
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n := b.file(in.Fh)
	switch {
	case n == nil:
		return fuse.EIO
	case in.Whence != seekData && in.Whence != seekHole:
		return fuse.EINVAL
	}
	off, size := int64(in.Offset), n.live.size
	for off < size && (n.live.page(int(off/pageSize)) != nil) != (in.Whence == seekData) {
		off = (off/pageSize + 1) * pageSize
	}
	switch {
	case int64(in.Offset) >= size, off >= size && in.Whence == seekData:
		return fuse.Status(syscall.ENXIO)
	}
	out.Offset = uint64(min(off, size))
	return fuse.OK
}

func (b *bridge) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	if b.file(in.Fh) == nil {
		return fuse.EIO
	}
	return fuse.OK
}

func (b *bridge) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	const dataOnly = 1
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n := b.file(in.Fh)
	if n == nil {
		return fuse.EIO
	}
	n.sync(in.FsyncFlags&dataOnly == 0)
	return fuse.OK
}

func (b *bridge) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n := b.node(in.NodeId)
	if n == nil {
		return fuse.EIO
	}
	out.Fh = b.open(n)
	return fuse.OK
}

// ReadDir lists the names that were there when the listing began and still are.
func (b *bridge) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	h := b.disk.handles[in.Fh]
	if h == nil {
		return fuse.EIO
	}
	if in.Offset == 0 {
		h.list = slices.Sorted(maps.Keys(h.node.names))
	}
	for i := in.Offset; i < uint64(len(h.list)); i++ {
		n := h.node.names[h.list[i]]
		if n == nil {
			continue
		}
		if !out.AddDirEntry(fuse.DirEntry{Name: h.list[i], Ino: n.id, Mode: n.mode, Off: i + 1}) {
			break
		}
	}
	return fuse.OK
}

func (b *bridge) ReleaseDir(in *fuse.ReleaseIn) {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	delete(b.disk.handles, in.Fh)
}

func (b *bridge) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n := b.file(in.Fh)
	if n == nil {
		return fuse.EIO
	}
	b.disk.syncDir(n)
	return fuse.OK
}
