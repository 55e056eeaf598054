package vdi

// The decoders of plans for the fuzz target.
func ReencodePlan(kind uint8, b []byte) ([]byte, error) {
	switch kind {
	case PlanNew:
		p, err := decodeNewPlan(b)
		return p.encode(), err
	case PlanDelete, PlanLookup:
		p, err := decodeDeletePlan(b)
		return p.encode(), err
	case PlanAttr:
		p, err := decodeAttrPlan(b)
		return p.encode(), err
	}
	p, err := decodeMade(b)
	return p.encode(), err
}

// GateUsers returns how many requests hold the gate of an object or wait for it.
func GateUsers(d *Disk, index uint32) int {
	d.gates.mu.Lock()
	defer d.gates.mu.Unlock()
	if g := d.gates.held[index]; g != nil {
		return g.users
	}
	return 0
}

// SlotWaiters returns how many objects wait to be entered in the map.
func SlotWaiters(d *Disk) int {
	sw := &d.head.Load().slots
	sw.mu.Lock()
	defer sw.mu.Unlock()
	return len(sw.waiting)
}

// CachedPages returns how many pages of the map are in memory.
func CachedPages(d *Disk) int {
	c := &d.head.Load().cache
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pages)
}

// CachedSlots is how many slots a page of the map has.
const CachedSlots = cachedSlots

// ShapeTrees makes g split the nodes of trees as it would much larger ones: see
// treeShape.
func ShapeTrees(g *Guard, atomic, small, wide, entries, children int) {
	g.shape = treeShape{atomic: atomic, small: small, wide: wide, entries: entries, children: children}
}

// LeafEntries is how many entries fill a leaf at first.
const LeafEntries = leafEntries
