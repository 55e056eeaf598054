package powerfs

import (
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// forever is how long the kernel may trust what it was told. Nothing changes
// behind its back but by a cut, and then no path leads to the old nodes,
// because the names in the root are never trusted.
const forever = time.Hour

// A bridge serves a disk to the kernel. Each request is made under the disk's
// lock, so a cut falls between two requests.
type bridge struct {
	fuse.RawFileSystem // answers ENOSYS to the rest
	disk               *disk
}

func newBridge(d *disk) *bridge {
	return &bridge{RawFileSystem: fuse.NewDefaultRawFileSystem(), disk: d}
}

func (b *bridge) String() string { return "powerfs" }

// node returns the node of a request, or nil if the power failed since the
// kernel learnt of it.
func (b *bridge) node(id uint64) *node { return b.disk.nodes[id] }

func (b *bridge) enter(out *fuse.EntryOut, dir, n *node) {
	n.lookups++
	b.disk.nodes[n.id] = n
	out.NodeId, out.Generation = n.id, 1
	if dir.id != rootID {
		out.SetEntryTimeout(forever)
	}
	out.SetAttrTimeout(forever)
	n.fill(&out.Attr)
}

func (n *node) fill(a *fuse.Attr) {
	a.Ino, a.Mode, a.Nlink, a.Blksize = n.id, n.mode, n.nlink, pageSize
	a.Uid, a.Gid = n.uid, n.gid
	a.Size, a.Blocks = uint64(n.live.size), uint64(n.blocks)*(pageSize/512)
	if n.target != "" {
		a.Size = uint64(len(n.target))
	}
	a.SetTimes(&n.mtime, &n.mtime, &n.mtime)
}

func (b *bridge) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	dir := b.node(h.NodeId)
	if dir == nil {
		return fuse.EIO
	}
	n := dir.names[name]
	if n == nil {
		return fuse.ENOENT
	}
	b.enter(out, dir, n)
	return fuse.OK
}

func (b *bridge) Forget(id, lookups uint64) {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	if n := b.node(id); n != nil && id != rootID {
		n.lookups -= min(lookups, n.lookups)
		b.disk.release(n)
	}
}

func (b *bridge) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n := b.node(in.NodeId)
	if n == nil {
		return fuse.EIO
	}
	b.attrs(out, n)
	return fuse.OK
}

func (b *bridge) attrs(out *fuse.AttrOut, n *node) {
	if n.id != rootID {
		out.SetTimeout(forever)
	}
	n.fill(&out.Attr)
}

func (b *bridge) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n, status := b.change(in.NodeId)
	if status != fuse.OK {
		return status
	}
	if size, ok := in.GetSize(); ok {
		if size > maxSize {
			return fuse.Status(syscall.EFBIG)
		}
		b.truncate(n, int64(size))
	}
	if mode, ok := in.GetMode(); ok {
		n.mode = n.mode&syscall.S_IFMT | mode&^syscall.S_IFMT
	}
	if uid, ok := in.GetUID(); ok {
		n.uid = uid
	}
	if gid, ok := in.GetGID(); ok {
		n.gid = gid
	}
	if mtime, ok := in.GetMTime(); ok {
		n.mtime = mtime
	}
	b.attrs(out, n)
	return fuse.OK
}

func (b *bridge) truncate(n *node, size int64) {
	before := n.blocks
	n.truncate(size)
	b.disk.used += n.blocks - before
	n.mtime = time.Now()
}

// change returns the node of a request that changes something.
func (b *bridge) change(id uint64) (*node, fuse.Status) {
	switch n := b.node(id); {
	case n == nil:
		return nil, fuse.EIO
	case b.disk.readOnly:
		return nil, fuse.EROFS
	default:
		return n, fuse.OK
	}
}

// make puts a new node into the directory dir.
func (b *bridge) make(h *fuse.InHeader, name string, mode uint32, out *fuse.EntryOut) (*node, fuse.Status) {
	dir, status := b.change(h.NodeId)
	if status != fuse.OK {
		return nil, status
	}
	if dir.names[name] != nil {
		return nil, fuse.Status(syscall.EEXIST)
	}
	n := b.disk.newNode(mode, h.Uid, h.Gid)
	if n.isDir() {
		n.nlink = 1 // its own dot
	}
	b.disk.do(change{{dir, name, n}})
	b.enter(out, dir, n)
	return n, fuse.OK
}

func (b *bridge) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	_, status := b.make(&in.InHeader, name, in.Mode, out)
	return status
}

func (b *bridge) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	_, status := b.make(&in.InHeader, name, syscall.S_IFDIR|in.Mode&0o7777, out)
	return status
}

