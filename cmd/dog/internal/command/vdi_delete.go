package command

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// defaultBatch is how many objects are released at a time.
const defaultBatch = 128

// vdiDelete deletes a VDI. A VDI that is not there is told on standard error,
// but no failure: programs that use dog rely on that.
func vdiDelete(ctx context.Context, s *session) error {
	err := s.deleteVDI(ctx, s.name(), s.opts.snapshot)
	if missing(err) {
		s.warn("%s", openFailed(s.name(), s.opts.snapshot, err).Error())
		return nil
	}
	return err
}

// missing reports whether err says that a VDI or its tag does not exist.
func missing(err error) bool {
	return errors.Is(err, sheep.ErrNoVDI) || errors.Is(err, sheep.ErrNoTag)
}

// deleteVDI deletes the VDI that name and v stand for. That it does not exist is
// a plain error, see missing; everything else is a failure.
//
// A daemon that defers writes, as ours do, deletes the objects itself when it is
// asked to delete the VDI. C's expects that the client has emptied the map, and
// otherwise keeps the VDI, hidden, though it reports success. Which of the two
// is asked shows in its answer to FLUSH_VDI: C's never has anything to flush and
// refuses. Either way the VDI is looked up, and found unlocked, before anything
// is changed.
func (s *session) deleteVDI(ctx context.Context, name string, v remote.Version) error {
	id, err := s.Lookup(ctx, name, v)
	if missing(err) {
		return err
	}
	if err != nil {
		return openFailed(name, v, err)
	}
	if err := s.checkUnlocked(ctx, name, id); err != nil {
		return err
	}
	h, err := s.Header(ctx, id)
	if err != nil {
		return failed(err, "Failed to read object %v %s", sheep.InodeObject(id), remote.Text(err))
	}
	if s.opts.maxReclaim >= 0 || s.opts.interval > 0 || !s.deletesObjects(ctx, id) {
		if err := s.reclaim(ctx, h); err != nil || s.opts.maxReclaim >= 0 {
			return err
		}
	}
	if err := s.DeleteVDI(ctx, name, v); err != nil {
		return failed(err, "Failed to delete %s: %s", name, remote.Text(err))
	}
	return nil
}

// deletesObjects reports whether the daemon deletes objects with their VDI.
func (s *session) deletesObjects(ctx context.Context, id sheep.VDIID) bool {
	deferring, err := s.Flush(ctx, id)
	return err == nil && deferring
}

// checkUnlocked refuses a VDI that somebody has open.
func (s *session) checkUnlocked(ctx context.Context, name string, id sheep.VDIID) error {
	states, err := s.States(ctx)
	if err != nil {
		return failed(err, "Failed to get VDI state: %s", remote.Text(err))
	}
	for _, state := range states {
		if state.VDI == id && locked(state) {
			return fail(ExitFailure, "Failed to delete %s: %s (%s)", name, proto.ResultVDILocked, ownerText(state.Lock)).
				and("If nobody uses it any more, run '%s vdi lock unlock' first.", s.app.env.Program)
		}
	}
	return nil
}

// reclaim empties the map of a VDI, which releases its data objects.
func (s *session) reclaim(ctx context.Context, h *proto.InodeHeader) error {
	if h.Hyper() {
		return nil // its objects go with DEL_VDI
	}
	owners, err := s.Map(ctx, h)
	if err != nil {
		return failed(err, "Failed to read object %v %s", sheep.InodeObject(h.VDI), remote.Text(err))
	}
	left := s.opts.maxReclaim
	for i := 0; i < len(owners) && left != 0; {
		if owners[i] == 0 {
			i++
			continue
		}
		end := i
		for n := s.opts.batch; end < len(owners) && owners[end] != 0 && n > 0 && left != 0; end++ {
			n--
			left--
		}
		if err := s.WriteMap(ctx, h.VDI, uint32(i), make([]sheep.VDIID, end-i), 0); err != nil {
			return failed(err, "Failed to write object %v: %s", sheep.InodeObject(h.VDI), remote.Text(err))
		}
		if i = end; s.opts.interval > 0 {
			if err := s.app.env.Pause(ctx, time.Duration(s.opts.interval)*time.Second); err != nil {
				return err
			}
		}
	}
	return nil
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	case <-t.C:
		return nil
	}
}
