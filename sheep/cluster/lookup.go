package cluster

import (
	"context"
	"slices"

	"sheepdog/sheep"
)

// The methods below look at the state that is applied here. It may be behind
// what others have logged; call Sync first where that matters.

// VDI returns what is known of a VDI. It is cheap.
func (c *Cluster) VDI(id sheep.VDIID) (sheep.VDI, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	st := c.state.vdis.all[id]
	if st == nil {
		return sheep.VDI{}, false
	}
	return st.vdi, true
}

// VDIsNamed returns the VDIs of a name, ascending by number: snapshots,
// the working VDI, and deleted ones if they have kept their name.
func (c *Cluster) VDIsNamed(name string) []sheep.VDI {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ids := c.state.vdis.named[name]
	vdis := make([]sheep.VDI, len(ids))
	for i, id := range ids {
		vdis[i] = c.state.vdis.all[id].vdi
	}
	return vdis
}

// VDIs returns all VDIs, ascending by number.
func (c *Cluster) VDIs() []sheep.VDI {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ids := c.state.vdis.sorted()
	vdis := make([]sheep.VDI, len(ids))
	for i, id := range ids {
		vdis[i] = c.state.vdis.all[id].vdi
	}
	return vdis
}

// Used reports whether the number of a VDI is taken.
func (c *Cluster) Used(id sheep.VDIID) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	st := c.state.vdis.all[id]
	return st != nil && st.used
}

// UsedBitmap returns 2 MiB with a bit for each VDI number, little-endian, set
// if the number is taken. The caller owns it.
func (c *Cluster) UsedBitmap() []byte {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.state.vdis.bitmap(func(st *vdiState) bool { return st.used })
}

// DeletedBitmap returns 2 MiB with a bit for each VDI number, little-endian,
// set if the VDI was deleted. The caller owns it.
func (c *Cluster) DeletedBitmap() []byte {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.state.vdis.bitmap(func(st *vdiState) bool { return st.vdi.Deleted })
}

// LockOf returns the lock of a VDI. The caller owns it.
func (c *Cluster) LockOf(id sheep.VDIID) sheep.Lock {
	c.mu.RLock()
	defer c.mu.RUnlock()
	st := c.state.vdis.all[id]
	if st == nil {
		return sheep.Lock{State: sheep.Unlocked}
	}
	l := st.lock
	l.Participants = slices.Clone(l.Participants)
	return l
}

// Owner returns who owns a VDI; false if nobody does. It is cheap.
func (c *Cluster) Owner(id sheep.VDIID) (Ownership, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	o := c.state.owners[id]
	return o.Ownership, o.Owner != 0
}

// WaitOwner returns the ownership of a VDI once ok has returned true for it;
// the zero Ownership stands for none. It calls ok with the present one first.
func (c *Cluster) WaitOwner(ctx context.Context, id sheep.VDIID, ok func(Ownership) bool) (Ownership, error) {
	for {
		advanced := c.advanced.channel()
		o, _ := c.Owner(id)
		if ok(o) {
			return o, nil
		}
		if err := c.stopReason(); err != nil {
			return o, err
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return o, context.Cause(ctx)
		}
	}
}
