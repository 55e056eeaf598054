package vdi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A birth makes the inode of a new VDI, over the map of base if there is one.
// The package comment has its stages.
type birth struct {
	next   Next
	log    *slog.Logger
	index  uint64 // of the plan
	time   uint64 // of the plan, as inodes have it
	child  sheep.VDI
	size   uint64
	base   *sheep.VDI  // shares its objects with child, or nil
	frozen *sheep.VDI  // becomes a snapshot, or nil
	stale  []sheep.VDI // snapshots that the table has as heads
	used   []uint32    // first slots of the pages that copyMap found in use, if it ran
}

// A stage says how far the inode of a child has come.
type stage uint32

// The stages as inodes have them: never renumber.
const (
	nothing stage = 0
	images  stage = 1 // being made, with base's references
	counts  stage = 2 // base's counts are being raised
	zero    stage = 3 // child's counts are being cleared
	named   stage = 4
)

// The stage of a nameless inode lies where its unused bytes begin:
//
//	offset  size  field
//	     0     4  magic
//	     4     4  stage
//	     8     8  index of the plan
//
// Who only knows names and policies sees the inode of a deleted VDI.
const stageMagic = 0x42676853 // "ShgB"

func (b *birth) involved() []sheep.VDIID {
	ids := []sheep.VDIID{b.child.ID}
	if b.frozen != nil {
		ids = append(ids, b.frozen.ID)
	}
	if b.base != nil && (b.frozen == nil || b.frozen.ID != b.base.ID) {
		ids = append(ids, b.base.ID)
	}
	return ids
}

// run goes through the stages that are still to do. If it fails early it leaves
// things as they were.
func (b *birth) run(ctx context.Context) error {
	at, err := b.stage(ctx)
	if err != nil {
		return as(proto.ErrVDIWrite, err)
	}
	if at < zero {
		if err := b.share(ctx, at); err != nil {
			b.undo(ctx)
			return err
		}
		at = zero
	}
	if at == zero {
		if err := b.finish(ctx); err != nil {
			return as(proto.ErrVDIWrite, err)
		}
	}
	if b.frozen == nil {
		return nil
	}
	err = write(ctx, b.next, *b.frozen, snapTimeField, binary.LittleEndian.AppendUint64(nil, b.time))
	return as(proto.ErrVDIWrite, err)
}

// stage returns how far an earlier execution of this plan has come.
func (b *birth) stage(ctx context.Context) (stage, error) {
	h, err := ReadHeader(ctx, b.next, b.child)
	switch {
	case errors.Is(err, sheep.ErrNoObject):
		return nothing, nil
	case err != nil:
		return nothing, err
	case h.Name == b.child.Name && h.CreateTime == b.time && h.VDI == b.child.ID && h.Parent == b.child.Parent:
		return named, nil
	}
	le := binary.LittleEndian
	if h.Name != "" || le.Uint32(h.Unused[:]) != stageMagic || le.Uint64(h.Unused[8:]) != b.index {
		return nothing, nil
	}
	return stage(le.Uint32(h.Unused[4:])), nil
}

func (b *birth) record(s stage) []byte {
	le := binary.LittleEndian
	r := le.AppendUint32(nil, stageMagic)
	r = le.AppendUint32(r, uint32(s))
	return le.AppendUint64(r, b.index)
}

// share makes the inode and raises the counts of base.
func (b *birth) share(ctx context.Context, at stage) error {
	if at < counts {
		nameless := b.header()
		nameless.Name, nameless.CreateTime = "", 0
		copy(nameless.Unused[:], b.record(images))
		w := sheep.Write{Data: nameless.Append(nil), Create: true, Durable: true}
		if b.child.Hyper {
			w.Data = proto.BTreeNode{Depth: proto.BTreeLeafDepth}.Append(w.Data)
		}
		if err := b.next.Write(ctx, Ref(b.child, sheep.InodeObject(b.child.ID)), &w); err != nil {
			return as(proto.ErrVDIWrite, err)
		}
		if b.base == nil {
			return nil
		}
		if err := b.copyMap(ctx); err != nil {
			return err
		}
		if err := write(ctx, b.next, b.child, unusedField, b.record(counts)); err != nil {
			return as(proto.ErrVDIWrite, err)
		}
	}
	if err := b.countInBase(ctx, 1); err != nil {
		return err
	}
	return as(proto.ErrVDIWrite, write(ctx, b.next, b.child, unusedField, b.record(zero)))
}

