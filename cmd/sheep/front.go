package main

import (
	"context"

	"sheepdog/gateway/flight"
	"sheepdog/sheep"
	"sheepdog/sheep/vdi"
)

// A front is where the requests of clients for objects come in, whichever way
// they come: the Guard, behind the door that knows what is in flight.
type front struct {
	*vdi.Guard
	door flight.Door
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

// newFront returns the front of n over its Guard.
func (n *node) newFront(guard *vdi.Guard) front {
	return front{Guard: guard, door: n.flights.NewDoor(guard, sheep.Client{})}
}

// ownerDoor returns what serves the requests that another gateway forwards.
func (n *node) ownerDoor(from sheep.Incarnation) flight.Door {
	client := sheep.Client{Kind: "node", Addr: from.String()}
	if m, ok := n.cluster.View().Member(from); ok {
		client.Addr = m.Node.String()
	}
	return n.flights.NewDoor(n.gateway.Owned(from), client)
}
