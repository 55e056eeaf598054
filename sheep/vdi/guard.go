package vdi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

var (
	_ sheep.Objects = (*Guard)(nil)
	_ sheep.Flusher = (*Guard)(nil)
)

// A Guard is the link between clients and the gateway. It implements
// sheep.Objects; of the references that it is given only the IDs count, the
// rest it knows better.
type Guard struct {
	next  Next
	table Table
	cfg   GuardConfig

	shape    treeShape // of hyper volumes; set once
	watchers watchers
}

// GuardConfig is what a Guard can do without.
type GuardConfig struct {
	// Attributes returns the policy of attributes whose name hash is the
	// number of no VDI. nil means three copies.
	Attributes func() sheep.Policy

	// Announce tells the cluster what a client has written into the inode of a
	// VDI that it added without a name.
	Announce func(ctx context.Context, v sheep.VDI) error

	Log *slog.Logger // nil discards
}

// NewGuard returns the Guard above next.
func NewGuard(next Next, table Table, cfg GuardConfig) *Guard {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Attributes == nil {
		cfg.Attributes = func() sheep.Policy { return sheep.Replicated(3) }
	}
	return &Guard{next: next, table: table, cfg: cfg, shape: usualShape()}
}

// Read fills p from offset off of the object. What lies past its end reads as
// zero.
func (g *Guard) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	ref, _, err := g.resolve(ref.ID)
	if err != nil {
		return sheep.ErrNoObject
	}
	if inside := uint64(ref.Size) - min(uint64(off), uint64(ref.Size)); uint64(len(p)) > inside {
		clear(p[inside:])
		p, off = p[:inside], min(off, ref.Size)
	}
	return g.next.Read(ctx, ref, p, off)
}

// Write changes the object, or creates it. It refuses what a snapshot's objects
// are safe from with sheep.ErrReadOnly. Writes to inodes are described at
// WriteOwned.
//
// The entries of a leaf that is written to the inbox of a hyper volume, see
// proto.BTreeInbox, are entered into the tree: objects that exist under the VDI's
// own number, objects to be given up under zero.
func (g *Guard) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	id := ref.ID
	ref, v, err := g.resolve(id)
	switch {
	case err != nil && !w.Create:
		return sheep.ErrNoObject
	case err != nil:
		return err
	}
	if uint64(w.Off)+uint64(w.Len()) > uint64(ref.Size) {
		return fmt.Errorf("%w: %d bytes at %d of object %v", sheep.ErrInvalid, w.Len(), w.Off, id)
	}
	switch id.Kind() {
	case sheep.KindInode:
		if w.Create {
			return g.createInode(ctx, v, ref, w)
		}
		return g.writeInode(ctx, v, ref, w)
	case sheep.KindData:
		if v.Snapshot {
			return sheep.ErrReadOnly
		}
		if !v.Hyper && id.Index() >= proto.MaxMapEntries {
			return fmt.Errorf("%w: object %v is beyond the map", sheep.ErrInvalid, id)
		}
		if v.Deleted {
			return sheep.ErrNoVDI
		}
	case sheep.KindBTree:
		switch {
		case isInbox(v, id):
			return g.writeInbox(ctx, v, w)
		case v.Hyper && w.Create && w.From == nil:
			return g.createNode(ctx, v, ref, w)
		case v.Hyper && w.From == nil:
			return g.writeNode(ctx, v, ref, w)
		}
	case sheep.KindVMState:
		if v.Deleted {
			return sheep.ErrNoVDI
		}
	}
	if w.From != nil {
		source, _, err := g.resolve(w.From.ID)
		if err != nil {
			return sheep.ErrNoObject
		}
		copied := *w
		copied.From = &source
		w = &copied
	}
	return g.next.Write(ctx, ref, w)
}

// Remove removes the object, whichever it is: only the inode of a VDI that
// exists is refused.
func (g *Guard) Remove(ctx context.Context, ref sheep.Ref) error {
	id := ref.ID
	ref, v, err := g.resolve(id)
	if err != nil {
		return sheep.ErrNoObject
	}
	if id.Kind() == sheep.KindInode && !v.Deleted && v.Name != "" {
		return fmt.Errorf("%w: the inode of VDI %v can only be deleted with it", sheep.ErrInvalid, v.ID)
	}
	return g.next.Remove(ctx, ref)
}

