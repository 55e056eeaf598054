package vdi

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// leafEntries is how many entries fill a leaf of as many bytes as a store writes
// at once or not at all.
const leafEntries = (64<<10 - proto.BTreeHeaderSize) / proto.BTreeEntrySize

// A treeShape says when nodes are split.
type treeShape struct {
	atomic   int // bytes that a write may have to be done as a whole or not at all
	small    int // entries of a leaf while the root has fewer children than wide
	wide     int
	entries  int // of a leaf, at most
	children int // of a root, at most
}

// usualShape keeps leaves small, so that an entry costs one write of 64 KiB at
// most, until the root becomes so large that it would not do for 16 PiB.
func usualShape() treeShape {
	return treeShape{
		atomic: 64 << 10, small: leafEntries, wide: proto.MaxBTreeChildren / 2,
		entries: proto.MaxBTreeEntries, children: proto.MaxBTreeChildren,
	}
}

// A treeWriter enters objects into the tree of a hyper volume. Nobody else may
// write there meanwhile; others may read.
//
// Each write is durable before the next, and after each of them, done or not, the
// tree is whole, for C Sheepdog too, and has all that was in it:
//
//   - A node of up to 64 KiB is written by one request. In a larger one the end is
//     moved up first, a piece at a time: until the new element has its place, one
//     is there twice. The next writer takes it out of the root.
//   - A leaf is split by making a leaf of its upper half, naming that in the root,
//     and shortening the old one. Entries beyond what the root says are ignored.
//   - The root says that the last leaf reaches as far as a new entry before that is
//     there.
//   - The number of the next node is written before the node. A node that the root
//     does not name is replaced by the next split.
type treeWriter struct {
	links sheep.Objects // of the inode and the leaves
	tree  Tree
	v     sheep.VDI
	shape treeShape

	root  treeRoot
	drops []drop // what the entries were that were changed
}

func newTreeWriter(links sheep.Objects, v sheep.VDI, shape treeShape) *treeWriter {
	return &treeWriter{links: links, tree: NewTree(links, v), v: v, shape: shape}
}

// set enters updates, in ascending order of their indexes. What it has done when it
// fails stays, and may be done again.
func (w *treeWriter) set(ctx context.Context, updates []proto.BTreeEntry) error {
	var err error
	if w.root, err = w.tree.root(ctx); err != nil {
		return err
	}
	if len(updates) > 0 {
		if err := w.compact(ctx); err != nil {
			return fmt.Errorf("write tree of VDI %v: %w", w.v.ID, err)
		}
	}
	for len(updates) > 0 {
		n, err := w.step(ctx, updates)
		if err != nil {
			return fmt.Errorf("write tree of VDI %v: %w", w.v.ID, err)
		}
		updates = updates[n:]
	}
	return nil
}

// step enters the first of updates that are in one leaf, or makes room for them,
// and returns how many are done.
func (w *treeWriter) step(ctx context.Context, updates []proto.BTreeEntry) (int, error) {
	updates = updates[:min(len(updates), max(w.shape.small/4, 1))]
	if w.root.Depth == proto.BTreeLeafDepth {
		entries := w.root.Entries
		if more := growth(entries, updates); more > 0 && len(entries)+more > w.shape.small {
			return 0, w.deepen(ctx)
		}
		n, now, err := w.enter(ctx, sheep.InodeObject(w.v.ID), entries, updates)
		w.root.Entries = now
		return n, err
	}
	at := childOf(w.root.Children, uint64(updates[0].Index))
	if at == len(w.root.Children) {
		return w.extend(ctx, updates)
	}
	child := w.root.Children[at]
	updates = updates[:position(updates, uint64(child.Last)+1)]
	entries, err := w.tree.leaf(ctx, child.ID)
	if err != nil {
		return 0, err
	}
	entries = between(entries, 0, uint64(child.Last)+1)
	if more := growth(entries, updates); more > 0 && len(entries)+more > w.limit() {
		return 0, w.split(ctx, at, entries, position(entries, uint64(updates[0].Index)))
	}
	n, _, err := w.enter(ctx, child.ID, entries, updates)
	return n, err
}

// limit returns how many entries a leaf may have.
func (w *treeWriter) limit() int {
	if len(w.root.Children) < w.shape.wide {
		return w.shape.small
	}
	return w.shape.entries
}

// growth returns how many of updates are objects that entries do not have.
func growth(entries, updates []proto.BTreeEntry) int {
	n := 0
	for _, u := range updates {
		if at := position(entries, uint64(u.Index)); u.VDI != 0 && (at == len(entries) || entries[at].Index != u.Index) {
			n++
		}
	}
	return n
}

