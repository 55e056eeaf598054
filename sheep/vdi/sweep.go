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
	trees map[sheep.VDIID]bool // VDIs whose maps could not be read: nothing of theirs is leaked
}

// NewSweep returns a Sweep that knows no VDI.
func NewSweep() *Sweep {
	return &Sweep{
		maps:  make(map[sheep.VDIID]bits),
		known: make(map[sheep.VDIID]sheep.VDI),
		trees: make(map[sheep.VDIID]bool),
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
		s.trees[v.ID] = true
		return nil
	}
	err := ReadMap(ctx, r, v, 0, proto.MaxMapEntries, func(page MapPage) error {
		for i := range page.Len() {
			if owner := page.Owner(i); owner != 0 {
				s.maps[owner] = s.maps[owner].set(page.First + uint32(i))
			}
		}
		return nil
	})
	if errors.Is(err, sheep.ErrNoObject) {
		return nil
	}
	return err
}

// Leaked reports whether nothing refers to the object: a data object or its
// ledger in no map, the saved state of a VM whose VDI is gone. Inodes and
// attributes never leak; the former are the tombstones of their numbers.
func (s *Sweep) Leaked(id sheep.ObjectID) bool {
	v, known := s.known[id.VDI()]
	switch id.Kind() {
	case sheep.KindData, sheep.KindLedger:
		return !s.trees[id.VDI()] && !s.maps[id.VDI()].has(id.Index())
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

// bits is a set of small numbers.
type bits []uint64

func (b bits) set(i uint32) bits {
	for uint32(len(b)) <= i/64 {
		b = append(b, 0)
	}
	b[i/64] |= 1 << (i % 64)
	return b
}

func (b bits) has(i uint32) bool {
	return i/64 < uint32(len(b)) && b[i/64]&(1<<(i%64)) != 0
}
