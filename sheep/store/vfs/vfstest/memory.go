// Package vfstest has disks for tests: one in memory that can crash, and one
// that fails on command.
//
// A Memory keeps what was written and, apart from it, what was synced. Crash
// returns the disk as it might be found after a power failure: all that was
// synced, and of the rest any part that the caller's random numbers pick, down
// to single sectors. It is harsher than real file systems: neither size nor
// attributes nor the order of files matter to it, only that names in one
// directory change in order.
package vfstest

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"sync"

	"sheepdog/sheep/store/vfs"
)

const (
	pageSize   = 4096
	sectorSize = 512
)

// A Memory is a disk in memory. It implements vfs.FS.
type Memory struct {
	mu     sync.Mutex
	dirs   map[string]*directory
	locked bool
	total  uint64
	free   uint64
}

// A directory has the names that are seen, those that are durable, and the
// steps from the ones to the others.
type directory struct {
	now, durable map[string]*inode
	steps        [][]change
}

// A change gives a name to a file, or takes it away if node is nil.
type change struct {
	name string
	node *inode
}

// An inode is a file. Pages are never changed, only replaced.
type inode struct {
	now, durable content
	unsynced     map[int64]bool // pages that differ
}

type content struct {
	pages map[int64]*[pageSize]byte
	size  int64
	attrs map[string]string
}

func (c content) clone() content {
	return content{maps.Clone(c.pages), c.size, maps.Clone(c.attrs)}
}

func newInode() *inode {
	return &inode{
		now:      content{pages: map[int64]*[pageSize]byte{}, attrs: map[string]string{}},
		durable:  content{pages: map[int64]*[pageSize]byte{}, attrs: map[string]string{}},
		unsynced: map[int64]bool{},
	}
}

// NewMemory returns an empty disk with that many bytes to spare, which are
// not counted down.
func NewMemory(free uint64) *Memory {
	m := &Memory{dirs: map[string]*directory{}, total: free, free: free}
	m.dirs["."] = &directory{now: map[string]*inode{}, durable: map[string]*inode{}}
	return m
}

// Crash returns the disk as it might be after a crash at this moment. If rng
// is nil all that was not synced is gone. The disk itself does not change.
func (m *Memory) Crash(rng *rand.Rand) *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := &Memory{dirs: map[string]*directory{}, total: m.total, free: m.free}
	inodes := map[*inode]*inode{}
	for _, name := range slices.Sorted(maps.Keys(m.dirs)) {
		d := m.dirs[name]
		names := maps.Clone(d.durable)
		keep := 0
		if rng != nil {
			keep = rng.IntN(len(d.steps) + 1)
		}
		for _, step := range d.steps[:keep] {
			apply(names, step)
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			old := names[name]
			if inodes[old] == nil {
				inodes[old] = old.crash(rng)
			}
			names[name] = inodes[old]
		}
		after.dirs[name] = &directory{now: names, durable: maps.Clone(names)}
	}
	return after
}

func apply(names map[string]*inode, step []change) {
	for _, c := range step {
		if c.node == nil {
			delete(names, c.name)
		} else {
			names[c.name] = c.node
		}
	}
}

func (n *inode) crash(rng *rand.Rand) *inode {
	c := n.durable.clone()
	if rng != nil {
		switch grown := n.now.size - n.durable.size; rng.IntN(4) {
		case 0, 1:
			c.size = n.now.size
		case 2: // it has grown as far as its pages were written
			c.size += rng.Int64N(max(0, grown)/pageSize+1) * pageSize
		}
		if rng.IntN(2) == 0 {
			c.attrs = maps.Clone(n.now.attrs)
		}
		for _, i := range slices.Sorted(maps.Keys(n.unsynced)) {
			c.pages[i] = tear(rng, n.durable.pages[i], n.now.pages[i])
		}
	}
	maps.DeleteFunc(c.pages, func(i int64, p *[pageSize]byte) bool { return p == nil || i*pageSize >= c.size })
	return &inode{now: c, durable: c.clone(), unsynced: map[int64]bool{}}
}

