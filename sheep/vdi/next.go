package vdi

import (
	"context"

	"sheepdog/sheep"
)

// Next is the gateway as the Guard sees it.
type Next interface {
	sheep.Objects // ordered per object and range at the owner, forwarded there if that is another node
	sheep.Flusher

	// Exclusive runs fn as the owner of id's VDI, while no other request to id
	// is in flight. below reaches the link under the gateway under the right
	// generation. If another gateway owns the VDI it runs nothing and returns
	// an error that is sheep.ErrNotOwner.
	Exclusive(ctx context.Context, id sheep.ObjectID, fn func(ctx context.Context, below sheep.Objects) error) error

	// ForwardWrite sends a write that Exclusive refused to WriteOwned of the
	// owner's Guard.
	ForwardWrite(ctx context.Context, ref sheep.Ref, w *sheep.Write) error

	// ForwardDecref sends a release that Exclusive refused to DecrefOwned of
	// the owner's Guard. Once sent it is not repeated.
	ForwardDecref(ctx context.Context, ref sheep.Ref, generation, count uint32) error
}

// A Table is what every node knows of all VDIs.
type Table interface {
	VDI(id sheep.VDIID) (sheep.VDI, bool)

	// VDIs returns all VDIs, deleted ones included, by ascending number.
	VDIs() []sheep.VDI
}

// A Directory is what the operations need to know of the cluster.
type Directory interface {
	Table
	VDIsNamed(name string) []sheep.VDI // in any order
	UsedBitmap() []byte                // bit v%8 of byte v/8: number v is taken
	LockOf(id sheep.VDIID) sheep.Lock
	Defaults() Defaults

	// Sync returns when the Directory shows all that was decided anywhere in
	// the cluster before the call.
	Sync(ctx context.Context) error
}

// Defaults are what new VDIs are made of unless the client says otherwise.
type Defaults struct {
	Copies     uint8
	CopyPolicy uint8
	BlockShift uint8
	Recycle    bool // numbers of deleted families are used again
}

// A Planner logs plans and has them executed, one at a time in the cluster.
type Planner interface {
	Plan(ctx context.Context, kind uint8, payload []byte) (result []byte, err error)
}

// A Task is a plan to execute. The context that comes with it lets the requests
// made with it through Next pass to the VDIs frozen by it, and ends when the turn
// is lost.
type Task struct {
	Index   uint64 // of the plan in the log
	Kind    uint8
	Payload []byte
	Retry   bool // another execution may have done a part of it

	// Freeze takes the ownership of the VDIs for this task until its end, and
	// returns when the gateways that had it have finished and flushed.
	Freeze func(ctx context.Context, vdis ...sheep.VDIID) error
}

// A Change is an effect of a plan on the table of VDIs.
type Change struct {
	VDI  sheep.VDI
	Drop bool // forget the VDI, so that its number is free again
}
