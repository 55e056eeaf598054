package vdi

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A Tree is the map of a hyper volume: a B-tree whose root is in the inode. It can
// be read while it is being written, because of the order of the writes, see
// treeWriter: what is found by way of an older root is in its old place still, or
// the leaf there ends before what the root says.
type Tree struct {
	from Reader
	v    sheep.VDI
}

// NewTree returns the tree of v, to be read by way of from.
func NewTree(from Reader, v sheep.VDI) Tree { return Tree{from, v} }

// A treeRoot is the root with what the header says of the tree.
type treeRoot struct {
	proto.BTreeNode
	counter uint32 // the number of the next node
}

// rootGuess is how much of the root is read before its size is known.
const rootGuess = 4096

// root reads the root, all of it by one request.
func (t Tree) root(ctx context.Context) (treeRoot, error) {
	const head = proto.MapOffset - btreeField
	inode := Ref(t.v, sheep.InodeObject(t.v.ID))
	for size := rootGuess; ; {
		b := make([]byte, head+size)
		if err := t.from.Read(ctx, inode, b, btreeField); err != nil {
			return treeRoot{}, fmt.Errorf("read root of the tree of VDI %v: %w", t.v.ID, err)
		}
		r := treeRoot{counter: binary.LittleEndian.Uint32(b)}
		if b = b[head:]; isZero(b[:proto.BTreeHeaderSize]) {
			r.Depth = proto.BTreeLeafDepth // of an inode that was cleared
			return r, nil
		}
		h, err := proto.DecodeBTreeHeader(b)
		if err != nil {
			return treeRoot{}, t.bad(inode.ID, err)
		}
		if h.Size() > size {
			size = h.Size() + rootGuess // it may grow meanwhile
			continue
		}
		if r.BTreeNode, err = proto.DecodeBTreeNode(b); err != nil {
			return treeRoot{}, t.bad(inode.ID, err)
		}
		for _, c := range r.Children {
			if c.ID.Kind() != sheep.KindBTree || c.ID.VDI() != t.v.ID || c.ID.Index() == proto.BTreeInbox {
				return treeRoot{}, t.bad(inode.ID, fmt.Errorf("child %v", c.ID))
			}
		}
		return r, nil
	}
}

// errDamaged is what is wrong with a tree that is none.
var errDamaged = fmt.Errorf("%w: the map of a hyper volume is damaged", sheep.ErrIO)

func (t Tree) bad(id sheep.ObjectID, err error) error {
	return fmt.Errorf("%w: node %v: %v", errDamaged, id, err)
}

// leaf reads the leaf that is an object, all of it by one request.
func (t Tree) leaf(ctx context.Context, id sheep.ObjectID) ([]proto.BTreeEntry, error) {
	for size := proto.BTreeHeaderSize + leafEntries*proto.BTreeEntrySize; ; {
		b := make([]byte, min(size, sheep.BTreeSize))
		if err := t.from.Read(ctx, Ref(t.v, id), b, 0); err != nil {
			return nil, fmt.Errorf("read tree of VDI %v: %w", t.v.ID, err)
		}
		h, err := proto.DecodeBTreeHeader(b)
		if err == nil && h.Depth != proto.BTreeLeafDepth {
			err = errors.New("it is no leaf")
		}
		if err != nil {
			return nil, t.bad(id, err)
		}
		if h.Size() > len(b) {
			size = h.Size() + rootGuess
			continue
		}
		n, err := proto.DecodeBTreeNode(b)
		if err != nil {
			return nil, t.bad(id, err)
		}
		return n.Entries, nil
	}
}

// Each calls fn with the entries of the indexes [first, end), a leaf at a time and
// in order, until fn fails or says that it has enough. Some may have no owner, and
// of several with one index the first counts.
func (t Tree) Each(ctx context.Context, first, end uint64, fn func([]proto.BTreeEntry) (more bool, err error)) error {
	if first >= end {
		return nil
	}
	root, err := t.root(ctx)
	if err != nil {
		return err
	}
	if root.Depth == proto.BTreeLeafDepth {
		_, err := fn(between(root.Entries, first, end))
		return err
	}
	for first < end {
		entries, last, err := t.part(ctx, &root, first, end)
		if err != nil {
			return err
		}
		if more, err := fn(between(entries, first, min(end, last+1))); err != nil || !more {
			return err
		}
		first = last + 1
	}
	return nil
}

