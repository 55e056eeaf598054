package vdi

import (
	"context"
	"sync"

	"sheepdog/sheep"
)

// cachedSlots is how many slots a page of a mapCache has.
const cachedSlots = 4096

// A mapCache holds pages of the map of one inode.
//
// It is right because of three things. What is read under one version is
// forgotten under another. A write to the map changes the pages in memory
// before anybody can know that it has been made. And the writes that come while a
// page is being read are made to the page again when it has been read: they are in
// order, so that each slot ends as the last of them has it.
type mapCache struct {
	limit int // pages at most, those being read not counted

	mu      sync.Mutex
	version uint64              // guarded by mu, as is what follows
	pages   map[uint32]*mapPage // by number
	proven  bool                // this gateway has written the map under version
}

// A mapPage is a part of a map. Its fields are guarded by the cache's mu, except
// for slots while the page is being read.
type mapPage struct {
	loaded chan struct{} // closed when it has been read, or could not be
	ready  bool
	used   bool                   // since evict looked last
	missed map[uint32]sheep.VDIID // written while the page was being read
	slots  [cachedSlots]sheep.VDIID
}

// adopt forgets what was read under another version. The caller holds c.mu.
func (c *mapCache) adopt(version uint64) {
	if c.version != version || c.pages == nil {
		c.version, c.proven = version, false
		c.pages = make(map[uint32]*mapPage)
	}
}

// find copies the slots from first on into owners, all of one page. Otherwise it
// returns the page, which somebody is reading; if mine, the caller has to.
func (c *mapCache) find(version uint64, first uint32, owners []sheep.VDIID) (p *mapPage, mine, found bool) {
	number := first / cachedSlots
	c.mu.Lock()
	defer c.mu.Unlock()
	c.adopt(version)
	p = c.pages[number]
	switch {
	case p == nil:
		p = &mapPage{loaded: make(chan struct{})}
		c.pages[number] = p
		return p, true, false
	case !p.ready:
		return p, false, false
	}
	p.used = true
	copy(owners, p.slots[first%cachedSlots:])
	return p, false, true
}

// arrived keeps page p, which has been read, if it is fresh: the version is still
// the one that it was asked for under. It reports whether owners, the slots from first on, may be relied on.
func (c *mapCache) arrived(p *mapPage, first uint32, owners []sheep.VDIID, fresh bool) bool {
	number := first / cachedSlots
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(p.loaded)
	if c.pages[number] != p {
		return false
	}
	if !fresh {
		delete(c.pages, number)
		return false
	}
	for i, owner := range p.missed {
		p.slots[i] = owner
	}
	p.missed = nil
	p.ready, p.used = true, true
	copy(owners, p.slots[first%cachedSlots:])
	c.evict(number)
	return true
}

// evict makes room, preferably of a page that was not used since it looked last.
// The caller holds c.mu.
func (c *mapCache) evict(except uint32) {
	for len(c.pages) > c.limit {
		victim, found := uint32(0), false
		for number, p := range c.pages {
			if !p.ready || number == except {
				continue
			}
			victim, found = number, true
			if !p.used {
				break
			}
			p.used = false
		}
		if !found {
			return
		}
		delete(c.pages, victim)
	}
}

// written is the watcher of the map.
func (c *mapCache) written(first uint32, owners []sheep.VDIID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if owners == nil {
		c.pages = nil
		return
	}
	if len(c.pages) == 0 {
		return
	}
	var p *mapPage
	for i, owner := range owners {
		at := first + uint32(i)
		if i == 0 || at%cachedSlots == 0 {
			p = c.pages[at/cachedSlots]
		}
		switch {
		case p == nil:
		case p.ready:
			p.slots[at%cachedSlots] = owner
		default:
			if p.missed == nil {
				p.missed = make(map[uint32]sheep.VDIID)
			}
			p.missed[at%cachedSlots] = owner
		}
	}
}

// forget forgets the page of slot i, which does not seem to be right.
func (c *mapCache) forget(i uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pages, i/cachedSlots)
}

// forgetAll forgets everything.
func (c *mapCache) forgetAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pages = nil
}

// prove notes that this gateway has written the map under version from begin to
// end, and thus owns the VDI as long as that counts.
func (c *mapCache) prove(version uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.adopt(version)
	c.proven = true
}

// isProven reports whether this gateway owned the VDI when version began.
func (c *mapCache) isProven(version uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proven && c.version == version && c.pages != nil
}

// wait returns when the page has been read.
func (p *mapPage) wait(ctx context.Context) error {
	select {
	case <-p.loaded:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
