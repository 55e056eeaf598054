package vdi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// deepen makes two leaves of a root that is one.
func (w *treeWriter) deepen(ctx context.Context) error {
	entries := once(slices.Clone(w.root.Entries))
	if len(entries) < 2 {
		return w.tree.bad(sheep.InodeObject(w.v.ID), errors.New("it cannot be split"))
	}
	first, err := w.allot(ctx, 2)
	if err != nil {
		return err
	}
	half := len(entries) / 2
	root := proto.BTreeNode{Depth: proto.BTreeRootDepth}
	for i, part := range [][]proto.BTreeEntry{entries[:half], entries[half:]} {
		c := proto.BTreeChild{Last: part[len(part)-1].Index, ID: sheep.BTreeObject(w.v.ID, first+uint32(i))}
		if err := w.make(ctx, c.ID, part); err != nil {
			return err
		}
		root.Children = append(root.Children, c)
	}
	after := []sheep.ObjectID{root.Children[0].ID, root.Children[1].ID}
	if err := w.put(ctx, sheep.InodeObject(w.v.ID), 0, root.Append(nil), after); err != nil {
		return err
	}
	w.root.BTreeNode = root
	return nil
}

// split makes room in the leaf at the position of the root, for entries at pos of
// it: a new leaf gets its end.
func (w *treeWriter) split(ctx context.Context, at int, entries []proto.BTreeEntry, pos int) error {
	cut := w.cut(len(entries), pos)
	for cut < len(entries) && entries[cut-1].Index == entries[cut].Index {
		cut++
	}
	child := w.root.Children[at]
	if cut == len(entries) {
		return w.tree.bad(child.ID, errors.New("it cannot be split"))
	}
	if err := w.grow(ctx, at, once(slices.Clone(entries[cut:])), child.Last, entries[cut-1].Index); err != nil {
		return err
	}
	return w.shorten(ctx, child.ID, cut)
}

// cut returns where to split a leaf of n entries that is to get one at pos. A leaf
// that is much too large, as C's are, becomes a small one around pos and what is
// beyond, which a split before has taken from what is in front.
func (w *treeWriter) cut(n, pos int) int {
	limit := w.limit()
	switch {
	case n <= 2*limit:
		return max(n/2, 1)
	case pos > limit/2:
		return max(pos-limit/4, 1)
	}
	return max(limit/2, 1)
}

// shorten leaves the first n entries in a leaf.
func (w *treeWriter) shorten(ctx context.Context, id sheep.ObjectID, n int) error {
	return w.put(ctx, id, 0, proto.BTreeHeader{Depth: proto.BTreeLeafDepth, Entries: uint32(n)}.Append(nil), nil)
}

// grow makes a leaf of entries that reaches to last, and names it in the root behind
// the child at the position, whose own last index becomes lowered if that is given.
func (w *treeWriter) grow(ctx context.Context, at int, entries []proto.BTreeEntry, last uint32, lowered ...uint32) error {
	if len(w.root.Children) >= w.shape.children {
		return fmt.Errorf("%w: the root has %d children", sheep.ErrNoSpace, len(w.root.Children))
	}
	number, err := w.allot(ctx, 1)
	if err != nil {
		return err
	}
	c := proto.BTreeChild{Last: last, ID: sheep.BTreeObject(w.v.ID, number)}
	if err := w.make(ctx, c.ID, entries); err != nil {
		return err
	}
	p := at + 1
	changed := []proto.BTreeChild{c}
	if len(lowered) > 0 {
		changed = []proto.BTreeChild{{Last: lowered[0], ID: w.root.Children[at].ID}, c}
	}
	from := p + 1 - len(changed)
	now := proto.BTreeNode{Depth: proto.BTreeRootDepth}
	now.Children = append(append(append(now.Children, w.root.Children[:from]...), changed...), w.root.Children[p:]...)
	inode := sheep.InodeObject(w.v.ID)
	if b := now.Append(nil); len(b) <= w.shape.atomic {
		err = w.put(ctx, inode, 0, b, []sheep.ObjectID{c.ID})
	} else {
		err = w.insert(ctx, inode, w.root.BTreeNode, p, from, proto.BTreeNode{Depth: proto.BTreeRootDepth, Children: changed}, []sheep.ObjectID{c.ID})
	}
	if err == nil {
		w.root.BTreeNode = now
	}
	return err
}

