package vdi

import (
	"context"
	"fmt"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// inboxOffset is where in the inode of a hyper volume, which has no references, a
// gateway writes what is to be entered into the tree when it forwards it.
const inboxOffset = proto.GRefOffset

// isInbox reports whether a write to id of v is to be entered into the tree.
func isInbox(v sheep.VDI, id sheep.ObjectID) bool {
	return v.Hyper && id.Kind() == sheep.KindBTree && id.Index() == proto.BTreeInbox
}

// writeInbox has the owner of v enter what w has into the tree.
func (g *Guard) writeInbox(ctx context.Context, v sheep.VDI, w *sheep.Write) error {
	if w.Create || w.From != nil || w.Zero != 0 || w.Off != 0 {
		return fmt.Errorf("%w: VDI %v has no tree node %v", sheep.ErrInvalid, v.ID, uint32(proto.BTreeInbox))
	}
	return g.writeInode(ctx, v, Ref(v, sheep.InodeObject(v.ID)), &sheep.Write{Off: inboxOffset, Data: w.Data, Durable: true})
}

// enterTree enters the entries of a leaf, p, into the tree of v. Those without owner
// give up their objects. A leaf without entries changes nothing; who has written it
// knows that the VDI has an owner, and thus sees what that has done.
func (g *Guard) enterTree(ctx context.Context, v sheep.VDI, ref sheep.Ref, p []byte) error {
	leaf, err := proto.DecodeBTreeNode(p)
	if err != nil || leaf.Depth != proto.BTreeLeafDepth {
		return fmt.Errorf("%w: entries for the tree of VDI %v: %v", sheep.ErrInvalid, v.ID, err)
	}
	for i, e := range leaf.Entries {
		if e.VDI != v.ID && e.VDI != 0 || i > 0 && e.Index == leaf.Entries[i-1].Index {
			return fmt.Errorf("%w: entry %+v for the tree of VDI %v", sheep.ErrInvalid, e, v.ID)
		}
	}
	return g.changeTree(ctx, v, ref, func(treeLinks) ([]proto.BTreeEntry, error) { return leaf.Entries, nil })
}

// clearTree gives up everything that the tree of v has. A client that writes zeroes
// over all of the map means that, as C Sheepdog's dog does before it deletes the VDI.
func (g *Guard) clearTree(ctx context.Context, v sheep.VDI, ref sheep.Ref) error {
	return g.changeTree(ctx, v, ref, func(links treeLinks) (updates []proto.BTreeEntry, err error) {
		for e, err := range NewTree(links, v).InUse(ctx) {
			if err != nil {
				return nil, err
			}
			updates = append(updates, proto.BTreeEntry{Index: e.Index})
		}
		return updates, nil
	})
}

// changeTree enters what fn returns into the tree of v, which nobody else changes
// meanwhile.
func (g *Guard) changeTree(ctx context.Context, v sheep.VDI, ref sheep.Ref, fn func(treeLinks) ([]proto.BTreeEntry, error)) error {
	return g.next.Exclusive(ctx, ref.ID, func(ctx context.Context, below sheep.Objects) error {
		v, ok := g.table.VDI(v.ID)
		switch {
		case !ok:
			return sheep.ErrNoObject
		case v.Deleted:
			return sheep.ErrNoVDI
		case v.Snapshot:
			return sheep.ErrReadOnly
		}
		updates, err := fn(treeLinks{inode: below, leaves: g.next})
		if err != nil {
			return err
		}
		return g.setEntries(ctx, below, v, updates, g.shape)
	})
}

// setEntries enters updates into the tree of v, tells who watches its map, and
// removes the objects that were given up. Nothing else may touch the inode.
func (g *Guard) setEntries(ctx context.Context, below sheep.Objects, v sheep.VDI, updates []proto.BTreeEntry, shape treeShape) error {
	w := newTreeWriter(treeLinks{inode: below, leaves: g.next}, v, shape)
	err := w.set(ctx, updates)
	for rest := updates; len(rest) > 0 && err == nil; {
		n := 1
		for n < len(rest) && rest[n].Index == rest[n-1].Index+1 {
			n++
		}
		g.watchers.notifyEntries(v.ID, rest[:n])
		rest = rest[n:]
	}
	if err != nil {
		g.watchers.notify(v.ID, 0, nil, err)
	}
	g.removeUnshared(ctx, below, v, slices.DeleteFunc(w.drops, func(d drop) bool { return d.owner != v.ID }))
	return err
}

// treeLinks are where a tree is: its root in the inode, which nobody else touches,
// and its leaves, which others may read at the same time.
type treeLinks struct {
	inode, leaves sheep.Objects
}

func (l treeLinks) of(id sheep.ObjectID) sheep.Objects {
	if id.Kind() == sheep.KindInode {
		return l.inode
	}
	return l.leaves
}

func (l treeLinks) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	return l.of(ref.ID).Read(ctx, ref, p, off)
}

