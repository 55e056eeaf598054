package gateway

import (
	"context"

	"sheepdog/sheep"
)

// A Grant is the right to write VDIs without being admitted as a client's
// request is: the executor of a plan has it for the VDIs that it froze.
type Grant interface {
	// Generation returns the generation to write vdi under, or 0 if the
	// grant does not cover it.
	Generation(vdi sheep.VDIID) sheep.Generation
}

type grantKey struct{}

// WithGrant returns a context whose requests are made under gr.
func WithGrant(ctx context.Context, gr Grant) context.Context {
	return context.WithValue(ctx, grantKey{}, gr)
}

func grantOf(ctx context.Context) Grant {
	gr, _ := ctx.Value(grantKey{}).(Grant)
	return gr
}

// single is the grant of a request that has been admitted for one VDI, inside
// outer.
type single struct {
	vdi        sheep.VDIID
	generation sheep.Generation
	outer      Grant
}

func (s single) Generation(vdi sheep.VDIID) sheep.Generation {
	switch {
	case vdi == s.vdi:
		return s.generation
	case s.outer != nil:
		return s.outer.Generation(vdi)
	}
	return 0
}

// stamped passes requests on with the generation that its grant gives them.
type stamped struct {
	next  sheep.Objects
	grant Grant
}

func (s stamped) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	return s.next.Read(ctx, ref, p, off)
}

func (s stamped) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	ref.Generation = s.grant.Generation(ref.ID.VDI())
	return s.next.Write(ctx, ref, w)
}

func (s stamped) Remove(ctx context.Context, ref sheep.Ref) error {
	ref.Generation = s.grant.Generation(ref.ID.VDI())
	return s.next.Remove(ctx, ref)
}