// tear returns a page of which some sectors have been written.
func tear(rng *rand.Rand, old, new *[pageSize]byte) *[pageSize]byte {
	switch rng.IntN(3) {
	case 0:
		return old
	case 1:
		return new
	}
	var p [pageSize]byte
	for off := 0; off < pageSize; off += sectorSize {
		from := old
		if rng.IntN(2) == 0 {
			from = new
		}
		if from != nil {
			copy(p[off:off+sectorSize], from[off:])
		}
	}
	return &p
}

// Corrupt flips the bits of mask in one byte of a file, as a failing disk does.
func (m *Memory) Corrupt(name string, off int64, mask byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err != nil {
		panic(err)
	}
	for _, c := range []content{n.now, n.durable} {
		p := [pageSize]byte{}
		if old := c.pages[off/pageSize]; old != nil {
			p = *old
		}
		p[off%pageSize] ^= mask
		c.pages[off/pageSize] = &p
	}
}

// SetFree sets the number of free bytes.
func (m *Memory) SetFree(n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free = n
}

func notFound(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

func (m *Memory) dir(op, name string) (*directory, string, error) {
	d := m.dirs[path.Dir(name)]
	if d == nil {
		return nil, "", notFound(op, name)
	}
	return d, path.Base(name), nil
}

func (m *Memory) find(name string) (*inode, error) {
	d, base, err := m.dir("open", name)
	if err != nil {
		return nil, err
	}
	if d.now[base] == nil {
		return nil, notFound("open", name)
	}
	return d.now[base], nil
}

// step changes names of a directory at once.
func (d *directory) step(changes ...change) {
	apply(d.now, changes)
	d.steps = append(d.steps, changes)
}

// Open implements vfs.FS.
func (m *Memory) Open(name string, flag int) (vfs.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dir("open", name)
	if err != nil {
		return nil, err
	}
	n := d.now[base]
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, notFound("open", name)
	case n != nil && flag&os.O_EXCL != 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case n == nil:
		n = newInode()
		d.step(change{base, n})
	}
	if flag&os.O_TRUNC != 0 {
		n.truncate(0)
	}
	return &memoryFile{m: m, n: n}, nil
}

// Mkdir implements vfs.FS. Directories are durable at once.
func (m *Memory) Mkdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dirs[path.Dir(name)] == nil {
		return notFound("mkdir", name)
	}
	if m.dirs[name] == nil {
		m.dirs[name] = &directory{now: map[string]*inode{}, durable: map[string]*inode{}}
	}
	return nil
}

// Remove implements vfs.FS.
func (m *Memory) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.find(name); err != nil {
		return err
	}
	m.dirs[path.Dir(name)].step(change{path.Base(name), nil})
	return nil
}

// Rename implements vfs.FS.
func (m *Memory) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(from)
	if err != nil {
		return err
	}
	d, base, err := m.dir("rename", to)
	if err != nil {
		return err
	}
	source := m.dirs[path.Dir(from)]
	if source == d {
		d.step(change{path.Base(from), nil}, change{base, n})
		return nil
	}
	d.step(change{base, n})
	source.step(change{path.Base(from), nil})
	return nil
}

// List implements vfs.FS.
func (m *Memory) List(name string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[name]
	if d == nil {
		return nil, notFound("list", name)
	}
	names := slices.Collect(maps.Keys(d.now))
	for dir := range m.dirs {
		if dir != "." && path.Dir(dir) == name {
			names = append(names, path.Base(dir))
		}
	}
	return names, nil
}

// SyncDir implements vfs.FS.
func (m *Memory) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[name]
	if d == nil {
		return notFound("sync", name)
	}
	d.durable = maps.Clone(d.now)
	d.steps = nil
	return nil
}

// Exists implements vfs.FS.
func (m *Memory) Exists(name string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[path.Dir(name)]
	return d != nil && d.now[path.Base(name)] != nil, nil
}

// Space implements vfs.FS. The disk is as large as it was free at first.
func (m *Memory) Space() (total, free uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total, m.free, nil
}

// Used implements vfs.FS.
func (m *Memory) Used(name string) (used uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[name]
	if d == nil {
		return 0, notFound("list", name)
	}
	for _, f := range d.now {
		used += uint64(len(f.now.pages)) * pageSize
	}
	return used, nil
}

