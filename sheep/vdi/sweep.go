package vdi

import (
	"context"
	"errors"
	"iter"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A Sweep finds objects that nothing refers to. Read the lists of objects first,
// then Add all VDIs, then ask Leaked.
//
// On a running cluster an object may be listed after its creation and before the
// map names it, or its release be under way. Trust only what two sweeps, some
// minutes apart, agree on.
type Sweep struct {
	maps  map[sheep.VDIID]bits // by owner: which of its data objects a map names
	known map[sheep.VDIID]sheep.VDI
}

// NewSweep returns a Sweep that knows no VDI.
func NewSweep() *Sweep {
	return &Sweep{
		maps:  make(map[sheep.VDIID]bits),
		known: make(map[sheep.VDIID]sheep.VDI),
	}
}

// Add reads the map of v. A VDI whose inode does not exist has none. After any
// other error the sweep is worth nothing.
func (s *Sweep) Add(ctx context.Context, r Reader, v sheep.VDI) error {
	s.known[v.ID] = v
	if v.Deleted {
		return nil
	}
	if v.Hyper {
		return s.addTree(ctx, r, v)
	}
	err := ReadMap(ctx, r, v, 0, proto.MaxMapEntries, func(page MapPage) error {
		for i := range page.Len() {
			if owner := page.Owner(i); owner != 0 {
				s.mark(owner, page.First+uint32(i))
			}
		}
		return nil
	})
	if errors.Is(err, sheep.ErrNoObject) {
		return nil
	}
	return err
}

// addTree reads the map of a hyper volume.
func (s *Sweep) addTree(ctx context.Context, r Reader, v sheep.VDI) error {
	for e, err := range NewTree(r, v).InUse(ctx) {
		if errors.Is(err, sheep.ErrNoObject) {
			return nil
		}
		if err != nil {
			return err
		}
		s.mark(e.VDI, e.Index)
	}
	return nil
}

func (s *Sweep) mark(owner sheep.VDIID, index uint32) {
	if s.maps[owner] == nil {
		s.maps[owner] = make(bits)
	}
	s.maps[owner].set(index)
}

// Leaked reports whether nothing refers to the object: a data object or its
// ledger in no map, the saved state of a VM whose VDI is gone, a tree node of what
// is no hyper volume. Inodes and attributes never leak; the former are the
// tombstones of their numbers.
func (s *Sweep) Leaked(id sheep.ObjectID) bool {
	v, known := s.known[id.VDI()]
	switch id.Kind() {
	case sheep.KindData, sheep.KindLedger:
		return !s.maps[id.VDI()].has(id.Index())
	case sheep.KindVMState:
		return !known || v.Deleted
	case sheep.KindBTree:
		return !known || v.Deleted || !v.Hyper
	}
	return false
}

// All yields those of objects that are Leaked.
func (s *Sweep) All(objects iter.Seq[sheep.ObjectID]) iter.Seq[sheep.ObjectID] {
	return func(yield func(sheep.ObjectID) bool) {
		for id := range objects {
			if s.Leaked(id) && !yield(id) {
				return
			}
		}
	}
}

// bits is a set of numbers, of which neighbours take little memory.
type bits map[uint32]*[bitsPage / 64]uint64

// bitsPage is how many numbers share an allocation.
const bitsPage = 1024

func (b bits) set(i uint32) {
	page := b[i/bitsPage]
	if page == nil {
		page = new([bitsPage / 64]uint64)
		b[i/bitsPage] = page
	}
	page[i%bitsPage/64] |= 1 << (i % 64)
}

func (b bits) has(i uint32) bool {
	page := b[i/bitsPage]
	return page != nil && page[i%bitsPage/64]&(1<<(i%64)) != 0
}
