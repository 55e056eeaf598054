package vdi

import (
	"context"
	"errors"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A piece is the part of a request that is about one object.
type piece struct {
	index uint32 // of the object
	in    uint32 // offset in the object
	at    uint64 // offset in the request
	len   uint64
}

// pieceAt returns the piece at byte off of the disk of a request that ends at end.
func (h *head) pieceAt(off, end uint64) piece {
	in := off & (1<<h.vdi.BlockShift - 1)
	return piece{index: uint32(off >> h.vdi.BlockShift), in: uint32(in), len: min(1<<h.vdi.BlockShift-in, end-off)}
}

// single returns the only piece of a request, if it has only one.
func (h *head) single(off, n uint64) (piece, bool) {
	p := h.pieceAt(off, off+n)
	return p, p.len == n
}

func (h *head) pieces(off, n uint64) []piece {
	var list []piece
	for at := uint64(0); at < n; {
		p := h.pieceAt(off+at, off+n)
		p.at = at
		list = append(list, p)
		at += p.len
	}
	return list
}

// A diskOp is the memory of one piece on its way, so that it need not be
// allocated anew each time.
type diskOp struct {
	write sheep.Write
	from  sheep.Ref
	owner [1]sheep.VDIID
	slot  [proto.MapEntrySize]byte
	alive [aliveSize]byte
}

func (d *Disk) op() *diskOp {
	if op, ok := d.ops.Get().(*diskOp); ok {
		return op
	}
	return new(diskOp)
}

func (d *Disk) done(op *diskOp) {
	op.write = sheep.Write{}
	d.ops.Put(op)
}

// again prepares another attempt after err, if that may help: the head has moved,
// or the map in memory was wrong. It returns err otherwise, or what has happened
// instead.
func (d *Disk) again(ctx context.Context, h *head, index uint32, err error) error {
	switch {
	case errors.Is(err, errMoved), errors.Is(err, sheep.ErrReadOnly):
		if d.readOnly {
			return err
		}
		return d.follow(ctx, h)
	case errors.Is(err, sheep.ErrNoObject):
		h.cache.forget(index)
		return nil
	}
	return err
}

// readPiece fills p from the object of s.
func (d *Disk) readPiece(ctx context.Context, s piece, p []byte) error {
	if s.len == 0 {
		return nil
	}
	op := d.op()
	defer d.done(op)
	for try := 1; ; try++ {
		h := d.head.Load()
		if h == nil {
			return ErrDiskClosed
		}
		id, err := d.readFrom(ctx, h, s, p, op)
		if err == nil {
			return nil
		}
		if next := d.again(ctx, h, s.index, err); next != nil || try == patience {
			return h.fail("read", id, errors.Join(next, lastly(err, next)))
		}
	}
}

// lastly returns err, the outcome of the last attempt, unless next says it all.
func lastly(err, next error) error {
	if next != nil {
		return nil
	}
	return err
}

// readFrom is one attempt to read; it returns the object that it was to be.
func (d *Disk) readFrom(ctx context.Context, h *head, s piece, p []byte, op *diskOp) (sheep.ObjectID, error) {
	owner, err := h.owner(ctx, s.index, op)
	if err != nil {
		return 0, err
	}
	if owner == 0 {
		clear(p)
		return 0, nil
	}
	id := sheep.DataObject(owner, s.index)
	return id, d.host.Read(ctx, Ref(h.vdi, id), p, s.in)
}

// writePiece writes p, or zero zeroes, into the object of s, which it makes if
// need be. Zeroes where there is no object are there already.
func (d *Disk) writePiece(ctx context.Context, s piece, p []byte, zero uint32, durable bool) error {
	if s.len == 0 {
		return nil
	}
	op := d.op()
	defer d.done(op)
	for try := 1; ; {
		h := d.head.Load()
		if h == nil {
			return ErrDiskClosed
		}
		op.write = sheep.Write{Off: s.in, Data: p, Zero: zero, Durable: durable}
		done, err := d.overwrite(ctx, h, s.index, op)
		if !done && err == nil {
			done, err = d.create(ctx, h, s, op)
		}
		if done {
			return nil
		}
		if err == nil {
			continue // somebody else has made the object
		}
		if next := d.again(ctx, h, s.index, err); next != nil || try == patience {
			return h.fail("write", h.object(s.index), errors.Join(next, lastly(err, next)))
		}
		try++
	}
}

// overwrite does op.write if the disk has an object of its own there, or if there
// is none and nothing to write.
func (d *Disk) overwrite(ctx context.Context, h *head, index uint32, op *diskOp) (done bool, err error) {
	g := d.gates.share(index)
	defer d.gates.unshare(index, g)
	owner, err := h.owner(ctx, index, op)
	switch {
	case err != nil:
		return false, err
	case owner == 0 && op.write.Zero != 0:
		return true, nil
	case owner != h.vdi.ID:
		return false, nil
	}
	if err := d.host.Write(ctx, Ref(h.vdi, h.object(index)), &op.write); err != nil {
		return false, err
	}
	return true, nil
}

// create makes the object with op.write, as a copy of the one that is shared with
// a parent if there is one, and enters it into the map. It does nothing if the
// object has been made since.
func (d *Disk) create(ctx context.Context, h *head, s piece, op *diskOp) (done bool, err error) {
	g := d.gates.own(s.index)
	defer d.gates.disown(s.index, g)
	before, kept := h.version()
	owner, err := h.sureOwner(ctx, s.index, op)
	switch {
	case err != nil:
		return false, err
	case owner == h.vdi.ID:
		h.cache.forget(s.index) // if overwrite has not seen it, the page is wrong
		return false, nil
	case owner == 0 && op.write.Zero != 0:
		return true, nil
	}
	op.write.Create = true
	if owner != 0 && s.len < 1<<h.vdi.BlockShift {
		op.from = Ref(h.vdi, sheep.DataObject(owner, s.index))
		op.write.From = &op.from
	}
	if err := d.host.Write(ctx, Ref(h.vdi, h.object(s.index)), &op.write); err != nil {
		return false, err
	}
	if err := h.slots.enter(ctx, h, s.index); err != nil {
		if errors.Is(err, sheep.ErrReadOnly) || errors.Is(err, sheep.ErrNoVDI) {
			h.unmake(ctx, s.index, op)
		}
		return false, err
	}
	if after, ok := h.version(); kept && ok && after == before {
		h.cache.prove(before)
	}
	return true, nil
}

// unmake removes the head's own object at index, which was made when it was too
// late to enter it into the map: the head had become a snapshot, or was deleted. If
// that fails the object leaks. A map that has the object after all, because an
// answer was lost, keeps it.
func (h *head) unmake(ctx context.Context, index uint32, op *diskOp) {
	var err error
	if h.vdi.Hyper {
		err = NewTree(h.host, h.vdi).Owners(ctx, index, op.owner[:])
	} else if err = h.host.Read(ctx, h.ref(), op.slot[:], slotOffset(index)); err == nil {
		op.owner[0] = ownerAt(op.slot[:], 0)
	}
	if err == nil && op.owner[0] != h.vdi.ID {
		_ = h.host.Remove(ctx, Ref(h.vdi, h.object(index)))
	}
}