// Lock implements vfs.FS.
func (m *Memory) Lock(string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked {
		return nil, vfs.ErrLocked
	}
	m.locked = true
	return unlocker{m}, nil
}

type unlocker struct{ m *Memory }

func (u unlocker) Close() error {
	u.m.mu.Lock()
	defer u.m.mu.Unlock()
	u.m.locked = false
	return nil
}

// Close implements vfs.FS.
func (m *Memory) Close() error { return nil }

// A memoryFile is an open file of a Memory, whose mutex guards it.
type memoryFile struct {
	m      *Memory
	n      *inode
	closed bool
}

// use locks the disk if the file is open. The caller unlocks it.
func (f *memoryFile) use(op string) error {
	f.m.mu.Lock()
	if f.closed {
		f.m.mu.Unlock()
		return fmt.Errorf("%s: %w", op, os.ErrClosed)
	}
	return nil
}

func (f *memoryFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.use("read"); err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	done := 0
	for done < len(p) && off < f.n.now.size {
		n := min(int64(len(p)-done), pageSize-off%pageSize, f.n.now.size-off)
		if page := f.n.now.pages[off/pageSize]; page != nil {
			copy(p[done:done+int(n)], page[off%pageSize:])
		} else {
			clear(p[done : done+int(n)])
		}
		done, off = done+int(n), off+n
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

func (f *memoryFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.use("write"); err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	f.n.write(p, off)
	f.n.now.size = max(f.n.now.size, off+int64(len(p)))
	return len(p), nil
}

func (n *inode) write(p []byte, off int64) {
	for len(p) > 0 {
		page := [pageSize]byte{}
		if old := n.now.pages[off/pageSize]; old != nil {
			page = *old
		}
		c := copy(page[off%pageSize:], p)
		n.now.pages[off/pageSize] = &page
		n.unsynced[off/pageSize] = true
		p, off = p[c:], off+int64(c)
	}
}

func (n *inode) truncate(size int64) {
	for i := range n.now.pages {
		if i*pageSize >= size {
			delete(n.now.pages, i)
			n.unsynced[i] = true
		}
	}
	if n.now.pages[size/pageSize] != nil {
		n.write(make([]byte, pageSize-size%pageSize), size)
	}
	n.now.size = size
}

func (f *memoryFile) Close() error {
	if err := f.use("close"); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	f.closed = true
	return nil
}

func (f *memoryFile) Size() (int64, error) {
	if err := f.use("stat"); err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	return f.n.now.size, nil
}

func (f *memoryFile) Truncate(size int64) error {
	if err := f.use("truncate"); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	f.n.truncate(size)
	return nil
}

func (f *memoryFile) Punch(off, n int64) error {
	if err := f.use("punch"); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	f.n.write(make([]byte, max(0, min(n, f.n.now.size-off))), off)
	return nil
}

func (f *memoryFile) Dense(off, n int64) (bool, error) {
	if err := f.use("lseek"); err != nil {
		return false, err
	}
	defer f.m.mu.Unlock()
	for i := off / pageSize; i*pageSize < off+n; i++ {
		if f.n.now.pages[i] == nil {
			return false, nil
		}
	}
	return true, nil
}

func (f *memoryFile) Forget() error { return nil }

func (f *memoryFile) Sync() error { return f.sync(true) }

func (f *memoryFile) DataSync() error { return f.sync(false) }

func (f *memoryFile) sync(attrs bool) error {
	if err := f.use("sync"); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	n := f.n
	for i := range n.unsynced {
		if p := n.now.pages[i]; p != nil {
			n.durable.pages[i] = p
		} else {
			delete(n.durable.pages, i)
		}
	}
	clear(n.unsynced)
	n.durable.size = n.now.size
	if attrs {
		n.durable.attrs = maps.Clone(n.now.attrs)
	}
	return nil
}

func (f *memoryFile) Attr(name string) ([]byte, error) {
	if err := f.use("getxattr"); err != nil {
		return nil, err
	}
	defer f.m.mu.Unlock()
	if v, ok := f.n.now.attrs[name]; ok {
		return []byte(v), nil
	}
	return nil, nil
}

func (f *memoryFile) SetAttr(name string, value []byte) error {
	if err := f.use("setxattr"); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	f.n.now.attrs[name] = string(value)
	return nil
}