// Discard gives up data object id: its slot in the inode of its VDI becomes
// zero, which releases the object that the slot names.
func (g *Guard) Discard(ctx context.Context, id sheep.ObjectID) error {
	_, v, err := g.resolve(id)
	switch {
	case err != nil:
		return err
	case v.Hyper && id.Kind() == sheep.KindData:
		none := proto.BTreeNode{Depth: proto.BTreeLeafDepth, Entries: []proto.BTreeEntry{{Index: id.Index()}}}
		return g.writeInbox(ctx, v, &sheep.Write{Data: none.Append(nil)})
	case id.Kind() != sheep.KindData || id.Index() >= proto.MaxMapEntries:
		return fmt.Errorf("%w: discard object %v", sheep.ErrInvalid, id)
	}
	return g.writeInode(ctx, v, Ref(v, sheep.InodeObject(v.ID)), &sheep.Write{
		Off: slotOffset(id.Index()), Data: make([]byte, proto.MapEntrySize), Durable: true,
	})
}

// Flush returns nil when every write to vdi that was answered is durable.
func (g *Guard) Flush(ctx context.Context, vdi sheep.VDIID) error {
	if _, ok := g.table.VDI(vdi); !ok {
		return nil
	}
	return g.next.Flush(ctx, vdi)
}

// Decref counts a release of the data object that id, or the ledger id, names.
func (g *Guard) Decref(ctx context.Context, id sheep.ObjectID, generation, count uint32) error {
	id = id.Data()
	ref, _, err := g.resolve(id)
	if err != nil {
		return sheep.ErrNoObject
	}
	return atOwner(ctx,
		func() error { return g.DecrefOwned(ctx, ref, generation, count) },
		func() error {
			err := g.next.ForwardDecref(ctx, ref, generation, count)
			generation, count = settle, 0 // should there be a next time: this one may have been counted
			return err
		})
}

// atOwner runs local, or forward if another gateway is the owner, until the
// owner has done it: a VDI may move meanwhile. Both wait for news of the owner
// before they say that it is another one.
func atOwner(ctx context.Context, local, forward func() error) error {
	for {
		err := local()
		if errors.Is(err, sheep.ErrNotOwner) {
			err = forward()
		}
		if !errors.Is(err, sheep.ErrNotOwner) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// resolve looks up the VDI that id belongs to and completes the reference.
func (g *Guard) resolve(id sheep.ObjectID) (sheep.Ref, sheep.VDI, error) {
	v, ok := g.table.VDI(id.VDI())
	switch {
	case ok:
		return Ref(v, id), v, nil
	case id.Kind() == sheep.KindAttr:
		v = sheep.VDI{ID: id.VDI(), Policy: g.cfg.Attributes()}
		return Ref(v, id), v, nil
	}
	return sheep.Ref{}, sheep.VDI{}, fmt.Errorf("object %v: %w", id, sheep.ErrNoVDI)
}

// createInode stores an inode that the client has made up itself, as the
// restore of a cluster does after it has added the VDI. The VDI's parameters are
// those that it was added with; the header says its name.
func (g *Guard) createInode(ctx context.Context, v sheep.VDI, ref sheep.Ref, w *sheep.Write) error {
	var header proto.InodeHeader
	if w.Off == 0 && len(w.Data) >= proto.InodeHeaderSize {
		var err error
		if header, err = proto.DecodeInodeHeader(w.Data); err != nil {
			return err
		}
	}
	if v.Name != "" && header.Name != v.Name || w.From != nil {
		return fmt.Errorf("%w: VDI %v exists, its inode cannot be replaced", sheep.ErrInvalid, v.ID)
	}
	if err := g.next.Write(ctx, ref, w); err != nil {
		return err
	}
	if header.Name == "" || len(header.Name) > maxName || v.Name == header.Name || g.cfg.Announce == nil {
		return nil
	}
	v.Name, v.SnapID, v.Parent, v.Hyper = header.Name, header.SnapID, header.Parent&(math.MaxUint32>>8), header.Hyper()
	return g.cfg.Announce(ctx, v)
}
