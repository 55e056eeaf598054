package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/vdi"
)

// A client makes an object before it enters it into the map, so an object only
// counts as leaked if two looks at the maps find nobody who refers to it. This is
// how long the clients have between the two, and how long before objects are
// removed.
const (
	leakPause  = 2 * time.Second
	sweepPause = 10 * time.Second
)

// checkLeaks looks for leaked objects and, if the options say so, removes them.
// damaged is why images are not all in order, if they are not: then nothing is
// removed, as a map may be among what is damaged.
func (s *session) checkLeaks(ctx context.Context, damaged error) error {
	leaked, err := s.findLeaks(ctx)
	if err != nil {
		return s.noSweep(ctx, err)
	}
	if len(leaked) == 0 {
		return damaged
	}
	for _, id := range leaked {
		s.print("leaked object %v\n", id)
	}
	s.print("found %d leaked object(s), which no image refers to\n", len(leaked))
	switch {
	case !s.opts.sweep:
		return fail(ExitFailure, "'%s cluster check --sweep' removes leaked objects", s.app.env.Program)
	case damaged != nil:
		return fail(ExitFailure, "Nothing is removed while images are damaged")
	case !s.opts.force:
		if err := s.confirm(caution("Caution! Removed objects cannot be restored.", sure)); err != nil {
			return err
		}
	}
	return s.sweep(ctx, leaked)
}

// noSweep returns the failure of a sweep that err has prevented.
func (s *session) noSweep(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return interrupted()
	}
	return fail(ExitFailure, "Leaked objects cannot be told from others: %v", err)
}

// findLeaks returns the objects that no VDI refers to, in ascending order.
func (s *session) findLeaks(ctx context.Context) ([]sheep.ObjectID, error) {
	var err error
	if s.nodes, err = s.Membership(ctx); err != nil {
		return nil, fmt.Errorf("the nodes cannot be listed: %s", remote.Text(err))
	}
	s.epoch = s.nodes.Epoch
	ids, err := s.stored(ctx)
	if err != nil {
		return nil, err
	}
	if ids, err = s.unreferenced(ctx, ids); err != nil || len(ids) == 0 {
		return nil, err
	}
	wait := leakPause
	if s.opts.sweep {
		wait = sweepPause
	}
	if err := s.app.env.Pause(ctx, wait); err != nil {
		return nil, err
	}
	if ids, err = s.unreferenced(ctx, ids); err != nil || len(ids) == 0 {
		return nil, err
	}
	return s.present(ctx, ids)
}

// storing yields the nodes that store objects.
func (s *session) storing() iter.Seq[sheep.Node] {
	return func(yield func(sheep.Node) bool) {
		for _, n := range s.nodes.Nodes {
			if n.VNodes > 0 && !yield(n) {
				return
			}
		}
	}
}

// stored returns the objects of all nodes that could leak, in ascending order.
func (s *session) stored(ctx context.Context) ([]sheep.ObjectID, error) {
	var all []sheep.ObjectID
	for n := range s.storing() {
		ids, err := s.Stored(ctx, n, s.epoch)
		if remote.Result(err) == proto.ResultWaitForFormat {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the objects of node %v cannot be listed: %s", n, remote.Text(err))
		}
		for _, id := range ids {
			if k := id.Kind(); k != sheep.KindInode && k != sheep.KindAttr {
				all = append(all, id)
			}
		}
		slices.Sort(all)
		all = slices.Compact(all)
	}
	return all, nil
}

// unreferenced returns those of ids that no VDI refers to at the moment.
func (s *session) unreferenced(ctx context.Context, ids []sheep.ObjectID) ([]sheep.ObjectID, error) {
	for range looks {
		before, err := s.Used(ctx)
		if err != nil {
			return nil, fmt.Errorf("images cannot be listed: %s", remote.Text(err))
		}
		sweep, err := s.readMaps(ctx)
		if err != nil {
			return nil, err
		}
		// A VDI that was made meanwhile may have got the objects of one that
		// was deleted before its map was read.
		after, err := s.Used(ctx)
		if err != nil {
			return nil, fmt.Errorf("images cannot be listed: %s", remote.Text(err))
		}
		if bytes.Equal(before, after) {
			return slices.Collect(sweep.All(slices.Values(ids))), nil
		}
	}
	return nil, errors.New("images are being made")
}

