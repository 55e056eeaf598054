package command

import (
	"context"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// maxHyperSize is the size of the largest hyper volume.
const maxHyperSize = 1 << 54

// vdiCreate makes a VDI.
func vdiCreate(ctx context.Context, s *session) error {
	if len(s.args) < 2 {
		return badUsage("Please specify the VDI size")
	}
	n, err := parseSize(s.args[1])
	if err != nil {
		return err
	}
	if s.opts.hyper && s.opts.shift != 0 {
		return fail(ExitFailure, "Don't specify both -y and -z options, please")
	}
	if s.opts.hyper && n > maxHyperSize {
		return badUsage("VDI size is too large")
	}
	shift, store := uint8(sheep.DefaultBlockShift), uint8(proto.StoreHyper)
	if !s.opts.hyper {
		store = proto.StorePlain
		if shift, err = s.blockShift(ctx); err != nil {
			return err
		}
	}
	if limit := uint64(proto.MaxMapEntries) << shift; n > limit && !s.opts.hyper {
		return badUsage("VDI size is larger than %s bytes, please use '-y' to create a hyper volume with size up to %s bytes"+
			" or use '-z' to create larger object size volume", s.size(limit), s.size(maxHyperSize))
	}
	copies, policy := s.opts.policy.Wire()
	if s.opts.hasPolicy && s.opts.policy.Width() > zones(s.nodes.Nodes) {
		s.warn("%s: the cluster has only %d zones: the VDI will have less redundancy than %v until there are more",
			s.app.env.Program, zones(s.nodes.Nodes), s.opts.policy)
	}
	id, err := s.NewVDI(ctx, s.name(), proto.VDIBody{
		Size: n, Copies: copies, CopyPolicy: policy, StorePolicy: store, BlockShift: s.opts.shift,
	})
	if err != nil {
		return failed(err, "Failed to create VDI %s: %s", s.name(), remote.Text(err))
	}
	if s.opts.prealloc {
		if err := s.preallocate(ctx, id); err != nil {
			return err
		}
	}
	s.tell(id, "VDI ID of newly created VDI: %x\n")
	return nil
}

// blockShift returns the block size shift of the VDI to be.
func (s *session) blockShift(ctx context.Context) (uint8, error) {
	if s.opts.shift != 0 {
		return s.opts.shift, nil
	}
	info, err := s.Info(ctx, "")
	if err != nil {
		return 0, failed(err, "Failed to create VDI %s: %s", s.name(), remote.Text(err))
	}
	if info.BlockShift < sheep.MinBlockShift || info.BlockShift > sheep.MaxBlockShift {
		return sheep.DefaultBlockShift, nil // not formatted: the cluster will say so
	}
	return info.BlockShift, nil
}

// tell prints the number of a VDI if the user wants to know.
func (s *session) tell(id sheep.VDIID, format string) {
	switch {
	case s.opts.verbose && s.opts.raw:
		s.print("%x\n", uint32(id))
	case s.opts.verbose:
		s.print(format, uint32(id))
	}
}

// zones returns how many zones have nodes that store data.
func zones(nodes []sheep.Node) int {
	seen := make(map[sheep.ZoneID]bool)
	for _, n := range nodes {
		if n.VNodes > 0 {
			seen[n.Zone] = true
		}
	}
	return len(seen)
}

// preallocate makes all data objects of a new VDI.
func (s *session) preallocate(ctx context.Context, id sheep.VDIID) error {
	h, err := s.Header(ctx, id)
	if err != nil {
		return failed(err, "Failed to read object %v %s", sheep.InodeObject(id), remote.Text(err))
	}
	slots := (h.Size + 1<<h.BlockShift - 1) >> h.BlockShift
	return s.fill(ctx, h, countUp(slots), slots, func(uint32) sheep.ObjectID { return 0 })
}
