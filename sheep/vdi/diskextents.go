package vdi

import (
	"context"
	"errors"

	"sheepdog/sheep"
)

// An Extent says what a part of a Disk is.
type Extent uint8

const (
	// ExtentHole has no objects; it reads as zeroes.
	ExtentHole Extent = iota

	// ExtentData has objects of the disk's own. Parts of them may be zeroes.
	ExtentData

	// ExtentShared has objects that belong to a parent: the first write copies.
	ExtentShared
)

func (e Extent) String() string {
	switch e {
	case ExtentHole:
		return "hole"
	case ExtentData:
		return "data"
	}
	return "shared"
}

// Extents yields what the n bytes from off are, in order and without gaps;
// neighbours differ. It ends early only if yield returns false.
func (d *Disk) Extents(ctx context.Context, off, n uint64, yield func(length uint64, e Extent) bool) error {
	h, err := d.begin("list extents of", off, n)
	if err != nil || n == 0 {
		return err
	}
	op := d.op()
	defer d.done(op)
	shift := h.vdi.BlockShift
	end := off + n
	last := (end-1)>>shift + 1
	owners := make([]sheep.VDIID, min(last-off>>shift, cachedSlots))
	length, state := uint64(0), ExtentHole
	for index, try := off>>shift, 1; index < last; {
		if h = d.head.Load(); h == nil {
			return ErrDiskClosed
		}
		part := owners[:min(last-index, cachedSlots-index%cachedSlots)]
		next, err := index, h.owners(ctx, uint32(index), part, op)
		if err == nil {
			next, err = h.after(ctx, index+uint64(len(part)), last, part)
		}
		if err != nil {
			if next := d.again(ctx, h, uint32(index), err); next != nil || try == patience {
				return h.fail("list extents of", 0, errors.Join(next, lastly(err, next)))
			}
			try++
			continue
		}
		for i, owner := range part {
			e := h.extent(owner)
			if e != state && length > 0 {
				if !yield(length, state) {
					return nil
				}
				length = 0
			}
			state = e
			from := max(off, (index+uint64(i))<<shift)
			length += min(end, (index+uint64(i)+1)<<shift) - from
		}
		if skipped := index + uint64(len(part)); next > skipped { // the part was a hole
			length += min(end, next<<shift) - skipped<<shift
		}
		index = next
	}
	yield(length, state)
	return nil
}

// extent returns what an object of owner is to the disk.
func (h *head) extent(owner sheep.VDIID) Extent {
	switch owner {
	case 0:
		return ExtentHole
	case h.vdi.ID:
		return ExtentData
	}
	return ExtentShared
}
