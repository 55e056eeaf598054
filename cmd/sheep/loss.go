package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// lossPatience is how long an object must not be readable to count as lost.
const lossPatience = 3 * time.Second

// losses lets people give up objects that no node can read any more.
type losses struct{ n *node }

// Damage says which objects are not as they should be.
func (l losses) Damage() proto.DamageReport {
	all := l.n.recovery.Damage()
	return proto.DamageReport{Total: uint64(len(all)), Plans: uint64(l.n.cluster.OpenPlans()), Objects: all}
}

// Accept makes the object readable again: as a copy of from, or full of zeroes if
// that is 0. It refuses objects that can be read.
func (l losses) Accept(ctx context.Context, id, from sheep.ObjectID) error {
	if k := id.Kind(); k != sheep.KindData && k != sheep.KindVMState {
		return fmt.Errorf("give up object %v: %w: it is metadata", id, sheep.ErrInvalid)
	}
	v, ok := l.n.cluster.VDI(id.VDI())
	if !ok {
		return fmt.Errorf("give up object %v: %w", id, sheep.ErrNoVDI)
	}
	ref := sheep.Ref{ID: id, Policy: v.Policy, Size: id.Size(v.BlockShift)}
	why := l.readable(ctx, ref)
	if why == nil {
		return fmt.Errorf("give up object %v: %w: it can be read", id, sheep.ErrInvalid)
	}
	w := sheep.Write{Create: true, Durable: true}
	if from != 0 {
		source := ref
		source.ID = from
		w.Data = make([]byte, ref.Size)
		if err := l.n.gateway.Read(ctx, source, w.Data, 0); err != nil {
			return fmt.Errorf("give up object %v: %w", id, err)
		}
	}
	if err := l.n.gateway.Remake(ctx, ref, &w); err != nil {
		return err
	}
	l.n.log.Warn("an administrator has accepted the loss of an object, which has been made anew", "oid", id, "vdi", v.ID,
		"from", from, "err", why)
	return nil
}

// readable returns nil if the object can be read, else why not.
func (l losses) readable(ctx context.Context, ref sheep.Ref) error {
	soon, cancel := context.WithTimeoutCause(ctx, lossPatience, fmt.Errorf("%w: it cannot be read in %v", sheep.ErrIO, lossPatience))
	defer cancel()
	err := l.n.gateway.Read(soon, ref, make([]byte, 512), 0)
	if ctx.Err() != nil {
		return nil // nobody wants to know any more
	}
	if err != nil && errors.Is(err, sheep.ErrNetwork) {
		err = fmt.Errorf("%w: %w", sheep.ErrIO, err)
	}
	return err
}