// insert inserts an element at position p of a node that is too large to be written
// at once: changed replaces the elements [from, p) and then has the new one.
func (w *treeWriter) insert(ctx context.Context, id sheep.ObjectID, old proto.BTreeNode, p, from int, changed proto.BTreeNode, after []sheep.ObjectID) error {
	size := proto.BTreeEntrySize
	if old.Depth == proto.BTreeRootDepth {
		size = proto.BTreeChildSize
	}
	elements := old.Append(nil)[proto.BTreeHeaderSize:]
	n := len(elements) / size
	put := func(at int, b []byte) error {
		return w.put(ctx, id, uint32(proto.BTreeHeaderSize+at*size), b, after)
	}
	replacement := changed.Append(nil)[proto.BTreeHeaderSize:]
	plain := p == n && from == p // nothing to move or to change
	end := replacement
	if !plain {
		end = elements[(n-1)*size:]
	}
	if err := put(n, end); err != nil { // beyond the end, nobody sees it yet
		return err
	}
	if err := w.put(ctx, id, 0, proto.BTreeHeader{Depth: old.Depth, Entries: uint32(n + 1)}.Append(nil), after); err != nil || plain {
		return err
	}
	for to := n; to > p+1; { // what is at [p, n-1) goes to [p+1, n)
		start := max(p+1, to-w.shape.atomic/size)
		if err := put(start, elements[(start-1)*size:(to-1)*size]); err != nil {
			return err
		}
		to = start
	}
	return put(from, replacement)
}

// compact takes out of the root a child that it has twice, because the writer before
// has died while it inserted one. What follows is moved down, a piece at a time.
func (w *treeWriter) compact(ctx context.Context) error {
	children := w.root.Children
	p := 1
	for p < len(children) && children[p] != children[p-1] {
		p++
	}
	if p >= len(children) {
		return nil
	}
	now := slices.Delete(slices.Clone(children), p, p+1)
	if len(slices.Compact(slices.Clone(now))) < len(now) {
		return w.tree.bad(sheep.InodeObject(w.v.ID), errors.New("it has children several times"))
	}
	inode := sheep.InodeObject(w.v.ID)
	elements := w.root.Append(nil)[proto.BTreeHeaderSize:]
	const size = proto.BTreeChildSize
	for n := len(children) - 1; p < n; {
		to := min(n, p+w.shape.atomic/size)
		if err := w.put(ctx, inode, uint32(proto.BTreeHeaderSize+p*size), elements[(p+1)*size:(to+1)*size], nil); err != nil {
			return err
		}
		p = to
	}
	w.root.Children = now
	return w.put(ctx, inode, 0, proto.BTreeHeader{Depth: proto.BTreeRootDepth, Entries: uint32(len(now))}.Append(nil), nil)
}

// make makes a leaf.
func (w *treeWriter) make(ctx context.Context, id sheep.ObjectID, entries []proto.BTreeEntry) error {
	return w.links.Write(ctx, Ref(w.v, id), &sheep.Write{
		Data:   proto.BTreeNode{Depth: proto.BTreeLeafDepth, Entries: entries}.Append(nil),
		Create: true, Durable: true,
	})
}

// allot returns the first of n numbers that no node has, and makes the header say
// that they are taken.
func (w *treeWriter) allot(ctx context.Context, n uint32) (uint32, error) {
	first := uint32(0)
	for _, c := range w.root.Children {
		first = max(first, c.ID.Index()+1)
	}
	if first > proto.BTreeInbox-n {
		return 0, fmt.Errorf("%w: the numbers of nodes are used up", sheep.ErrNoSpace)
	}
	if w.root.counter >= first+n {
		return first, nil
	}
	counter := binary.LittleEndian.AppendUint32(nil, first+n)
	err := w.links.Write(ctx, Ref(w.v, sheep.InodeObject(w.v.ID)), &sheep.Write{Off: btreeField, Data: counter, Durable: true})
	if err == nil {
		w.root.counter = first + n
	}
	return first, err
}
