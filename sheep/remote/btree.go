package remote

import (
	"context"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// Allocated returns the data objects of a VDI, plain or hyper, in order of
// their index.
func (c *Cluster) Allocated(ctx context.Context, h *proto.InodeHeader) ([]proto.BTreeEntry, error) {
	if h.Hyper() {
		return c.tree(ctx, h)
	}
	m, err := c.Map(ctx, h)
	if err != nil {
		return nil, err
	}
	var entries []proto.BTreeEntry
	for i, owner := range m {
		if owner != 0 {
			entries = append(entries, proto.BTreeEntry{Index: uint32(i), VDI: owner})
		}
	}
	return entries, nil
}

// tree returns the entries of the tree of a hyper volume.
func (c *Cluster) tree(ctx context.Context, h *proto.InodeHeader) ([]proto.BTreeEntry, error) {
	root, err := c.node(ctx, sheep.InodeObject(h.VDI), proto.MapOffset)
	if err != nil || root.Depth == proto.BTreeLeafDepth {
		return root.Entries, err
	}
	var entries []proto.BTreeEntry
	for _, child := range root.Children {
		leaf, err := c.node(ctx, child.ID, 0)
		if err != nil {
			return nil, err
		}
		if leaf.Depth != proto.BTreeLeafDepth {
			return nil, fmt.Errorf("%w: tree node %v is no leaf", sheep.ErrIO, child.ID)
		}
		entries = append(entries, leaf.Entries...)
	}
	return entries, nil
}

// node reads the node at offset off of object id.
func (c *Cluster) node(ctx context.Context, id sheep.ObjectID, off uint32) (proto.BTreeNode, error) {
	b := make([]byte, proto.BTreeHeaderSize)
	if err := c.Read(ctx, id, b, off); err != nil {
		return proto.BTreeNode{}, err
	}
	h, err := proto.DecodeBTreeHeader(b)
	if err != nil {
		return proto.BTreeNode{}, fmt.Errorf("tree node %v: %w", id, err)
	}
	if b = append(b, make([]byte, h.Size()-len(b))...); len(b) > proto.BTreeHeaderSize {
		if err := c.Read(ctx, id, b, off); err != nil {
			return proto.BTreeNode{}, err
		}
	}
	n, err := proto.DecodeBTreeNode(b)
	if err != nil {
		return proto.BTreeNode{}, fmt.Errorf("tree node %v: %w", id, err)
	}
	return n, nil
}
