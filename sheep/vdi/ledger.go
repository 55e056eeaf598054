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

const (
	counterSize = 4
	maxCounters = sheep.LedgerSize / counterSize
	minCounters = 1024 // how far a ledger is looked through at least
)

// settle as a generation asks for an object's ledger to be computed anew, because
// it is not known whether a release was counted.
const settle = released

// DecrefOwned counts a release of data object ref.ID at the gateway that owns
// its VDI, and fails with sheep.ErrNotOwner at any other. The release must
// follow from a map write that is durable.
func (g *Guard) DecrefOwned(ctx context.Context, ref sheep.Ref, generation, count uint32) error {
	id := ref.ID.Data()
	_, v, err := g.resolve(id)
	if err != nil {
		return sheep.ErrNoObject
	}
	switch {
	case generation&settle != 0:
		err = g.settleOwned(ctx, v, id)
	case generation >= maxCounters-1:
		err = fmt.Errorf("%w: generation %d", sheep.ErrInvalid, generation)
	default:
		err = g.next.Exclusive(ctx, id.Ledger(), func(ctx context.Context, below sheep.Objects) error {
			return g.decref(ctx, below, v, id, generation, count)
		})
	}
	if err != nil {
		return fmt.Errorf("release object %v: %w", id, err)
	}
	return nil
}

// decref is DecrefOwned while nobody else touches the ledger.
func (g *Guard) decref(ctx context.Context, below sheep.Objects, v sheep.VDI, id sheep.ObjectID, generation, count uint32) error {
	ledger := Ref(v, id.Ledger())
	counters := make([]byte, 2*counterSize)
	err := below.Read(ctx, ledger, counters, generation*counterSize)
	first := errors.Is(err, sheep.ErrNoObject)
	if first {
		// A ledger is made by the first release. Where there is no object
		// either, this is the echo of a release that was counted.
		if err = below.Read(ctx, Ref(v, id), make([]byte, 1), 0); errors.Is(err, sheep.ErrNoObject) {
			return nil
		}
		counters = make([]byte, (generation+2)*counterSize)
		addCounter(counters, 0, 1)
	}
	if err != nil {
		return err
	}
	at := len(counters) - 2*counterSize
	addCounter(counters[at:], 0, ^uint32(0))
	addCounter(counters[at:], 1, count)

	zero := isZero(counters)
	if zero && !first {
		zero, err = g.zeroOutside(ctx, below, ledger, generation)
		if err != nil {
			return err
		}
	}
	switch {
	case zero && !live(v):
		return g.removeLast(ctx, below, v, id)
	case first:
		return below.Write(ctx, ledger, &sheep.Write{Data: counters, Create: true, Durable: true})
	}
	return below.Write(ctx, ledger, &sheep.Write{Off: generation * counterSize, Data: counters, Durable: true})
}

// removeLast removes an object whose ledger says that nobody refers to it. If a
// map does after all, the ledger was wrong and is made right.
func (g *Guard) removeLast(ctx context.Context, below sheep.Objects, v sheep.VDI, id sheep.ObjectID) error {
	refs, err := g.references(ctx, below, id)
	if err != nil {
		return err
	}
	if len(refs) == 0 {
		return removeCounted(ctx, below, v, id)
	}
	g.cfg.Log.Warn("the references of an object were miscounted", "oid", id, "vdi", v.ID)
	return writeLedger(ctx, below, v, id, refs)
}

// settleOwned makes the ledger of id what the maps say, and removes the object
// if they do not name it. The maps are read through the gateway, because a slot
// may only count as changed when it is changed at every copy.
func (g *Guard) settleOwned(ctx context.Context, v sheep.VDI, id sheep.ObjectID) error {
	refs, err := g.references(ctx, g.next, id)
	if err != nil {
		return err
	}
	return g.next.Exclusive(ctx, id.Ledger(), func(ctx context.Context, below sheep.Objects) error {
		switch {
		case len(refs) > 0:
			return writeLedger(ctx, below, v, id, refs)
		case live(v):
			return nil
		}
		return removeCounted(ctx, below, v, id)
	})
}

