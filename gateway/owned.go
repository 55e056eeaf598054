package gateway

import (
	"context"
	"time"

	"sheepdog/sheep"
)

// Owned serves the requests that other gateways forward. It answers them if
// this gateway is the owner and refuses them with a *sheep.NotOwnerError
// otherwise; it never forwards them again.
type Owned struct {
	g    *Gateway
	from sheep.Incarnation // who forwards
}

// Owned returns what serves the requests forwarded by the gateway with the
// incarnation from.
func (g *Gateway) Owned(from sheep.Incarnation) Owned { return Owned{g: g, from: from} }

// Read is Gateway.Read at the owner.
func (o Owned) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	o.noteForwarded(ref.ID.VDI())
	return o.g.read(ctx, ref, p, off, false)
}

// Write is Gateway.Write at the owner.
func (o Owned) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	o.noteForwarded(ref.ID.VDI())
	return o.serve(ctx, ref.ID.VDI(), func(d *disk, gen sheep.Generation) error {
		return o.g.write(ctx, d, gen, ref, w)
	})
}

// Remove is Gateway.Remove at the owner.
func (o Owned) Remove(ctx context.Context, ref sheep.Ref) error {
	return o.serve(ctx, ref.ID.VDI(), func(d *disk, gen sheep.Generation) error {
		return o.g.remove(ctx, d, gen, ref)
	})
}

// Flush is Gateway.Flush at the owner. Its answer may not reach the client.
func (o Owned) Flush(ctx context.Context, vdi sheep.VDIID) error {
	return o.serve(ctx, vdi, func(d *disk, _ sheep.Generation) error {
		err := o.g.flush(ctx, d)
		o.g.unheard(ctx, d, err)
		return err
	})
}

func (o Owned) serve(ctx context.Context, vdi sheep.VDIID, fn func(*disk, sheep.Generation) error) error {
	d := o.g.disk(vdi)
	a, err := d.admitWrite(ctx, o.g, false)
	if err != nil {
		return err
	}
	if !a.owned {
		return &sheep.NotOwnerError{VDI: vdi, Owner: a.remote}
	}
	defer d.release()
	return fn(d, a.generation)
}

// noteForwarded hands vdi over to the gateway that forwards if this node's own
// clients have left it alone for a while.
func (o Owned) noteForwarded(vdi sheep.VDIID) {
	g, d := o.g, o.g.disk(vdi)
	d.mu.Lock()
	defer d.mu.Unlock()
	own := d.own
	if own.Owner != g.self || own.Plan || own.Draining || d.leaving || time.Since(d.lastLocal) < idleAfter {
		return
	}
	d.leaving = true
	g.later(func(ctx context.Context) {
		if err := g.cluster.HandOver(ctx, vdi, own.Generation, o.from); err != nil {
			g.log.Debug("cannot hand a VDI over", "vdi", vdi, "err", err)
			d.mu.Lock()
			d.leaving = false
			d.mu.Unlock()
		}
	})
}
