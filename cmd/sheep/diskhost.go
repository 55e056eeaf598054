package main

import (
	"context"
	"sync"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/vdi"
)

// A diskHost is where the requests of this node's disks go: to the front, as those
// of native clients do. It knows when what a disk remembers of a map can
// no longer be relied on.
type diskHost struct {
	front
	ops     *vdi.Operations
	cluster *cluster.Cluster

	mu     sync.RWMutex
	owners map[sheep.VDIID]mapOwner // guarded by mu
}

// A mapOwner says who may write the map of a VDI, as of this node's place in
// the cluster's log.
type mapOwner struct {
	changes uint64 // how often that changed
	foreign bool   // not only this node
}

func newDiskHost(f front, ops *vdi.Operations, c *cluster.Cluster) *diskHost {
	return &diskHost{front: f, ops: ops, cluster: c, owners: make(map[sheep.VDIID]mapOwner)}
}

// Lookup finds a disk by its name.
func (h *diskHost) Lookup(ctx context.Context, name, tag string, snapID uint32) (sheep.VDI, error) {
	return h.ops.Lookup(ctx, name, tag, snapID)
}

// ownership takes note of a change in the cluster log.
func (h *diskHost) ownership(id sheep.VDIID, now cluster.Ownership) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.owners[id] = mapOwner{
		changes: h.owners[id].changes + 1,
		foreign: now.Owner != 0 && (now.Owner != h.cluster.Incarnation() || now.Draining || now.Plan),
	}
}

// MapVersion is that of a vdi.MapWatcher.
func (h *diskHost) MapVersion(id sheep.VDIID) (version uint64, ok bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	o := h.owners[id]
	return o.changes, !o.foreign && h.cluster.Lease() == nil
}
