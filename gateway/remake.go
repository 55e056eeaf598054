package gateway

import (
	"context"
	"fmt"

	"sheepdog/sheep"
)

// Remake makes an object anew in place of copies that nobody can read, under the
// ownership of this gateway. Unlike Write it does not wait for the requests to the
// object that are under way, which wait for it to be readable, and it does not ask
// whether the VDI is a snapshot. If another gateway owns the VDI it returns a
// *sheep.NotOwnerError.
func (g *Gateway) Remake(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	err := g.asOwner(ctx, ref.ID.VDI(), func(_ *disk, gen sheep.Generation) error {
		ref.Generation = gen
		return g.below.Write(ctx, ref, w)
	}, nil)
	if err != nil {
		return fmt.Errorf("remake object %v: %w", ref.ID, err)
	}
	return nil
}