// part reads the leaf that has the index first, and returns up to which one. If it
// was split since the root was read, the root is read again.
func (t Tree) part(ctx context.Context, root *treeRoot, first, end uint64) (entries []proto.BTreeEntry, last uint64, err error) {
	for range patience {
		at := childOf(root.Children, first)
		if at == len(root.Children) {
			return nil, maxIndex, nil
		}
		child := root.Children[at]
		entries, err = t.leaf(ctx, child.ID)
		gone := errors.Is(err, sheep.ErrNoObject)
		if err != nil && !gone {
			return nil, 0, err
		}
		if !gone && !endsBefore(entries, min(uint64(child.Last), end-1)) {
			return entries, uint64(child.Last), nil
		}
		if *root, err = t.root(ctx); err != nil {
			return nil, 0, err
		}
		if root.Depth == proto.BTreeLeafDepth {
			return root.Entries, maxIndex, nil // of a VDI that was deleted meanwhile
		}
		at = childOf(root.Children, first)
		same := at < len(root.Children) && root.Children[at].ID == child.ID && root.Children[at].Last >= child.Last
		switch {
		case same && gone:
			return nil, 0, t.bad(child.ID, errors.New("it is missing"))
		case same:
			return entries, uint64(child.Last), nil
		}
	}
	return nil, 0, fmt.Errorf("%w: the tree of VDI %v changes all the time", sheep.ErrIO, t.v.ID)
}

// maxIndex is the largest index of an object.
const maxIndex = 1<<32 - 1

// endsBefore reports whether entries have nothing from index on.
func endsBefore(entries []proto.BTreeEntry, index uint64) bool {
	return len(entries) == 0 || uint64(entries[len(entries)-1].Index) < index
}

// between returns the entries of the indexes [first, end). Those beyond the last
// index of a leaf are what a split has copied to the next one.
func between(entries []proto.BTreeEntry, first, end uint64) []proto.BTreeEntry {
	from, to := position(entries, first), position(entries, end)
	return entries[from:to]
}

// position returns the position of the first entry with the index, or where it
// would be.
func position(entries []proto.BTreeEntry, index uint64) int {
	i, _ := slices.BinarySearchFunc(entries, index, func(e proto.BTreeEntry, index uint64) int { return cmp.Compare(uint64(e.Index), index) })
	return i
}

// childOf returns the position of the child where index is, or would be; that is
// len(children) if it is beyond them all.
func childOf(children []proto.BTreeChild, index uint64) int {
	i, _ := slices.BinarySearchFunc(children, index, func(c proto.BTreeChild, index uint64) int { return cmp.Compare(uint64(c.Last), index) })
	return i
}

// Owners finds who owns the objects from index first on; 0 is nobody.
func (t Tree) Owners(ctx context.Context, first uint32, owners []sheep.VDIID) error {
	clear(owners)
	return t.Each(ctx, uint64(first), uint64(first)+uint64(len(owners)), func(entries []proto.BTreeEntry) (bool, error) {
		for e := range inUse(entries) {
			owners[e.Index-first] = e.VDI
		}
		return true, nil
	})
}

// inUse yields the entries that have an owner.
func inUse(entries []proto.BTreeEntry) iter.Seq[proto.BTreeEntry] {
	return func(yield func(proto.BTreeEntry) bool) {
		for i, e := range entries {
			if e.VDI != 0 && (i == 0 || entries[i-1].Index != e.Index) && !yield(e) {
				return
			}
		}
	}
}

// InUse yields the objects with an owner, in the order of their indexes, or an
// error at last.
func (t Tree) InUse(ctx context.Context) iter.Seq2[proto.BTreeEntry, error] {
	return func(yield func(proto.BTreeEntry, error) bool) {
		err := t.Each(ctx, 0, maxIndex+1, func(entries []proto.BTreeEntry) (bool, error) {
			for e := range inUse(entries) {
				if !yield(e, nil) {
					return false, errEnough
				}
			}
			return true, nil
		})
		if err != nil && err != errEnough {
			yield(proto.BTreeEntry{}, err)
		}
	}
}

// errEnough ends an iteration.
var errEnough = errors.New("enough")

// Next returns the first index in [first, end) of an object that has an owner, or
// end.
func (t Tree) Next(ctx context.Context, first, end uint64) (uint64, error) {
	err := t.Each(ctx, first, end, func(entries []proto.BTreeEntry) (bool, error) {
		for e := range inUse(entries) {
			end = uint64(e.Index)
			return false, nil
		}
		return true, nil
	})
	return end, err
}

// Nodes returns the ids of the leaves that are objects.
func (t Tree) Nodes(ctx context.Context) ([]sheep.ObjectID, error) {
	root, err := t.root(ctx)
	var ids []sheep.ObjectID
	for _, c := range root.Children {
		ids = append(ids, c.ID)
	}
	return slices.Compact(ids), err
}
