package vdi

import (
	"context"
	"encoding/binary"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// Where the fields of an inode's header are that are written by themselves.
const (
	nameField      = 0
	tagField       = 256
	createField    = 512
	snapTimeField  = 520
	vmClockField   = 528
	sizeField      = 536
	vmStateField   = 544
	policyField    = 552
	copiesField    = 554
	shiftField     = 555
	btreeField     = 568
	unusedField    = 572
	maxHyperSize   = 1 << 54
	maxName        = proto.LabelSize - 1
	maxVMStatePart = 1 << 20
)

// MaxSize returns the largest size of a VDI.
func MaxSize(blockShift uint8, hyper bool) uint64 {
	if hyper {
		return min(maxHyperSize, uint64(1)<<32<<blockShift)
	}
	return proto.MaxMapEntries << blockShift
}

// mergeHeader writes what of data, a client's idea of the header of v's inode
// from offset off on, may be taken. Only the bytes that change are written.
func mergeHeader(ctx context.Context, below sheep.Objects, v sheep.VDI, ref sheep.Ref, off uint32, data []byte) error {
	if v.Deleted {
		return fmt.Errorf("write inode of deleted VDI %v: %w", v.ID, sheep.ErrNoVDI)
	}
	stored := make([]byte, len(data))
	if err := below.Read(ctx, ref, stored, off); err != nil {
		return err
	}
	merged := append([]byte(nil), stored...)
	shrinks, err := merge(merged, data, off, v)
	if err != nil {
		return err
	}
	from, to := difference(stored, merged)
	if from == to {
		if shrinks {
			return fmt.Errorf("%w: VDI %v cannot shrink", sheep.ErrInvalid, v.ID)
		}
		return nil
	}
	return below.Write(ctx, ref, &sheep.Write{Off: off + uint32(from), Data: merged[from:to], Durable: true})
}

// merge takes over into stored, which lies at off of an inode, the fields that
// clients own: the tag, what describes the saved VM state, the number of copies
// of a replicated VDI, the size if it grows, the next B-tree node, which of a hyper
// volume grows, and the unused bytes. It reports whether data has a
// smaller size, as the copy of a client has that missed a resize.
func merge(stored, data []byte, off uint32, v sheep.VDI) (shrinks bool, err error) {
	field := func(from, to uint32) (was, now []byte) {
		end := off + uint32(len(data))
		if from, to = max(from, off), min(to, end); from >= to {
			return nil, nil
		}
		return stored[from-off : to-off], data[from-off : to-off]
	}
	take := func(from, to uint32) {
		was, now := field(from, to)
		copy(was, now)
	}
	if was, now := field(sizeField, vmStateField); len(now) == 8 {
		size := binary.LittleEndian.Uint64(now)
		switch old := binary.LittleEndian.Uint64(was); {
		case size < old:
			shrinks = true
		case size > old && size > MaxSize(v.BlockShift, v.Hyper):
			return false, fmt.Errorf("%w: VDI %v cannot have %d bytes", sheep.ErrInvalid, v.ID, size)
		default:
			copy(was, now)
		}
	}
	if _, now := field(copiesField, shiftField); len(now) == 1 && !v.Policy.Erasure() {
		if now[0] >= 1 && now[0] <= sheep.MaxCopies {
			take(copiesField, shiftField)
		}
	}
	take(tagField, createField)
	take(vmClockField, sizeField)
	take(vmStateField, policyField)
	if was, now := field(btreeField, unusedField); !v.Hyper || len(now) == 4 && binary.LittleEndian.Uint32(now) > binary.LittleEndian.Uint32(was) {
		copy(was, now)
	}
	take(unusedField, proto.MapOffset)
	return shrinks, nil
}

// difference returns the shortest range outside of which a and b, of one length,
// are equal.
func difference(a, b []byte) (from, to int) {
	to = len(a)
	for from < to && a[from] == b[from] {
		from++
	}
	for to > from && a[to-1] == b[to-1] {
		to--
	}
	return from, to
}
