package vdi

import (
	"context"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// chunkSlots is how many slots of a map are written, and their objects
// released, while other requests to the inode wait.
const chunkSlots = 4096

// writeInode has the owner of v run WriteOwned.
func (g *Guard) writeInode(ctx context.Context, v sheep.VDI, ref sheep.Ref, w *sheep.Write) error {
	if w.Len() == 0 {
		return g.next.Write(ctx, ref, w)
	}
	if err := checkInodeWrite(v, w); err != nil {
		return err
	}
	return atOwner(ctx,
		func() error { return g.WriteOwned(ctx, ref, w) },
		func() error { return g.next.ForwardWrite(ctx, ref, w) })
}

// WriteOwned changes the inode ref.ID at the gateway that owns its VDI, and
// fails with sheep.ErrNotOwner at any other.
//
// Of a write to the header only what clients own is taken: see merge. A write to
// the map releases the data object of each slot that it changes. What a write
// has beyond the map, where the references are, is ignored: those are ours. It
// may be repeated. Slots of a snapshot may be overwritten with zeroes (Data) but
// not zeroed (Zero), so that a discard cannot hit what has become a snapshot.
func (g *Guard) WriteOwned(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	ref, v, err := g.resolve(ref.ID)
	if err != nil {
		return sheep.ErrNoObject
	}
	if ref.ID.Kind() != sheep.KindInode {
		return fmt.Errorf("%w: %v is not an inode", sheep.ErrInvalid, ref.ID)
	}
	if err := checkInodeWrite(v, w); err != nil {
		return err
	}
	end := w.Off + w.Len()
	if v.Hyper && w.Off >= inboxOffset {
		return g.enterTree(ctx, v, ref, w.Data)
	}
	if v.Hyper && w.Off == proto.MapOffset {
		return g.clearTree(ctx, v, ref)
	}
	if w.Off < proto.MapOffset {
		err := g.next.Exclusive(ctx, ref.ID, func(ctx context.Context, below sheep.Objects) error {
			err := mergeHeader(ctx, below, v, ref, w.Off, content(w, w.Off, min(end, proto.MapOffset)))
			if err == nil && v.Hyper && end > proto.MapOffset { // the tree's root goes with the header
				err = g.mergeRoot(ctx, below, v, ref, content(w, proto.MapOffset, min(end, proto.MapEnd)))
			}
			return err
		})
		if err != nil || v.Hyper {
			return err
		}
	}
	for at := max(w.Off, proto.MapOffset); at < min(end, proto.MapEnd); {
		to := min(at+chunkSlots*proto.MapEntrySize, end, proto.MapEnd)
		if err := g.writeSlots(ctx, v, ref, (at-proto.MapOffset)/proto.MapEntrySize, content(w, at, to), w.Zero != 0); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// checkInodeWrite refuses what no client has a reason to write.
func checkInodeWrite(v sheep.VDI, w *sheep.Write) error {
	end := uint64(w.Off) + uint64(w.Len())
	switch {
	case w.Create || w.From != nil || end > sheep.InodeSize:
	case v.Hyper && w.Off == inboxOffset && w.Zero == 0:
		return nil
	case w.Off >= proto.MapEnd:
	case !touchesMap(w):
		return nil
	case v.Hyper && w.Off == proto.MapOffset && end >= proto.MapEnd && isZero(w.Data):
		return nil
	case v.Hyper && w.Off >= proto.MapOffset:
		return fmt.Errorf("%w: the map of hyper volume %v is a tree", sheep.ErrInvalid, v.ID)
	case max(w.Off, proto.MapOffset)%proto.MapEntrySize != proto.MapOffset%proto.MapEntrySize,
		min(end, proto.MapEnd)%proto.MapEntrySize != proto.MapEnd%proto.MapEntrySize:
	case v.Snapshot && !v.Hyper && (w.Zero != 0 || !isZero(content(w, max(w.Off, proto.MapOffset), uint32(min(end, proto.MapEnd))))):
		return sheep.ErrReadOnly
	default:
		return nil
	}
	return fmt.Errorf("%w: write of %d bytes at %d of the inode of VDI %v", sheep.ErrInvalid, w.Len(), w.Off, v.ID)
}

// touchesMap reports whether w writes slots.
func touchesMap(w *sheep.Write) bool {
	return w.Off < proto.MapEnd && uint64(w.Off)+uint64(w.Len()) > proto.MapOffset
}

// content returns the bytes [from, to) of the object as w writes them.
func content(w *sheep.Write, from, to uint32) []byte {
	if w.Zero != 0 {
		return make([]byte, to-from)
	}
	return w.Data[from-w.Off : to-w.Off]
}

// writeSlots writes slots into the map from slot first on and releases what
// they held. To zero slots of a snapshot is legal, that is how clients delete
// one, unless it is meant for a head: a discard.
func (g *Guard) writeSlots(ctx context.Context, v sheep.VDI, ref sheep.Ref, first uint32, slots []byte, discard bool) error {
	var drops []drop
	err := g.next.Exclusive(ctx, ref.ID, func(ctx context.Context, below sheep.Objects) error {
		v, ok := g.table.VDI(v.ID) // a snapshot may have been taken since
		if !ok {
			return sheep.ErrNoObject
		}
		if discard || !isZero(slots) {
			if v.Deleted {
				return sheep.ErrNoVDI
			}
			if v.Snapshot {
				return sheep.ErrReadOnly
			}
		}
		var err error
		drops, err = changeSlots(ctx, below, ref, first, slots)
		g.watchers.notify(v.ID, first, slots, err)
		if err != nil {
			return err
		}
		// Before the next write to the inode: that may be the same, sent
		// again by a client which will then create the objects anew.
		drops = g.removeUnshared(ctx, below, v, drops)
		return nil
	})
	if err != nil {
		return err
	}
	// The write is done. Releasing here and not above means that the owner of
	// the inode never waits for that of a ledger.
	for _, d := range drops {
		if err := g.release(sheep.Begun(ctx), d); err != nil {
			g.cfg.Log.Warn("a released object was not counted, it may leak", "oid", d.id(), "vdi", v.ID, "err", err)
		}
	}
	return nil
}

// changeSlots writes the slots that differ from the stored ones, durably, then
// clears their references, and returns those that were in use.
func changeSlots(ctx context.Context, below sheep.Objects, ref sheep.Ref, first uint32, slots []byte) ([]drop, error) {
	old := make([]byte, len(slots))
	if err := below.Read(ctx, ref, old, slotOffset(first)); err != nil {
		return nil, err
	}
	lo, hi := changed(old, slots)
	if lo == hi {
		return nil, nil
	}
	old, slots = old[lo*proto.MapEntrySize:hi*proto.MapEntrySize], slots[lo*proto.MapEntrySize:hi*proto.MapEntrySize]
	first += uint32(lo)
	grefs := make([]byte, (hi-lo)*proto.GRefSize)
	if err := below.Read(ctx, ref, grefs, grefOffset(first)); err != nil {
		return nil, err
	}

	w := sheep.Write{Off: slotOffset(first), Data: slots, Durable: true}
	var drops []drop
	cleared := make([]byte, len(grefs))
	copy(cleared, grefs)
	for i := range hi - lo {
		was, now := ownerAt(old, i), ownerAt(slots, i)
		if was == now {
			continue
		}
		index := first + uint32(i)
		if now >= sheep.MaxVDIs {
			return nil, fmt.Errorf("%w: %#x in the map is not a VDI", sheep.ErrInvalid, uint32(now))
		}
		if now != 0 {
			w.After = append(w.After, sheep.DataObject(now, index))
		}
		if was != 0 {
			drops = append(drops, drop{owner: was, index: index, ref: grefAt(grefs, i)})
		}
		putGref(cleared, i, gref{})
	}
	if err := below.Write(ctx, ref, &w); err != nil {
		return nil, err
	}
	from, to := difference(grefs, cleared)
	if from == to {
		return drops, nil
	}
	return drops, below.Write(ctx, ref, &sheep.Write{
		Off: grefOffset(first) + uint32(from), Data: cleared[from:to], Durable: true,
	})
}

// changed returns the shortest range of slots outside of which old and now are
// equal.
func changed(old, now []byte) (lo, hi int) {
	from, to := difference(old, now)
	return from / proto.MapEntrySize, (to + proto.MapEntrySize - 1) / proto.MapEntrySize
}