// copyMap copies the slots of base that are in use. A reference of the copy has
// the next generation and, for now, the count of the original.
func (b *birth) copyMap(ctx context.Context) error {
	buf := make([]byte, pageSlots*proto.GRefSize)
	base := Ref(*b.base, sheep.InodeObject(b.base.ID))
	err := ReadMap(ctx, b.next, *b.base, 0, proto.MaxMapEntries, func(page MapPage) error {
		grefs := buf[:page.Len()*proto.GRefSize]
		if err := b.next.Read(ctx, base, grefs, grefOffset(page.First)); err != nil {
			return as(proto.ErrBaseVDIRead, err)
		}
		b.used = append(b.used, page.First)
		for i := range page.Len() {
			r := gref{}
			if page.Owner(i) != 0 {
				r = grefAt(grefs, i)
				r.generation++
			}
			putGref(grefs, i, r)
		}
		if err := writeRuns(ctx, b.next, b.child, slotOffset(page.First), page.raw); err != nil {
			return as(proto.ErrVDIWrite, err)
		}
		return as(proto.ErrVDIWrite, writeRuns(ctx, b.next, b.child, grefOffset(page.First), grefs))
	})
	return as(proto.ErrBaseVDIRead, err)
}

// countInBase sets the counts of base to those that child keeps, plus n.
func (b *birth) countInBase(ctx context.Context, n uint32) error {
	return b.eachReference(ctx, func(first uint32, grefs []byte) error {
		return runs(grefs, func(from, to int) error {
			part := grefs[from:to]
			for i := range len(part) / proto.GRefSize {
				if r := grefAt(part, i); r != (gref{}) {
					putGref(part, i, gref{generation: r.generation - 1, count: r.count + n})
				}
			}
			err := write(ctx, b.next, *b.base, grefOffset(first)+uint32(from), part)
			return as(proto.ErrBaseVDIWrite, err)
		})
	})
}

// eachReference calls fn with the references of child, in parts. Every slot in
// use has one that is not zero: it has the generation 1 at least.
func (b *birth) eachReference(ctx context.Context, fn func(first uint32, grefs []byte) error) error {
	buf := make([]byte, pageSlots*proto.GRefSize)
	child := Ref(b.child, sheep.InodeObject(b.child.ID))
	page := func(first uint32) error {
		if err := b.next.Read(ctx, child, buf, grefOffset(first)); err != nil {
			return as(proto.ErrVDIWrite, err)
		}
		return fn(first, buf)
	}
	if b.used != nil {
		for _, first := range b.used {
			if err := page(first); err != nil {
				return err
			}
		}
		return nil
	}
	return ReadMap(ctx, b.next, b.child, 0, proto.MaxMapEntries, func(p MapPage) error { return page(p.First) })
}

// finish clears the counts of the child, which has not been copied yet, and then
// gives it its header.
func (b *birth) finish(ctx context.Context) error {
	if b.base != nil {
		err := b.eachReference(ctx, func(first uint32, grefs []byte) error {
			counted := false
			for i := range len(grefs) / proto.GRefSize {
				r := grefAt(grefs, i)
				counted = counted || r.count != 0
				putGref(grefs, i, gref{generation: r.generation})
			}
			if !counted {
				return nil
			}
			return writeRuns(ctx, b.next, b.child, grefOffset(first), grefs)
		})
		if err != nil {
			return err
		}
	}
	header := b.header()
	return write(ctx, b.next, b.child, nameField, header.Append(nil))
}

// header returns the header of the child.
func (b *birth) header() proto.InodeHeader {
	copies, policy := b.child.Policy.Wire()
	store := uint8(proto.StorePlain)
	if b.child.Hyper {
		store = proto.StoreHyper
	}
	return proto.InodeHeader{
		Name:        b.child.Name,
		CreateTime:  b.time,
		Size:        b.size,
		CopyPolicy:  policy,
		StorePolicy: store,
		Copies:      copies,
		BlockShift:  b.child.BlockShift,
		SnapID:      b.child.SnapID,
		VDI:         b.child.ID,
		Parent:      b.child.Parent,
	}
}

// undo takes back what share has done, in an order that lets the plan be run
// again if this node dies meanwhile. If undo fails base's references may be
// counted once more than there are, and the inode stays without a name.
func (b *birth) undo(ctx context.Context) {
	if ctx.Err() != nil {
		return // the next executor goes on
	}
	at, err := b.stage(ctx)
	if err == nil && at == zero && b.base != nil {
		err, at = write(ctx, b.next, b.child, unusedField, b.record(counts)), counts
	}
	if err == nil && at == counts {
		err = b.countInBase(ctx, 0)
	}
	if err == nil {
		err = ignoreMissing(b.next.Remove(ctx, Ref(b.child, sheep.InodeObject(b.child.ID))))
	}
	if err != nil {
		b.log.Warn("a VDI that could not be made left its inode behind", "vdi", b.child.ID, "err", err)
	}
}

// write writes p into the inode of v, durably.
func write(ctx context.Context, to sheep.Objects, v sheep.VDI, off uint32, p []byte) error {
	err := to.Write(ctx, Ref(v, sheep.InodeObject(v.ID)), &sheep.Write{Off: off, Data: p, Durable: true})
	if err != nil {
		return fmt.Errorf("write inode of VDI %v: %w", v.ID, err)
	}
	return nil
}

// writeRuns writes the parts of p that are not zero.
func writeRuns(ctx context.Context, to sheep.Objects, v sheep.VDI, off uint32, p []byte) error {
	return runs(p, func(from, end int) error { return write(ctx, to, v, off+uint32(from), p[from:end]) })
}