func (b *bridge) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n, status := b.make(h, name, syscall.S_IFLNK|0o777, out)
	if status == fuse.OK {
		n.target = target
		n.fill(&out.Attr)
	}
	return status
}

func (b *bridge) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n := b.node(h.NodeId)
	if n == nil {
		return nil, fuse.EIO
	}
	return []byte(n.target), fuse.OK
}

func (b *bridge) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return b.remove(h.NodeId, name)
}

func (b *bridge) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return b.remove(h.NodeId, name)
}

func (b *bridge) remove(id uint64, name string) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	dir, status := b.change(id)
	if status != fuse.OK {
		return status
	}
	n := dir.names[name]
	switch {
	case n == nil:
		return fuse.ENOENT
	case len(n.names) > 0:
		return fuse.Status(syscall.ENOTEMPTY)
	}
	b.disk.do(change{{dir, name, nil}})
	b.disk.release(n)
	return fuse.OK
}

// The flags of renameat2(2).
const (
	renameNoReplace = 1
	renameExchange  = 2
)

func (b *bridge) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	from, status := b.change(in.NodeId)
	if status != fuse.OK {
		return status
	}
	to, status := b.change(in.Newdir)
	if status != fuse.OK {
		return status
	}
	n, old := from.names[oldName], to.names[newName]
	switch {
	case n == nil, old == nil && in.Flags&renameExchange != 0:
		return fuse.ENOENT
	case old != nil && in.Flags&renameNoReplace != 0:
		return fuse.Status(syscall.EEXIST)
	case in.Flags&renameExchange != 0:
		b.disk.do(change{{from, oldName, old}, {to, newName, n}})
		return fuse.OK
	case old == n:
		return fuse.OK
	case old != nil && len(old.names) > 0:
		return fuse.Status(syscall.ENOTEMPTY)
	}
	b.disk.do(change{{from, oldName, nil}, {to, newName, n}})
	if old != nil {
		b.disk.release(old)
	}
	return fuse.OK
}

func (b *bridge) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	dir, status := b.change(in.NodeId)
	if status != fuse.OK {
		return status
	}
	n := b.node(in.Oldnodeid)
	switch {
	case n == nil:
		return fuse.EIO
	case dir.names[name] != nil:
		return fuse.Status(syscall.EEXIST)
	}
	b.disk.do(change{{dir, name, n}})
	b.enter(out, dir, n)
	return fuse.OK
}

func (b *bridge) Access(_ <-chan struct{}, _ *fuse.AccessIn) fuse.Status { return fuse.OK }

func (b *bridge) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	free := max(0, b.disk.capacity-b.disk.used)
	out.Bsize, out.Frsize, out.NameLen = pageSize, pageSize, 255
	out.Blocks, out.Bfree, out.Bavail = uint64(b.disk.capacity), uint64(free), uint64(free)
	out.Files, out.Ffree = 1<<20, 1<<20
	return fuse.OK
}

func (b *bridge) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n := b.node(h.NodeId)
	if n == nil {
		return 0, fuse.EIO
	}
	v, ok := n.live.xattrs[name]
	if !ok {
		return 0, fuse.ENODATA
	}
	return answer(dest, v)
}

func (b *bridge) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n := b.node(h.NodeId)
	if n == nil {
		return 0, fuse.EIO
	}
	var names []string
	for name := range n.live.xattrs {
		names = append(names, name+"\x00")
	}
	slices.Sort(names)
	return answer(dest, strings.Join(names, ""))
}

// answer gives v to a caller that has room for dest; no room asks for the size.
func answer(dest []byte, v string) (uint32, fuse.Status) {
	if len(v) > len(dest) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}

// The flags of setxattr(2).
const (
	xattrCreate  = 1
	xattrReplace = 2
)

func (b *bridge) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n, status := b.change(in.NodeId)
	if status != fuse.OK {
		return status
	}
	_, exists := n.live.xattrs[name]
	switch {
	case exists && in.Flags&xattrCreate != 0:
		return fuse.Status(syscall.EEXIST)
	case !exists && in.Flags&xattrReplace != 0:
		return fuse.ENODATA
	case n.live.xattrs == nil:
		n.live.xattrs = make(map[string]string)
	}
	n.live.xattrs[name] = string(data)
	return fuse.OK
}

func (b *bridge) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	n, status := b.change(h.NodeId)
	if status != fuse.OK {
		return status
	}
	if _, ok := n.live.xattrs[name]; !ok {
		return fuse.ENODATA
	}
	delete(n.live.xattrs, name)
	return fuse.OK
}
