package vdi

import (
	"context"
	"errors"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// ZeroOptions say how a Disk makes zeroes.
type ZeroOptions struct {
	// Durable asks for the zeroes to be on stable storage when Zero returns.
	// What frees whole objects always is.
	Durable bool

	// KeepAllocated asks for space that is there when it is written later: the
	// zeroes are written as data.
	KeepAllocated bool

	// Fast refuses, with sheep.ErrNotSupported and before anything is changed,
	// what would take as long as writing data.
	Fast bool
}

// How much is zeroed at a time: a piece of data, and objects of which a map write
// gives up the references, and removes what nobody else has, while other writes to
// the map wait.
const (
	zeroPiece    = 1 << 20
	discardBatch = 64
)

// Zero makes n bytes from off read as zeroes. Objects of which all bytes within
// the disk are zeroed are given up, and their space is free, unless opt asks to
// keep it; of others the parts are punched out. Where there is no object nothing
// happens.
func (d *Disk) Zero(ctx context.Context, off, n uint64, opt ZeroOptions) error {
	h, err := d.beginWrite("zero", off, n)
	if err != nil || n == 0 {
		return err
	}
	defer d.wrote(opt.Durable)
	if opt.KeepAllocated {
		return d.zeroData(ctx, h, off, n, opt)
	}
	parts, first, end := d.zeroPlan(h, off, n)
	if opt.Fast {
		if err := d.zeroesFast(ctx, parts); err != nil {
			return err
		}
	}
	for _, s := range parts {
		if err := d.writePiece(ctx, s, nil, uint32(s.len), opt.Durable); err != nil {
			return err
		}
	}
	return d.discard(ctx, first, end)
}

// zeroPlan returns the parts of objects that a request to zero has, at most two,
// and the whole objects.
func (d *Disk) zeroPlan(h *head, off, n uint64) (parts []piece, first, end uint64) {
	size, shift := d.size.Load(), h.vdi.BlockShift
	to := off + n
	add := func(from, to uint64) {
		if from < to {
			parts = append(parts, h.pieceAt(from, to))
		}
	}
	lo := (off + 1<<shift - 1) >> shift << shift
	hi := to >> shift << shift
	if to == size {
		hi = max((to+1<<shift-1)>>shift<<shift, lo)
	}
	if hi < lo { // inside one object
		add(off, to)
		return parts, 0, 0
	}
	add(off, min(lo, to))
	if to > hi {
		add(hi, to)
	}
	return parts, lo >> shift, hi >> shift
}

// zeroesFast fails if one of the parts is shared with a parent, so that it would
// have to be copied.
func (d *Disk) zeroesFast(ctx context.Context, parts []piece) error {
	op := d.op()
	defer d.done(op)
	for _, s := range parts {
		for try := 1; ; try++ {
			h := d.head.Load()
			if h == nil {
				return ErrDiskClosed
			}
			owner, err := h.owner(ctx, s.index, op)
			if err == nil && owner != 0 && owner != h.vdi.ID {
				err = fmt.Errorf("%w: the data is shared and would have to be copied", sheep.ErrNotSupported)
			}
			if err == nil {
				break
			}
			if next := d.again(ctx, h, s.index, err); next != nil || try == patience {
				return h.fail("zero", h.object(s.index), errors.Join(next, lastly(err, next)))
			}
		}
	}
	return nil
}

// zeroData writes zeroes as data.
func (d *Disk) zeroData(ctx context.Context, h *head, off, n uint64, opt ZeroOptions) error {
	if opt.Fast {
		return h.fail("zero", 0, fmt.Errorf("%w: space is allocated by writing zeroes", sheep.ErrNotSupported))
	}
	var list []piece
	for end := off + n; off < end; {
		s := h.pieceAt(off, end)
		s.len = min(s.len, zeroPiece)
		list = append(list, s)
		off += s.len
	}
	zeroes := make([]byte, min(zeroPiece, n))
	return inParallel(list, d.cfg.Parallel, func(s piece) error {
		return d.writePiece(ctx, s, zeroes[:s.len], 0, opt.Durable)
	})
}

// discard gives up the objects [first, end).
func (d *Disk) discard(ctx context.Context, first, end uint64) error {
	if first >= end {
		return nil
	}
	op := d.op()
	defer d.done(op)
	owners := make([]sheep.VDIID, min(end-first, cachedSlots))
	for at, try := first, 1; at < end; {
		h := d.head.Load()
		if h == nil {
			return ErrDiskClosed
		}
		part := owners[:min(end-at, cachedSlots-at%cachedSlots)]
		err := h.owners(ctx, uint32(at), part, op)
		if err == nil {
			err = d.discardUsed(ctx, h, uint32(at), part, op)
		}
		if err == nil {
			at, err = h.after(ctx, at+uint64(len(part)), end, part)
		}
		if err == nil {
			continue
		}
		if next := d.again(ctx, h, uint32(at), err); next != nil || try == patience {
			return h.fail("discard", h.object(uint32(at)), errors.Join(next, lastly(err, next)))
		}
		try++
	}
	return nil
}

// discardUsed gives up those of the objects from first on that have owners.
func (d *Disk) discardUsed(ctx context.Context, h *head, first uint32, owners []sheep.VDIID, op *diskOp) error {
	for i := 0; i < len(owners); {
		if owners[i] == 0 {
			i++
			continue
		}
		n := 1
		for n < discardBatch && i+n < len(owners) && owners[i+n] != 0 {
			n++
		}
		if err := d.discardRun(ctx, h, first+uint32(i), uint32(n), op); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// discardRun gives up n objects, all at once. The head is looked at before,
// because a host may not notice that a discard would hit a snapshot, and after,
// because then the new head still has the objects.
func (d *Disk) discardRun(ctx context.Context, h *head, first, n uint32, op *diskOp) error {
	held := make([]*gate, n)
	for i := range held {
		held[i] = d.gates.own(first + uint32(i))
	}
	defer func() {
		for i, g := range held {
			d.gates.disown(first+uint32(i), g)
		}
	}()
	if err := h.alive(ctx, op); err != nil {
		return err
	}
	if h.vdi.Hyper {
		return h.enterTree(ctx, none(first, n))
	}
	w := sheep.Write{Off: slotOffset(first), Zero: n * proto.MapEntrySize, Durable: true}
	if err := d.host.Write(ctx, h.ref(), &w); err != nil {
		return err
	}
	return h.alive(ctx, op)
}
