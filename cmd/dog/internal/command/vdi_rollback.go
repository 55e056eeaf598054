package command

import (
	"context"

	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// vdiRollback replaces the working VDI by a clone of a snapshot.
func vdiRollback(ctx context.Context, s *session) error {
	if !s.opts.hasSnapshot || s.opts.snapshot.Working() {
		return badUsage("Please specify the '-s' option")
	}
	if !s.opts.force {
		if err := s.confirm("This operation discards any changes made since the previous\n" +
			"snapshot was taken.  Continue? [yes/no]: "); err != nil {
			return err
		}
	}
	h, err := s.open(ctx, s.name(), s.opts.snapshot)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // the VDI must not be left without its new state
	if err := s.deleteVDI(ctx, s.name(), remote.Version{}); err != nil && !missing(err) {
		return err
	}
	id, err := s.NewVDI(ctx, s.name(), proto.VDIBody{
		Size: h.Size, Base: h.VDI, Copies: h.Copies, CopyPolicy: h.CopyPolicy,
		StorePolicy: h.StorePolicy, BlockShift: h.BlockShift,
	})
	if err != nil {
		return failed(err, "Failed to create VDI %s: %s", s.name(), remote.Text(err)).
			and("The working VDI is gone, the snapshot is not: repeat the rollback.")
	}
	s.tell(id, "New VDI ID of rollbacked VDI: %x\n")
	return nil
}
