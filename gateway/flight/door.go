package flight

import (
	"context"
	"slices"

	"sheepdog/sheep"
)

// Objects is the link behind a Door.
type Objects interface {
	sheep.Objects
	sheep.Flusher
}

// A Door is where requests of clients come in.
type Door struct {
	table *Table
	next  Objects
}

var _ Objects = Door{}

// NewDoor returns a door to next. Whose requests come in their contexts tell, see
// sheep.WithClient.
func (t *Table) NewDoor(next Objects) Door { return Door{t, next} }

// Read is next's. It is broken off at its deadline.
func (d Door) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	f := d.table.enter(ctx, Read, ref.ID)
	return d.table.done(f, d.next.Read(f, ref, p, off))
}

// Write is next's. If the client stops waiting it goes on with a copy of w.
func (d Door) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	f := d.table.enter(ctx, Write, ref.ID)
	if f.limit.duration == 0 {
		return d.table.done(f, d.next.Write(f, ref, w))
	}
	own := cloneWrite(w)
	return d.table.detach(f, len(own.Data), func() error { return d.next.Write(f, ref, own) })
}

func cloneWrite(w *sheep.Write) *sheep.Write {
	own := *w
	own.Data, own.After = slices.Clone(w.Data), slices.Clone(w.After)
	if w.From != nil {
		own.From = new(*w.From)
	}
	return &own
}

// Remove is next's.
func (d Door) Remove(ctx context.Context, ref sheep.Ref) error {
	return d.Do(ctx, Remove, ref.ID, func(ctx context.Context) error { return d.next.Remove(ctx, ref) })
}

// Flush is next's. It is broken off at its deadline.
func (d Door) Flush(ctx context.Context, vdi sheep.VDIID) error {
	f := d.table.enter(ctx, Flush, sheep.InodeObject(vdi))
	return d.table.done(f, d.next.Flush(f, vdi))
}

// Do runs fn, which changes something, as a request. fn may go on after Do has
// returned, and must not use what belongs to the caller.
func (d Door) Do(ctx context.Context, op Op, id sheep.ObjectID, fn func(context.Context) error) error {
	f := d.table.enter(ctx, op, id)
	if f.limit.duration == 0 {
		return d.table.done(f, fn(f))
	}
	return d.table.detach(f, 0, func() error { return fn(f) })
}
