package command

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// errInUse says that a client has begun to use an object that had been leaked.
var errInUse = errors.New("it is in use now")

// sweep removes leaked objects. The user may have thought about it for long, so
// the maps are read again before; objects that somebody refers to now are left,
// as are those of a VDI that somebody has open.
func (s *session) sweep(ctx context.Context, leaked []sheep.ObjectID) error {
	leaked, err := s.unreferenced(ctx, leaked)
	if err != nil {
		return s.noSweep(ctx, err)
	}
	open, err := s.openVDIs(ctx)
	if err != nil {
		return s.noSweep(ctx, err)
	}
	var tried []sheep.ObjectID
	left := 0
	for r := range remote.Ordered(slices.Values(leaked), checkWidth, func(id sheep.ObjectID) removal {
		return s.remove(ctx, id, open)
	}) {
		switch {
		case ctx.Err() != nil:
			return interrupted()
		case r.err != nil:
			s.warn("failed to remove object %v: %s", r.id, remote.Text(r.err))
			left++
			continue
		case r.removed:
			s.print("removed object %v\n", r.id)
		}
		tried = append(tried, r.id)
	}
	still, err := s.present(ctx, tried)
	if err != nil {
		return s.noSweep(ctx, err)
	}
	for _, id := range still {
		s.warn("object %v is still on a node that should not have it", id)
	}
	if left+len(still) > 0 {
		return quiet(ExitFailure)
	}
	return nil
}

// openVDIs returns the VDIs that are locked.
func (s *session) openVDIs(ctx context.Context) (map[sheep.VDIID]bool, error) {
	states, err := s.States(ctx)
	if err != nil {
		return nil, fmt.Errorf("locks cannot be listed: %s", remote.Text(err))
	}
	open := make(map[sheep.VDIID]bool)
	for _, state := range states {
		if locked(state) {
			open[state.VDI] = true
		}
	}
	return open, nil
}

// A removal is what became of one leaked object. One that was not found is
// neither removed nor an error.
type removal struct {
	id      sheep.ObjectID
	removed bool
	err     error
}

// remove removes a leaked object unless its own client can have begun to use it.
// Nobody else can, as maps are only copied from maps.
func (s *session) remove(ctx context.Context, id sheep.ObjectID, open map[sheep.VDIID]bool) removal {
	r := removal{id: id}
	if open[id.VDI()] {
		r.err = errors.New("somebody has its image open")
		return r
	}
	if r.err = s.checkUnused(ctx, id); r.err != nil {
		return r
	}
	err := s.Remove(ctx, id)
	if remote.Result(err) != proto.ResultNoObject {
		r.removed, r.err = err == nil, err
	}
	return r
}

// checkUnused looks once more into the slot that is an object's own.
func (s *session) checkUnused(ctx context.Context, id sheep.ObjectID) error {
	if k := id.Kind(); k != sheep.KindData && k != sheep.KindLedger || id.Index() >= proto.MaxMapEntries {
		return nil
	}
	slot := make([]byte, proto.MapEntrySize)
	err := s.Read(ctx, sheep.InodeObject(id.VDI()), slot, proto.MapOffset+id.Index()*proto.MapEntrySize)
	if remote.Result(err) == proto.ResultNoObject {
		return nil // a number without a VDI
	}
	if err != nil || sheep.VDIID(binary.LittleEndian.Uint32(slot)) != id.VDI() {
		return err
	}
	if h, err := s.Header(ctx, id.VDI()); err != nil || h.Deleted() {
		return err // the map is what the deletion left when all daemons died
	}
	return errInUse
}
