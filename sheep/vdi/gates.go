package vdi

import "sync"

// gates order what a Disk does with one data object: plain writes share it, and
// who makes the object or gives it up has it alone. The zero gates are ready for
// use, and need no memory once they have been used.
type gates struct {
	mu    sync.Mutex
	held  map[uint32]*gate // guarded by mu; only those in use
	spare *gate            // guarded by mu; gates to be used again
}

// A gate is that of one object.
type gate struct {
	sync.RWMutex
	users int // who hold it or wait for it; guarded by gates.mu
	next  *gate
}

// get returns the gate of the object at index, which the caller has to put back.
func (gs *gates) get(index uint32) *gate {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.held[index]
	if g == nil {
		if g = gs.spare; g != nil {
			gs.spare = g.next
		} else {
			g = new(gate)
		}
		if gs.held == nil {
			gs.held = make(map[uint32]*gate)
		}
		gs.held[index] = g
	}
	g.users++
	return g
}

func (gs *gates) put(index uint32, g *gate) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if g.users--; g.users == 0 {
		delete(gs.held, index)
		g.next, gs.spare = gs.spare, g
	}
}

// share returns when nobody has the object at index alone.
func (gs *gates) share(index uint32) *gate {
	g := gs.get(index)
	g.RLock()
	return g
}

func (gs *gates) unshare(index uint32, g *gate) {
	g.RUnlock()
	gs.put(index, g)
}

// own returns when nobody else has the object at index. Who owns several takes
// them in ascending order, and who waits for anything else owns or shares one.
func (gs *gates) own(index uint32) *gate {
	g := gs.get(index)
	g.Lock()
	return g
}

func (gs *gates) disown(index uint32, g *gate) {
	g.Unlock()
	gs.put(index, g)
}
