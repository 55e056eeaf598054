package vdi

import (
	"context"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A treeWatcher is a MapWatcher whose WatchMap tells of what is entered into the
// tree of a hyper volume, too. Of other hosts the Disk tells its map itself.
type treeWatcher interface{ watchesTrees() }

func (g *Guard) watchesTrees() {}

// maxInbox is how many entries are sent at once.
const maxInbox = 1024

// enterTree has the sheep enter entries, in the order of their indexes, into the
// tree of a hyper volume. When it returns, also without entries, there is a gateway
// that owns the VDI, and what is read follows what that has done.
func (h *head) enterTree(ctx context.Context, entries []proto.BTreeEntry) error {
	inbox := Ref(h.vdi, sheep.BTreeObject(h.vdi.ID, proto.BTreeInbox))
	for {
		some := entries[:min(len(entries), maxInbox)]
		leaf := proto.BTreeNode{Depth: proto.BTreeLeafDepth, Entries: some}
		err := h.host.Write(ctx, inbox, &sheep.Write{Data: leaf.Append(nil), Durable: true})
		if !h.treeTold {
			h.tell(some, err)
		}
		entries = entries[len(some):]
		if err != nil || len(entries) == 0 {
			return err
		}
	}
}

// tell makes what is in memory of the map what has been entered, unless err says
// that nobody knows.
func (h *head) tell(entries []proto.BTreeEntry, err error) {
	if err != nil {
		h.cache.written(0, nil)
		return
	}
	for _, e := range entries {
		h.cache.written(e.Index, []sheep.VDIID{e.VDI})
	}
}

// EnterTree enters the entries of a leaf, p, into the tree of v as the sheep does, by
// way of links, for clients of C's sheep, which do not. Nobody else may write to v
// meanwhile. The objects that are given up are not removed.
func EnterTree(ctx context.Context, links sheep.Objects, v sheep.VDI, p []byte) error {
	leaf, err := proto.DecodeBTreeNode(p)
	if err != nil {
		return err
	}
	return newTreeWriter(links, v, usualShape()).set(ctx, leaf.Entries)
}

// own returns the entries of the objects of v that w wait for.
func own(v sheep.VDIID, w []*slotWaiter) []proto.BTreeEntry {
	entries := make([]proto.BTreeEntry, len(w))
	for i, w := range w {
		entries[i] = proto.BTreeEntry{Index: w.index, VDI: v}
	}
	return entries
}

// none returns entries that give up n objects from first on.
func none(first, n uint32) []proto.BTreeEntry {
	entries := make([]proto.BTreeEntry, n)
	for i := range entries {
		entries[i].Index = first + uint32(i)
	}
	return entries
}

// after returns the index from which on to go on after a part of the map, at most
// end: next, or where the hole ends that owners, the part, are the beginning of.
func (h *head) after(ctx context.Context, next, end uint64, owners []sheep.VDIID) (uint64, error) {
	if !h.vdi.Hyper || next >= end {
		return min(next, end), nil
	}
	for _, owner := range owners {
		if owner != 0 {
			return next, nil
		}
	}
	return NewTree(h.host, h.vdi).Next(ctx, next, end)
}
