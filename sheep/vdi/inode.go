package vdi

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// pageSlots is how many slots of a map are read at once, so that no map is ever
// in memory as a whole.
const pageSlots = 32 << 10

// A Reader reads objects. Every link of the chain does.
type Reader interface {
	Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error
}

// Ref returns all that the links below need to know of object id of v. Data,
// saved VM state and attributes have the VDI's policy; the other objects are
// replicated even if that is an erasure code, in as many copies as it has strips.
func Ref(v sheep.VDI, id sheep.ObjectID) sheep.Ref {
	ref := sheep.Ref{ID: id, Policy: v.Policy, Size: id.Size(v.BlockShift)}
	switch id.Kind() {
	case sheep.KindInode, sheep.KindBTree, sheep.KindLedger:
		if v.Policy.Erasure() {
			ref.Policy = sheep.Replicated(uint8(v.Policy.Width()))
		}
	}
	return ref
}

// ReadHeader reads the header of the inode of v.
func ReadHeader(ctx context.Context, from Reader, v sheep.VDI) (proto.InodeHeader, error) {
	buf := make([]byte, proto.InodeHeaderSize)
	if err := from.Read(ctx, Ref(v, sheep.InodeObject(v.ID)), buf, 0); err != nil {
		return proto.InodeHeader{}, fmt.Errorf("read inode of VDI %v: %w", v.ID, err)
	}
	return proto.DecodeInodeHeader(buf)
}

// A MapPage is a part of an inode's map. Its memory is used again for the next.
type MapPage struct {
	First uint32 // index of the first slot
	raw   []byte
}

// Len returns the number of slots.
func (p MapPage) Len() int { return len(p.raw) / proto.MapEntrySize }

// Owner returns the VDI that owns data object First+i, or 0.
func (p MapPage) Owner(i int) sheep.VDIID { return ownerAt(p.raw, i) }

func ownerAt(slots []byte, i int) sheep.VDIID {
	return sheep.VDIID(binary.LittleEndian.Uint32(slots[i*proto.MapEntrySize:]))
}

// ReadMap reads the slots [from, to) of the map of v's inode and calls fn for
// the parts that have a slot in use, in order, until fn fails.
func ReadMap(ctx context.Context, r Reader, v sheep.VDI, from, to uint32, fn func(MapPage) error) error {
	ref := Ref(v, sheep.InodeObject(v.ID))
	buf := make([]byte, pageSlots*proto.MapEntrySize)
	for to = min(to, proto.MaxMapEntries); from < to; {
		n := min(to-from, pageSlots)
		page := MapPage{First: from, raw: buf[:n*proto.MapEntrySize]}
		if err := r.Read(ctx, ref, page.raw, slotOffset(from)); err != nil {
			return fmt.Errorf("read map of VDI %v: %w", v.ID, err)
		}
		if !isZero(page.raw) {
			if err := fn(page); err != nil {
				return err
			}
		}
		from += n
	}
	return nil
}

// slotOffset and grefOffset say where in an inode slot i and its reference are.
func slotOffset(i uint32) uint32 { return proto.MapOffset + i*proto.MapEntrySize }
func grefOffset(i uint32) uint32 { return proto.GRefOffset + i*proto.GRefSize }

// released is the bit of a generation that marks a reference whose release has
// begun, see deletion.
const released = 1 << 31

// A gref is the reference of a slot.
type gref struct {
	generation uint32
	count      uint32
}

func (g gref) released() bool { return g.generation&released != 0 }

func grefAt(b []byte, i int) gref {
	return gref{
		generation: binary.LittleEndian.Uint32(b[i*proto.GRefSize:]),
		count:      binary.LittleEndian.Uint32(b[i*proto.GRefSize+4:]),
	}
}

func putGref(b []byte, i int, g gref) {
	binary.LittleEndian.PutUint32(b[i*proto.GRefSize:], g.generation)
	binary.LittleEndian.PutUint32(b[i*proto.GRefSize+4:], g.count)
}

// isZero reports whether all bytes of b are zero: the first is, and each is like
// the one before it. That is one comparison of memory.
func isZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// runs calls fn for the runs of 4 KiB pieces of b that are not all zero.
func runs(b []byte, fn func(from, to int) error) error {
	const piece = 4096
	start := -1
	for i := 0; i < len(b); i += piece {
		switch zero := isZero(b[i:min(i+piece, len(b))]); {
		case !zero && start < 0:
			start = i
		case zero && start >= 0:
			if err := fn(start, i); err != nil {
				return err
			}
			start = -1
		}
	}
	if start < 0 {
		return nil
	}
	return fn(start, len(b))
}
