package command

import (
	"context"
	"errors"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// vdiSnapshot freezes the working VDI as a snapshot.
func vdiSnapshot(ctx context.Context, s *session) error {
	name, tag := s.name(), s.opts.snapshot.Tag
	if s.opts.snapshot.ID != 0 {
		return badUsage("Please specify a non-integer value for a snapshot tag name")
	}
	if tag != "" {
		switch _, err := s.Lookup(ctx, name, remote.Version{Tag: tag}); {
		case err == nil:
			return fail(ExitFailure, "Failed to create snapshot for %s, maybe snapshot id (%d) or tag (%s) is existed", name, 0, tag)
		case remote.Result(err) != proto.ResultNoTag:
			return snapshotFailed(name, err)
		}
	}
	id, err := s.Lookup(ctx, name, remote.Version{})
	if err != nil {
		return snapshotFailed(name, err)
	}
	h, err := s.Header(ctx, id)
	if err != nil {
		return snapshotFailed(name, err)
	}
	if h.Hyper() {
		return fail(ExitFailure, "creating a snapshot of hypervolume is not supported")
	}
	if s.opts.reduce {
		if skip, err := s.unchanged(ctx, h); skip || err != nil {
			return err
		}
	}
	created, err := s.takeSnapshot(ctx, h, tag)
	if err != nil {
		return err
	}
	switch {
	case s.opts.verbose && s.opts.raw:
		s.print("%x %x\n", uint32(created), uint32(id))
	case s.opts.verbose:
		s.print("new VID of original VDI: %x, VDI ID of newly created snapshot: %x\n", uint32(created), uint32(id))
	}
	return nil
}

func snapshotFailed(name string, err error) error {
	return failed(err, "Failed to create snapshot for %s: %s", name, remote.Text(err))
}

// unchanged reports whether the working VDI has no objects of its own, so that
// a snapshot would be the same as the one before.
func (s *session) unchanged(ctx context.Context, h *proto.InodeHeader) (bool, error) {
	objects, err := s.Allocated(ctx, h)
	if err != nil {
		return false, snapshotFailed(h.Name, err)
	}
	for _, o := range objects {
		if o.VDI == h.VDI {
			return false, nil
		}
	}
	if s.opts.verbose {
		s.warn("VDI %s doesn't have its own objects, skipping creation of snapshot", h.Name)
	}
	return true, nil
}

// takeSnapshot makes the working VDI a snapshot and returns the number of the new
// working VDI.
func (s *session) takeSnapshot(ctx context.Context, h *proto.InodeHeader, tag string) (sheep.VDIID, error) {
	id, err := s.TakeSnapshot(ctx, h, tag)
	e, ok := errors.AsType[*remote.SnapshotError](err)
	switch {
	case !ok:
		return id, err
	case e.Tagging:
		return 0, failed(err, "Failed to write object %v: %s", sheep.InodeObject(h.VDI), remote.Text(e.Err))
	case e.Remains != nil:
		s.warn("The tag %s remains at the working VDI: %s", tag, remote.Text(e.Remains))
	}
	return 0, failed(err, "Failed to create VDI %s: %s", h.Name, remote.Text(e.Err))
}