// extend enters the first of updates, which are beyond the last leaf, there or in a
// new leaf, and returns how many.
func (w *treeWriter) extend(ctx context.Context, updates []proto.BTreeEntry) (int, error) {
	some := slices.DeleteFunc(slices.Clone(updates), func(u proto.BTreeEntry) bool { return u.VDI == 0 })
	if len(some) == 0 {
		return len(updates), nil
	}
	var entries []proto.BTreeEntry
	room, at := 0, len(w.root.Children)-1
	if at >= 0 {
		all, err := w.tree.leaf(ctx, w.root.Children[at].ID)
		if err != nil {
			return 0, err
		}
		entries = between(all, 0, uint64(w.root.Children[at].Last)+1)
		if room = w.limit() - len(entries); room > 0 && len(entries) < len(all) {
			if err := w.shorten(ctx, w.root.Children[at].ID, len(entries)); err != nil {
				return 0, err
			}
		}
	}
	if room <= 0 {
		some = some[:min(len(some), w.limit())]
		last := some[len(some)-1].Index
		if err := w.grow(ctx, at, some, last); err != nil {
			return 0, err
		}
		return position(updates, uint64(last)+1), nil
	}
	some = some[:min(len(some), room)]
	if nodeSize(len(entries)+len(some)) > w.shape.atomic {
		some = some[:1]
	}
	child := &w.root.Children[at]
	child.Last = some[len(some)-1].Index
	raised := binary.LittleEndian.AppendUint32(nil, child.Last)
	err := w.put(ctx, sheep.InodeObject(w.v.ID), proto.BTreeHeaderSize+uint32(at)*proto.BTreeChildSize, raised, nil)
	if err != nil {
		return 0, err
	}
	if _, _, err = w.enter(ctx, child.ID, entries, some); err != nil {
		return 0, err
	}
	return position(updates, uint64(child.Last)+1), nil
}

// enter enters the first of updates in the leaf id, which has entries and room. It
// returns how many, and what the leaf has then.
func (w *treeWriter) enter(ctx context.Context, id sheep.ObjectID, entries, updates []proto.BTreeEntry) (int, []proto.BTreeEntry, error) {
	more := growth(entries, updates)
	large := nodeSize(len(entries)+more) > w.shape.atomic
	switch {
	case more == 0:
		now, err := w.replace(ctx, id, entries, updates)
		return len(updates), now, err
	case large && len(updates) > 1:
		return w.enter(ctx, id, entries, updates[:1])
	}
	now := mergeEntries(entries, updates)
	var err error
	if large {
		p := position(entries, uint64(updates[0].Index))
		old := proto.BTreeNode{Depth: proto.BTreeLeafDepth, Entries: entries}
		now = slices.Insert(slices.Clone(entries), p, updates[0])
		err = w.insert(ctx, id, old, p, p, proto.BTreeNode{Depth: proto.BTreeLeafDepth, Entries: updates[:1]}, dataOf(updates))
	} else {
		node := proto.BTreeNode{Depth: proto.BTreeLeafDepth, Entries: now}
		err = w.put(ctx, id, 0, node.Append(nil), dataOf(updates))
	}
	if err != nil {
		return 0, entries, err
	}
	w.drop(entries, updates)
	return len(updates), now, nil
}

// replace changes entries in their places. Updates without owner that are not there
// change nothing.
func (w *treeWriter) replace(ctx context.Context, id sheep.ObjectID, entries, updates []proto.BTreeEntry) ([]proto.BTreeEntry, error) {
	now := slices.Clone(entries)
	from, to := len(now), 0
	for _, u := range updates {
		for at := position(now, uint64(u.Index)); at < len(now) && now[at].Index == u.Index; at++ {
			if now[at].VDI != u.VDI {
				now[at].VDI = u.VDI
				from, to = min(from, at), at+1
			}
		}
	}
	for at := from; at < to; {
		n := min(to-at, w.shape.atomic/proto.BTreeEntrySize)
		b := proto.BTreeNode{Depth: proto.BTreeLeafDepth, Entries: now[at : at+n]}.Append(nil)[proto.BTreeHeaderSize:]
		if err := w.put(ctx, id, proto.BTreeHeaderSize+uint32(at)*proto.BTreeEntrySize, b, dataOf(updates)); err != nil {
			return entries, err
		}
		at += n
	}
	w.drop(entries, updates)
	return now, nil
}

// drop notes what entries were that have been changed by updates.
func (w *treeWriter) drop(entries, updates []proto.BTreeEntry) {
	for _, u := range updates {
		at := position(entries, uint64(u.Index))
		if at < len(entries) && entries[at].Index == u.Index && entries[at].VDI != 0 && entries[at].VDI != u.VDI {
			w.drops = append(w.drops, drop{owner: entries[at].VDI, index: u.Index})
		}
	}
}

// mergeEntries returns entries with updates, each index once.
func mergeEntries(entries, updates []proto.BTreeEntry) []proto.BTreeEntry {
	now := make([]proto.BTreeEntry, 0, len(entries)+len(updates))
	for _, u := range updates {
		at := position(entries, uint64(u.Index))
		now = append(now, entries[:at]...)
		had := false
		for entries = entries[at:]; len(entries) > 0 && entries[0].Index == u.Index; entries = entries[1:] {
			had = true
		}
		if had || u.VDI != 0 {
			now = append(now, u)
		}
	}
	return once(append(now, entries...))
}

// once leaves of entries with the same index the first.
func once(entries []proto.BTreeEntry) []proto.BTreeEntry {
	return slices.CompactFunc(entries, func(a, b proto.BTreeEntry) bool { return a.Index == b.Index })
}

// dataOf returns the data objects that updates name.
func dataOf(updates []proto.BTreeEntry) []sheep.ObjectID {
	var ids []sheep.ObjectID
	for _, u := range updates {
		if u.VDI != 0 {
			ids = append(ids, sheep.DataObject(u.VDI, u.Index))
		}
	}
	return ids
}

func nodeSize(entries int) int { return proto.BTreeHeaderSize + entries*proto.BTreeEntrySize }

// put writes p at offset off of a node, durably.
func (w *treeWriter) put(ctx context.Context, id sheep.ObjectID, off uint32, p []byte, after []sheep.ObjectID) error {
	if id.Kind() == sheep.KindInode {
		off += proto.MapOffset
	}
	return w.links.Write(ctx, Ref(w.v, id), &sheep.Write{Off: off, Data: p, Durable: true, After: after})
}
