package powerfs

import (
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

const rootID = 1

// A node is an inode.
type node struct {
	id      uint64
	mode    uint32 // type and permissions
	uid     uint32
	gid     uint32
	nlink   uint32
	mtime   time.Time
	target  string // of a symbolic link
	lookups uint64 // what the kernel still remembers

	file          // if it is a regular file; attributes of any node
	names dirents // if it is a directory
	kept  dirents // the names that are durable
}

type dirents map[string]*node

func (n *node) isDir() bool { return n.mode&syscall.S_IFMT == syscall.S_IFDIR }

// An edit gives a name of a directory to a node, or to none.
type edit struct {
	dir  *node
	name string
	to   *node
}

func (e edit) key() slot { return slot{e.dir, e.name} }

type slot struct {
	dir  *node
	name string
}

// A change is edits that happen together or not at all.
type change []edit

// A handle is an open file or directory.
type handle struct {
	node *node
	list []string // of a directory: its names when the listing began
}

// A disk is the file system without FUSE.
type disk struct {
	mu       sync.Mutex
	root     *node
	nodes    map[uint64]*node   // that the kernel knows
	handles  map[uint64]*handle // opened since the last cut
	lastID   uint64
	lastFH   uint64
	pending  []change // not yet durable, in the order in which they were made
	used     int64    // pages
	capacity int64    // pages
	readOnly bool
}

func newDisk() *disk {
	d := &disk{capacity: 1 << 40 / pageSize, lastID: rootID}
	d.reset(&node{id: rootID, mode: syscall.S_IFDIR | 0o755, nlink: 2, mtime: time.Now(), file: newFile(), names: dirents{}, kept: dirents{}})
	return d
}

func (d *disk) reset(root *node) {
	root.lookups = 1
	d.root = root
	d.nodes = map[uint64]*node{rootID: root}
	d.handles = make(map[uint64]*handle)
	d.pending = nil
}

func (d *disk) setCapacity(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capacity = n / pageSize
}

func (d *disk) setReadOnly(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.readOnly = on
}

func (d *disk) usedBytes() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.used * pageSize
}

// newNode returns a node that has no name yet.
func (d *disk) newNode(mode, uid, gid uint32) *node {
	d.lastID++
	n := &node{id: d.lastID, mode: mode, uid: uid, gid: gid, mtime: time.Now(), file: newFile()}
	if n.isDir() {
		n.names, n.kept = dirents{}, dirents{}
	}
	return n
}

// do applies c to the live tree and remembers that it is not durable.
func (d *disk) do(c change) {
	for _, e := range c {
		if old := e.dir.names[e.name]; old != nil {
			old.nlink--
		}
		if e.to == nil {
			delete(e.dir.names, e.name)
		} else {
			e.dir.names[e.name] = e.to
			e.to.nlink++
		}
		e.dir.mtime = time.Now()
	}
	d.pending = append(d.pending, c)
}

// syncDir makes the names of dir durable, and whatever they depend on.
func (d *disk) syncDir(dir *node) {
	wanted := make([]bool, len(d.pending))
	slots := make(map[slot]bool)
	for i := len(d.pending) - 1; i >= 0; i-- {
		for _, e := range d.pending[i] {
			if e.dir == dir || slots[e.key()] {
				wanted[i] = true
			}
		}
		if wanted[i] {
			for _, e := range d.pending[i] {
				slots[e.key()] = true
			}
		}
	}
	var rest []change
	for i, c := range d.pending {
		if wanted[i] {
			c.persist()
		} else {
			rest = append(rest, c)
		}
	}
	d.pending = rest
	dir.sync(true)
}

// persist applies c to the durable tree.
func (c change) persist() {
	for _, e := range c {
		if e.to == nil {
			delete(e.dir.kept, e.name)
		} else {
			e.dir.kept[e.name] = e.to
		}
	}
}

// cut replaces the tree by what survives.
func (d *disk) cut(rng *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var keep func() bool
	if rng != nil {
		keep = chance(rng)
		kept := journalled(rng, len(d.pending), keep)
		lost := make(map[slot]bool)
		for i, c := range d.pending {
			if kept(i) && !c.touches(lost) {
				c.persist()
				continue
			}
			for _, e := range c {
				lost[e.key()] = true
			}
		}
	}
	d.used = 0
	root := d.survivor(d.root, keep, make(map[*node]*node))
	root.id = rootID
	root.nlink = 2
	d.reset(root)
}

// journalled returns which of n changes of names survive: half of the time each
// on its own, as keep says, else all up to one of them, as in a file system with
// a journal, and often the last.
func journalled(rng *rand.Rand, n int, keep func() bool) func(i int) bool {
	if n == 0 || rng.IntN(2) == 0 {
		return func(int) bool { return keep() }
	}
	end := n
	if rng.IntN(2) == 0 {
		end = rng.IntN(n)
	}
	return func(i int) bool { return i < end }
}

func (c change) touches(slots map[slot]bool) bool {
	for _, e := range c {
		if slots[e.key()] {
			return true
		}
	}
	return false
}

// survivor copies the durable state of n and all below it into new nodes.
func (d *disk) survivor(n *node, keep func() bool, seen map[*node]*node) *node {
	if s := seen[n]; s != nil {
		return s
	}
	s := d.newNode(n.mode, n.uid, n.gid)
	seen[n] = s
	s.mtime, s.target = n.mtime, n.target
	s.live = n.file.survivor(keep)
	s.durable = s.live.clone()
	s.blocks = s.live.count()
	d.used += s.blocks
	for name, child := range n.kept {
		c := d.survivor(child, keep, seen)
		c.nlink++
		if c.isDir() {
			c.nlink = 2
		}
		s.names[name] = c
		s.kept[name] = c
	}
	return s
}

// release forgets what nobody can reach any more, for the count of used pages.
func (d *disk) release(n *node) {
	if n.lookups == 0 {
		delete(d.nodes, n.id)
		if n.gone() {
			d.used -= n.blocks
			n.blocks = 0
		}
	}
}

func (n *node) gone() bool { return n.nlink == 0 && n.id != rootID }