// mapWidth is how many maps, of 4 MB, are read at once.
const mapWidth = 4

// readMaps returns what the maps of all VDIs say. It fails if there is one that
// cannot be read.
func (s *session) readMaps(ctx context.Context) (*vdi.Sweep, error) {
	vdis, err := s.everyVDI(ctx)
	if err != nil {
		return nil, err
	}
	sweep := vdi.NewSweep()
	for m := range remote.Ordered(slices.Values(vdis), mapWidth, func(v sheep.VDI) heldMap {
		return s.holdMap(ctx, v)
	}) {
		if m.err == nil {
			m.err = sweep.Add(ctx, m, m.vdi)
		}
		if m.err != nil {
			return nil, unreadable(m.vdi.ID, m.err)
		}
	}
	return sweep, nil
}

func unreadable(id sheep.VDIID, err error) error {
	return fmt.Errorf("object %v cannot be read: %s", sheep.InodeObject(id), remote.Text(err))
}

// everyVDI returns all VDIs, as a vdi.Sweep needs them. A VDI only counts as
// deleted if it has no name either: C's daemons mark VDIs whose maps they keep.
func (s *session) everyVDI(ctx context.Context) ([]sheep.VDI, error) {
	listed, err := s.VDIs(ctx, remote.Query{All: true})
	if err != nil {
		return nil, fmt.Errorf("images cannot be listed: %s", remote.Text(err))
	}
	var all []sheep.VDI
	for l := range listed {
		if l.Err != nil {
			return nil, unreadable(l.VDI, l.Err)
		}
		all = append(all, sheep.VDI{ID: l.VDI, Name: l.Header.Name, Hyper: l.Header.Hyper(), Deleted: l.Deleted && l.Header.Deleted()})
	}
	return all, nil
}

// A heldMap is the map of a VDI in memory, which it is read from as from the
// inode. That of a hyper volume is read when it is needed.
type heldMap struct {
	s     *session
	vdi   sheep.VDI
	slots []byte
	err   error
}

// holdMap reads the map of v, if it has one.
func (s *session) holdMap(ctx context.Context, v sheep.VDI) heldMap {
	m := heldMap{s: s, vdi: v}
	if !v.Deleted && !v.Hyper {
		m.slots = make([]byte, proto.MaxMapEntries*proto.MapEntrySize)
		m.err = s.Read(ctx, sheep.InodeObject(v.ID), m.slots, proto.MapOffset)
	}
	return m
}

// Read implements vdi.Reader.
func (m heldMap) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	if m.vdi.Hyper {
		return m.s.Read(ctx, ref.ID, p, off)
	}
	if off < proto.MapOffset || uint64(off)+uint64(len(p)) > proto.MapEnd {
		return fmt.Errorf("%w: %d bytes at %d are not in the map", sheep.ErrInvalid, len(p), off)
	}
	copy(p, m.slots[off-proto.MapOffset:])
	return nil
}

// present returns those of ids that some node has: C's daemons may list objects
// that are no longer there.
func (s *session) present(ctx context.Context, ids []sheep.ObjectID) ([]sheep.ObjectID, error) {
	absent := ids
	for n := range s.storing() {
		var rest []sheep.ObjectID
		for batch := range slices.Chunk(absent, existBatch) {
			missing, err := s.Missing(ctx, n, batch)
			if err != nil {
				return nil, fmt.Errorf("node %v does not say which objects it has: %s", n, remote.Text(err))
			}
			rest = append(rest, missing...)
		}
		absent = rest
	}
	gone := make(map[sheep.ObjectID]bool, len(absent))
	for _, id := range absent {
		gone[id] = true
	}
	var have []sheep.ObjectID
	for _, id := range ids {
		if !gone[id] {
			have = append(have, id)
		}
	}
	return have, nil
}
