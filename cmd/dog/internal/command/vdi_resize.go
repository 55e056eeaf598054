package command

import (
	"context"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// vdiResize makes a VDI larger.
func vdiResize(ctx context.Context, s *session) error {
	if len(s.args) < 2 {
		return badUsage("Please specify the new size for the VDI")
	}
	n, err := parseSize(s.args[1])
	if err != nil {
		return err
	}
	h, err := s.open(ctx, s.name(), remote.Version{})
	if err != nil {
		return err
	}
	limit := uint64(proto.MaxMapEntries) << min(h.BlockShift, sheep.MaxBlockShift)
	switch {
	case h.Hyper() && n > maxHyperSize:
		return badUsage("New VDI size is too large This volume's max size is %d", uint64(maxHyperSize))
	case !h.Hyper() && n > limit:
		return badUsage("New VDI size is too large. This volume's max size is %d", limit)
	case n < h.Size:
		return badUsage("Shrinking VDIs is not implemented")
	}
	h.Size = n
	inode := sheep.InodeObject(h.VDI)
	if err := s.Write(ctx, inode, h.Append(nil), 0, 0); err != nil {
		return failed(err, "Failed to write object %v: %s", inode, remote.Text(err))
	}
	return nil
}
