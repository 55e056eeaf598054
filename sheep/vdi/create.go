package vdi

import (
	"context"
	"errors"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// executeNew runs PlanNew.
func (o *Operations) executeNew(ctx context.Context, t Task, p newPlan) (made, []Change, error) {
	if err := p.check(); err != nil {
		return made{}, nil, err
	}
	b, err := o.prepare(ctx, t, p)
	if err != nil {
		return made{}, nil, err
	}
	if err := t.Freeze(ctx, b.involved()...); err != nil {
		return made{}, nil, err
	}
	if err := o.readParents(ctx, &b); err != nil {
		return made{}, nil, err
	}
	if err := b.run(ctx); err != nil {
		return made{}, nil, fmt.Errorf("make VDI %v of %q: %w", b.child.ID, p.Name, err)
	}
	changes := []Change{{VDI: b.child}}
	if b.frozen != nil {
		b.stale = append(b.stale, *b.frozen)
	}
	for _, v := range b.stale {
		v.Snapshot = true
		changes = append(changes, Change{VDI: v})
	}
	copies, _ := b.child.Policy.Wire()
	return made{VDI: b.child.ID, Copies: copies, BlockShift: b.child.BlockShift}, changes, nil
}

// prepare decides what p makes of what, as far as the table says it.
func (o *Operations) prepare(ctx context.Context, t Task, p newPlan) (birth, error) {
	b := birth{next: o.next, index: t.Index, time: p.Time, log: o.cfg.Log}
	s := search{o: o, query: query{Name: p.Name}, time: p.Time}
	head, err := s.run(ctx)
	switch {
	case p.Snapshot && err != nil:
		return b, err
	case p.Snapshot && head.Hyper:
		return b, fmt.Errorf("%w: hyper volume %v cannot be shared", sheep.ErrInvalid, head.ID)
	case p.Snapshot:
		b.frozen = &head
	case err == nil:
		return b, fmt.Errorf("VDI %q: %w", p.Name, sheep.ErrVDIExists)
	case !errors.Is(err, sheep.ErrNoVDI):
		return b, err
	}
	if p.Base != 0 {
		base, ok := o.dir.VDI(p.Base)
		if !ok || base.Deleted {
			return b, fmt.Errorf("base VDI %v: %w", p.Base, proto.ErrBaseVDIRead)
		}
		if base.Hyper {
			return b, fmt.Errorf("%w: hyper volume %v cannot be shared", sheep.ErrInvalid, p.Base)
		}
		if b.frozen == nil || base.ID != b.frozen.ID {
			if snapshot, err := s.isSnapshot(ctx, base); err != nil {
				return b, as(proto.ErrBaseVDIRead, err)
			} else if !snapshot {
				return b, fmt.Errorf("%w: base VDI %v is not a snapshot", sheep.ErrInvalid, p.Base)
			}
		}
		b.base = &base
	}
	if b.child, err = o.child(p, b.base); err != nil {
		return b, err
	}
	b.size, b.stale = p.Size, s.stale
	if p.Size > MaxSize(b.child.BlockShift, b.child.Hyper) {
		return b, fmt.Errorf("%w: %d bytes are too many", sheep.ErrInvalid, p.Size)
	}
	return b, nil
}

// child returns the VDI that p makes. What shares objects with base also shares
// its policy and the size of its objects, whatever the client asks for.
func (o *Operations) child(p newPlan, base *sheep.VDI) (sheep.VDI, error) {
	v := sheep.VDI{Name: p.Name, SnapID: o.nextSnapID(p.Name), Parent: p.Base, Hyper: p.StorePolicy == proto.StoreHyper}
	if base != nil {
		v.Policy, v.BlockShift = base.Policy, base.BlockShift
	} else {
		d := o.dir.Defaults()
		if p.Copies == 0 {
			p.Copies, p.CopyPolicy = d.Copies, d.CopyPolicy
		}
		if p.BlockShift == 0 && !v.Hyper {
			p.BlockShift = d.BlockShift
		}
		if p.BlockShift == 0 {
			p.BlockShift = sheep.DefaultBlockShift
		}
		var err error
		if v.Policy, err = sheep.PolicyFromWire(p.Copies, p.CopyPolicy); err != nil {
			return v, err
		}
		v.BlockShift = p.BlockShift
	}
	var err error
	v.ID, err = o.freeNumber(p.Name)
	return v, err
}

// readParents looks at what a client may still have changed until the freeze. A
// snapshot's successor is never smaller than the head was: the client may have
// missed a resize.
func (o *Operations) readParents(ctx context.Context, b *birth) error {
	if b.base == nil {
		return nil
	}
	h, err := ReadHeader(ctx, o.next, *b.base)
	switch {
	case err != nil:
		return as(proto.ErrBaseVDIRead, err)
	case h.Deleted():
		return fmt.Errorf("base VDI %v is being deleted: %w", b.base.ID, proto.ErrBaseVDIRead)
	case b.frozen != nil && b.frozen.ID == b.base.ID:
		b.size = max(b.size, h.Size)
	}
	return nil
}
