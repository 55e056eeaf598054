package gateway

import (
	"context"
	"errors"

	"sheepdog/gateway/flight"
	"sheepdog/sheep"
)

// Exclusive runs fn as the owner while no other request to object id is in
// flight. below reaches the link under the gateway with the generation of the
// ownership; requests that fn makes through the gateway with its ctx count as
// part of this one, which has begun. If another gateway owns the VDI it runs
// nothing and returns a *sheep.NotOwnerError.
func (g *Gateway) Exclusive(ctx context.Context, id sheep.ObjectID, fn func(ctx context.Context, below sheep.Objects) error) error {
	return g.asOwner(ctx, id.VDI(), func(d *disk, gen sheep.Generation) error {
		t, err := d.order.enter(ctx, id, 0, whole, true)
		if err != nil {
			return err
		}
		defer d.order.leave(id, t)
		ctx := sheep.Begun(ctx)
		grant := single{vdi: id.VDI(), generation: gen, outer: grantOf(ctx)}
		return fn(WithGrant(ctx, grant), stamped{next: g.below, grant: grant})
	}, nil)
}

// ForwardWrite sends a write that Exclusive refused to the owner.
func (g *Gateway) ForwardWrite(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	return g.forward(ctx, ref.ID.VDI(), transient, func(owner sheep.Node) error { return g.owners.Write(ctx, owner, ref, w) })
}

// ForwardDecref sends a dereference that Exclusive refused to the owner. It
// must not be done twice: an owner that did not answer may have done it.
func (g *Gateway) ForwardDecref(ctx context.Context, ref sheep.Ref, generation, count uint32) error {
	refused := func(err error) bool { return errors.Is(err, sheep.ErrNotOwner) }
	return g.forward(ctx, ref.ID.VDI(), refused, func(owner sheep.Node) error {
		return g.owners.Decref(ctx, owner, ref, generation, count)
	})
}

// forward sends a request to the owner once. If again says that it may be sent
// another time it returns a *sheep.NotOwnerError after a moment, and the caller
// begins anew.
func (g *Gateway) forward(ctx context.Context, vdi sheep.VDIID, again func(error) bool, send func(sheep.Node) error) error {
	d := g.disk(vdi)
	own, changed := d.now()
	if own.Owner == 0 || own.Owner == g.self {
		return &sheep.NotOwnerError{VDI: vdi}
	}
	flight.Of(ctx).AsksOwner(own.Node)
	err := send(own.Node)
	if !again(err) {
		return err
	}
	if err := d.waitChange(sheep.Caller(ctx), changed); err != nil {
		return err
	}
	return &sheep.NotOwnerError{VDI: vdi, Owner: own.Node}
}
