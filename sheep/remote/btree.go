package remote

import (
	"context"
	"iter"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/vdi"
)

// Objects yields the data objects of a VDI, plain or hyper, in order of their
// index, or an error at last. A hyper volume is read as it is needed.
func (c *Cluster) Objects(ctx context.Context, h *proto.InodeHeader) iter.Seq2[proto.BTreeEntry, error] {
	if h.Hyper() {
		return c.tree(h).InUse(ctx)
	}
	return func(yield func(proto.BTreeEntry, error) bool) {
		m, err := c.Map(ctx, h)
		if err != nil {
			yield(proto.BTreeEntry{}, err)
			return
		}
		for i, owner := range m {
			if owner != 0 && !yield(proto.BTreeEntry{Index: uint32(i), VDI: owner}, nil) {
				return
			}
		}
	}
}

// Allocated returns the data objects of a VDI, plain or hyper, in order of
// their index.
func (c *Cluster) Allocated(ctx context.Context, h *proto.InodeHeader) ([]proto.BTreeEntry, error) {
	var entries []proto.BTreeEntry
	for e, err := range c.Objects(ctx, h) {
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// Owner returns who owns the data object of a VDI at index, or zero.
func (c *Cluster) Owner(ctx context.Context, h *proto.InodeHeader, index uint32) (sheep.VDIID, error) {
	if h.Hyper() {
		var owner [1]sheep.VDIID
		err := c.tree(h).Owners(ctx, index, owner[:])
		return owner[0], err
	}
	m, err := c.Map(ctx, h)
	if err != nil || uint64(index) >= uint64(len(m)) {
		return 0, err
	}
	return m[index], nil
}

// TreeNodes returns the objects that the map of a hyper volume has besides its
// inode.
func (c *Cluster) TreeNodes(ctx context.Context, h *proto.InodeHeader) ([]sheep.ObjectID, error) {
	if !h.Hyper() {
		return nil, nil
	}
	return c.tree(h).Nodes(ctx)
}

func (c *Cluster) tree(h *proto.InodeHeader) vdi.Tree {
	return vdi.NewTree(objectReader{c}, sheep.VDI{ID: h.VDI, Hyper: true})
}

// An objectReader reads objects as a vdi.Tree wants them read.
type objectReader struct{ cluster *Cluster }

func (r objectReader) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	return r.cluster.Read(ctx, ref.ID, p, off)
}