func (l treeLinks) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	return l.of(ref.ID).Write(ctx, ref, w)
}

func (l treeLinks) Remove(ctx context.Context, ref sheep.Ref) error {
	return l.of(ref.ID).Remove(ctx, ref)
}

// mergeRoot takes over data, the root of v's tree as a client has it that writes the
// tree itself. What was entered since the client has read the root is kept where
// both roots are leaves. A client that does not know of leaves that are there is
// refused: it would lose what they have.
func (g *Guard) mergeRoot(ctx context.Context, below sheep.Objects, v sheep.VDI, ref sheep.Ref, data []byte) error {
	now, err := proto.DecodeBTreeNode(data)
	if err != nil {
		return fmt.Errorf("%w: root of the tree of VDI %v: %w", sheep.ErrInvalid, v.ID, err)
	}
	stored, err := NewTree(below, v).root(ctx)
	if err != nil {
		return err
	}
	if now.Depth == proto.BTreeLeafDepth && stored.Depth == proto.BTreeLeafDepth {
		updates := once(now.Entries)
		updates = slices.DeleteFunc(updates, func(e proto.BTreeEntry) bool {
			at := position(stored.Entries, uint64(e.Index))
			return at < len(stored.Entries) && stored.Entries[at] == e
		})
		shape := g.shape
		shape.small = shape.entries // the client goes on to believe in a leaf
		if len(stored.Entries) > 0 || nodeSize(len(now.Entries)) <= shape.atomic {
			return g.setEntries(ctx, below, v, updates, shape)
		}
	}
	for _, c := range stored.Children {
		if !slices.ContainsFunc(now.Children, func(n proto.BTreeChild) bool { return n.ID == c.ID }) {
			return fmt.Errorf("%w: the client's root of VDI %v is out of date, it lacks leaf %v", sheep.ErrInvalid, v.ID, c.ID)
		}
	}
	for _, c := range now.Children {
		if c.ID.Kind() != sheep.KindBTree || c.ID.VDI() != v.ID || c.ID.Index() == proto.BTreeInbox {
			return fmt.Errorf("%w: %v is no leaf of VDI %v", sheep.ErrInvalid, c.ID, v.ID)
		}
	}
	err = below.Write(ctx, ref, &sheep.Write{Off: proto.MapOffset, Data: now.Append(nil), Durable: true})
	g.watchers.notify(v.ID, 0, nil, errForgotten)
	return err
}

// createNode makes a leaf for a client that writes the tree itself, unless it would
// replace one that is in use: the client does not know of it.
func (g *Guard) createNode(ctx context.Context, v sheep.VDI, ref sheep.Ref, w *sheep.Write) error {
	if id := ref.ID; !v.Deleted {
		nodes, err := NewTree(g.next, v).Nodes(ctx)
		if err == nil && slices.Contains(nodes, id) && g.next.Read(ctx, ref, make([]byte, 1), 0) == nil {
			return fmt.Errorf("%w: leaf %v exists, the client's tree is out of date", sheep.ErrInvalid, id)
		}
	}
	return g.writeNode(ctx, v, ref, w)
}

// writeNode writes a leaf for a client that writes the tree itself.
func (g *Guard) writeNode(ctx context.Context, v sheep.VDI, ref sheep.Ref, w *sheep.Write) error {
	err := g.next.Write(ctx, ref, w)
	g.watchers.notify(v.ID, 0, nil, errForgotten)
	return err
}
