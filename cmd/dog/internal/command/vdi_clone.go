package command

import (
	"context"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// vdiClone makes a VDI of a snapshot.
func vdiClone(ctx context.Context, s *session) error {
	switch {
	case len(s.args) < 2:
		return badUsage("Destination VDI name must be specified")
	case !s.opts.hasSnapshot || s.opts.snapshot.Working():
		return badUsage("Only snapshot VDIs can be cloned").and("Please specify the '-s' option")
	}
	target := s.args[1]
	if err := checkName(target); err != nil {
		return err
	}
	h, err := s.open(ctx, s.name(), s.opts.snapshot)
	if err != nil {
		return err
	}
	if h.Hyper() {
		return fail(ExitFailure, "creating a clone of hypervolume is not supported")
	}
	indexes, source, err := s.cloneObjects(ctx, h)
	if err != nil {
		return err
	}
	body := proto.VDIBody{
		Size: h.Size, Base: h.VDI, Copies: h.Copies, CopyPolicy: h.CopyPolicy,
		StorePolicy: h.StorePolicy, BlockShift: h.BlockShift,
	}
	if s.opts.noShare {
		body.Base = 0
	}
	id, err := s.NewVDI(ctx, target, body)
	if err != nil {
		return failed(err, "Failed to create VDI %s: %s", target, remote.Text(err))
	}
	clone := *h
	clone.VDI = id
	if err := s.fill(ctx, &clone, slices.Values(indexes), uint64(len(indexes)), source); err != nil {
		return also(err, "The clone %s is incomplete: delete it", target)
	}
	s.tell(id, "VDI ID of newly created clone: %x\n")
	return nil
}

// cloneObjects returns which objects the clone of h shall have of its own, and
// what they are copies of.
func (s *session) cloneObjects(ctx context.Context, h *proto.InodeHeader) ([]uint32, func(uint32) sheep.ObjectID, error) {
	if !s.opts.noShare && !s.opts.prealloc {
		return nil, nil, nil
	}
	owners, err := s.Map(ctx, h)
	if err != nil {
		return nil, nil, failed(err, "Failed to read object %v %s", sheep.InodeObject(h.VDI), remote.Text(err))
	}
	source := func(i uint32) sheep.ObjectID {
		if owners[i] == 0 {
			return 0
		}
		return sheep.DataObject(owners[i], i)
	}
	var indexes []uint32
	for i, owner := range owners {
		if owner != 0 || s.opts.prealloc {
			indexes = append(indexes, uint32(i))
		}
	}
	return indexes, source, nil
}