// zeroOutside reports whether all counters are zero but those of generation and
// the next. No generation is larger than there are VDIs to have handed the
// object down, so no more of the ledger is read.
func (g *Guard) zeroOutside(ctx context.Context, below Reader, ledger sheep.Ref, generation uint32) (bool, error) {
	n := uint32(min(max(minCounters, 2*len(g.table.VDIs())), maxCounters))
	buf := make([]byte, min(n, 16<<10)*counterSize)
	for from := uint32(0); from < n; {
		part := buf[:min(n-from, 16<<10)*counterSize]
		if err := below.Read(ctx, ledger, part, from*counterSize); err != nil {
			return false, err
		}
		for i := range uint32(len(part) / counterSize) {
			if c := from + i; c != generation && c != generation+1 && !isZero(part[i*counterSize:][:counterSize]) {
				return false, nil
			}
		}
		from += uint32(len(part) / counterSize)
	}
	return true, nil
}

// writeLedger makes the ledger of id what the references refs, at least one,
// have still to give back.
func writeLedger(ctx context.Context, below sheep.Objects, v sheep.VDI, id sheep.ObjectID, refs []gref) error {
	last := slices.MaxFunc(refs, func(a, b gref) int { return int(a.generation) - int(b.generation) }).generation
	if last >= maxCounters-1 {
		return fmt.Errorf("%w: generation %d of object %v", sheep.ErrInvalid, last, id)
	}
	counters := make([]byte, (last+2)*counterSize)
	for _, r := range refs {
		addCounter(counters, r.generation, 1)
		addCounter(counters, r.generation+1, -r.count)
	}
	return below.Write(ctx, Ref(v, id.Ledger()), &sheep.Write{Data: counters, Create: true, Durable: true})
}

// addCounter adds n to counter i, wrapping as C's arithmetic does.
func addCounter(counters []byte, i, n uint32) {
	b := counters[i*counterSize:]
	binary.LittleEndian.PutUint32(b, binary.LittleEndian.Uint32(b)+n)
}

// references returns the references to data object id that the maps of its owner
// and of the owner's descendants hold, except those whose release has begun.
func (g *Guard) references(ctx context.Context, r Reader, id sheep.ObjectID) ([]gref, error) {
	var refs []gref
	for _, v := range descendants(g.table, id.VDI()) {
		if v.Deleted || v.Hyper {
			continue
		}
		ref := Ref(v, sheep.InodeObject(v.ID))
		var slot [proto.MapEntrySize]byte
		err := r.Read(ctx, ref, slot[:], slotOffset(id.Index()))
		switch {
		case errors.Is(err, sheep.ErrNoObject):
			continue // added to the table, inode not there yet
		case err != nil:
			return nil, fmt.Errorf("read map of VDI %v: %w", v.ID, err)
		case ownerAt(slot[:], 0) != id.VDI():
			continue
		}
		var b [proto.GRefSize]byte
		if err := r.Read(ctx, ref, b[:], grefOffset(id.Index())); err != nil {
			return nil, fmt.Errorf("read reference of VDI %v: %w", v.ID, err)
		}
		if gr := grefAt(b[:], 0); !gr.released() {
			refs = append(refs, gr)
		}
	}
	return refs, nil
}

// descendants returns root and all VDIs that stem from it, deleted ones included.
func descendants(t Table, root sheep.VDIID) []sheep.VDI {
	all := t.VDIs()
	children := make(map[sheep.VDIID][]int, len(all))
	var family []sheep.VDI
	for i, v := range all {
		if v.ID == root {
			family = append(family, v)
		} else if v.Parent != 0 {
			children[v.Parent] = append(children[v.Parent], i)
		}
	}
	seen := map[sheep.VDIID]bool{root: true}
	for i := 0; i < len(family); i++ {
		for _, c := range children[family[i].ID] {
			if v := all[c]; !seen[v.ID] {
				seen[v.ID] = true
				family = append(family, v)
			}
		}
	}
	return family
}
