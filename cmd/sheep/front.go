package main

import (
	"context"

	"sheepdog/gateway/flight"
	"sheepdog/sheep"
	"sheepdog/sheep/vdi"
)

// A front is where the requests for objects come in, whichever way they come: the
// Guard, behind the doors that know what is in flight.
type front struct {
	*vdi.Guard
	door   flight.Door // of clients
	inodes flight.Door // of other gateways, for inodes of VDIs that this node owns
}

// newFront returns the front of n over its Guard.
func (n *node) newFront(guard *vdi.Guard) front {
	return front{Guard: guard, door: n.flights.NewDoor(guard), inodes: n.flights.NewDoor(ownedInodes{guard})}
}

func (f front) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	return f.door.Read(ctx, ref, p, off)
}

func (f front) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	return f.door.Write(ctx, ref, w)
}

func (f front) Remove(ctx context.Context, ref sheep.Ref) error { return f.door.Remove(ctx, ref) }

func (f front) Flush(ctx context.Context, id sheep.VDIID) error { return f.door.Flush(ctx, id) }

func (f front) Discard(ctx context.Context, id sheep.ObjectID) error {
	return f.door.Do(ctx, flight.Discard, id, func(ctx context.Context) error { return f.Guard.Discard(ctx, id) })
}

func (f front) WriteOwned(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	return f.inodes.Write(ctx, ref, w)
}

// ownedInodes is the Guard as other gateways use it.
type ownedInodes struct{ *vdi.Guard }

func (o ownedInodes) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	return o.WriteOwned(ctx, ref, w)
}
