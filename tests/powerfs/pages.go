package powerfs

import (
	"maps"
	"math/rand/v2"
)

const (
	pageSize = 4096
	maxSize  = 64 << 30 // of one file; bounds the page table
)

// A page is a block of a file. It never changes once a content that was synced
// refers to it.
type page [pageSize]byte

// allocated is the page of a range that was preallocated and not written.
var allocated = new(page)

// content is what a file holds: at this moment, or durably.
type content struct {
	size   int64
	pages  []*page // nil is a hole; may be shorter than size
	xattrs map[string]string
}

func (c *content) page(i int) *page {
	if i < len(c.pages) {
		return c.pages[i]
	}
	return nil
}

func (c *content) setPage(i int, p *page) {
	if i >= len(c.pages) {
		if p == nil {
			return
		}
		c.pages = append(c.pages, make([]*page, i+1-len(c.pages))...)
	}
	c.pages[i] = p
}

// cutAt removes what lies at or after size, so that growing again gives zeroes.
func (c *content) cutAt(size int64) {
	keep := int((size + pageSize - 1) / pageSize)
	if keep < len(c.pages) {
		clear(c.pages[keep:])
		c.pages = c.pages[:keep]
	}
	if tail := size % pageSize; tail != 0 {
		if p := c.page(keep - 1); p != nil {
			q := *p
			clear(q[tail:])
			c.pages[keep-1] = &q
		}
	}
	c.size = min(c.size, size)
}

func (c *content) clone() content {
	return content{size: c.size, pages: append([]*page(nil), c.pages...), xattrs: maps.Clone(c.xattrs)}
}

func (c *content) count() int64 {
	var n int64
	for _, p := range c.pages {
		if p != nil {
			n++
		}
	}
	return n
}

// A file is the data of an inode, live and durable.
type file struct {
	live    content
	durable content
	dirty   map[int]struct{} // pages that may differ between the two
	shrunk  int64            // smallest size since the last sync, -1 if it never shrank
	blocks  int64            // pages of live that are not holes
}

func newFile() file { return file{dirty: make(map[int]struct{}), shrunk: -1} }

func (f *file) read(p []byte, off int64) int {
	if off >= f.live.size {
		return 0
	}
	p = p[:min(int64(len(p)), f.live.size-off)]
	for n := 0; n < len(p); {
		i, in := int((off+int64(n))/pageSize), int((off+int64(n))%pageSize)
		m := min(pageSize-in, len(p)-n)
		if pg := f.live.page(i); pg != nil {
			copy(p[n:n+m], pg[in:])
		} else {
			clear(p[n : n+m])
		}
		n += m
	}
	return len(p)
}

// writable returns page i for changing.
func (f *file) writable(i int) *page {
	p := f.live.page(i)
	switch {
	case p == nil:
		p = new(page)
		f.blocks++
		f.live.setPage(i, p)
	case p == allocated || p == f.durable.page(i):
		q := *p
		p = &q
		f.live.setPage(i, p)
	}
	f.dirty[i] = struct{}{}
	return p
}

// fresh returns the number of holes that a write of n bytes at off would fill.
func (f *file) fresh(off, n int64) int64 {
	var holes int64
	for i := off / pageSize; i*pageSize < off+n; i++ {
		if f.live.page(int(i)) == nil {
			holes++
		}
	}
	return holes
}

func (f *file) write(p []byte, off int64) {
	for n := 0; n < len(p); {
		i, in := int((off+int64(n))/pageSize), int((off+int64(n))%pageSize)
		n += copy(f.writable(i)[in:], p[n:])
	}
	f.live.size = max(f.live.size, off+int64(len(p)))
}

// allocate gives the range pages of zeroes where it has none.
func (f *file) allocate(off, n int64) {
	for i := off / pageSize; i*pageSize < off+n; i++ {
		if f.live.page(int(i)) == nil {
			f.live.setPage(int(i), allocated)
			f.dirty[int(i)] = struct{}{}
			f.blocks++
		}
	}
}

// punch makes the range read as zeroes and frees the pages that it covers.
func (f *file) punch(off, n int64) {
	end := min(off+n, int64(len(f.live.pages))*pageSize)
	for off < end {
		i, in := int(off/pageSize), off%pageSize
		m := min(pageSize-in, end-off)
		switch {
		case f.live.page(i) == nil:
		case m == pageSize:
			f.live.setPage(i, nil)
			f.dirty[i] = struct{}{}
			f.blocks--
		default:
			clear(f.writable(i)[in : in+m])
		}
		off += m
	}
}

func (f *file) truncate(size int64) {
	if size < f.live.size {
		for i := size / pageSize; i < int64(len(f.live.pages)); i++ {
			f.dirty[int(i)] = struct{}{}
		}
		f.live.cutAt(size)
		f.blocks = f.live.count()
		if f.shrunk < 0 || size < f.shrunk {
			f.shrunk = size
		}
	}
	f.live.size = size
}

// sync makes the data and the size durable, and with meta the attributes too.
func (f *file) sync(meta bool) {
	if f.shrunk >= 0 {
		f.durable.cutAt(f.shrunk)
	}
	for i := range f.dirty {
		f.durable.setPage(i, f.live.page(i))
	}
	clear(f.dirty)
	f.shrunk = -1
	f.durable.size = f.live.size
	if meta {
		f.durable.xattrs = maps.Clone(f.live.xattrs)
	}
}

// survivor returns what a disk would hold after losing its power now. Without
// dice that is the durable content; with them a part of the changes since.
func (f *file) survivor(keep func() bool) content {
	c := f.durable.clone()
	if keep == nil {
		return c
	}
	if keep() {
		c.xattrs = maps.Clone(f.live.xattrs)
	}
	sized := keep()
	limit := f.durable.size // how far single pages of the live file may show
	switch {
	case sized:
		if f.shrunk >= 0 {
			c.cutAt(f.shrunk)
		}
		c.size, limit = f.live.size, f.live.size
	case f.shrunk >= 0:
		limit = min(limit, f.shrunk)
	}
	for i := range f.dirty {
		if int64(i)*pageSize < limit && keep() {
			c.setPage(i, f.live.page(i))
		}
	}
	c.cutAt(c.size) // a page that survived may hold bytes past the end
	return c
}

// chance returns dice that say yes with one probability, itself drawn from rng,
// so that disks that kept nearly all and disks that kept little both occur.
func chance(rng *rand.Rand) func() bool {
	p := []float64{0.05, 0.5, 0.95}[rng.IntN(3)]
	return func() bool { return rng.Float64() < p }
}
