package vdi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/proto"
)

// A query names a VDI: the head of Name, or the snapshot of it that has Tag or
// SnapID, whichever matches.
type query struct {
	Name   string
	Tag    string
	SnapID uint32
}

func (q query) wantsSnapshot() bool { return q.Tag != "" || q.SnapID != 0 }

// Lookup returns the head of the name or, if tag or snapID say so, the newest of
// its snapshots that has either. It answers as the whole cluster has agreed when
// Lookup was called. It fails with sheep.ErrNoVDI, or with sheep.ErrNoTag if there
// is a head of the name but not the snapshot.
func (o *Operations) Lookup(ctx context.Context, name, tag string, snapID uint32) (sheep.VDI, error) {
	if err := o.dir.Sync(ctx); err != nil {
		return sheep.VDI{}, err
	}
	s := search{o: o, query: query{name, tag, snapID}}
	v, err := s.run(ctx)
	if len(s.stale) == 0 {
		return v, err
	}
	// An inode says otherwise than the table. It is newer if a plan is about to
	// end; to look again after the plan needs a plan.
	result, err := o.planner.Plan(ctx, PlanLookup, deletePlan{query: s.query}.encode())
	if err != nil {
		return sheep.VDI{}, err
	}
	return o.made(result)
}

// find is Lookup in what this node knows. What became a snapshot by a plan of
// the given time counts as the head that it was.
func (o *Operations) find(ctx context.Context, q query, time uint64) (sheep.VDI, error) {
	s := search{o: o, query: q, time: time}
	return s.run(ctx)
}

// A search is for the VDI that a query names.
type search struct {
	o *Operations
	query
	time    uint64
	missing bool        // a VDI without inode is the one
	stale   []sheep.VDI // what the inode says is a snapshot and the table does not
}

func (s *search) run(ctx context.Context) (sheep.VDI, error) {
	head := false
	family := s.o.named(s.Name)
	for _, v := range family {
		snapshot, err := s.isSnapshot(ctx, v)
		if !snapshot && err == nil && v.SnapID < lastSnapID(family) {
			// It has a successor: the cluster went down in the very moment
			// between the last two steps of a snapshot.
			snapshot = true
		}
		switch {
		case s.missing && errors.Is(err, sheep.ErrNoObject):
			return v, nil
		case err != nil:
			return sheep.VDI{}, err
		case !snapshot:
			if head = true; !s.wantsSnapshot() {
				return v, nil
			}
			continue
		case !s.wantsSnapshot():
			continue
		case s.SnapID != 0 && v.SnapID == s.SnapID:
			return v, nil
		case s.Tag == "":
			continue
		}
		tag, err := s.o.readField(ctx, v, tagField, proto.LabelSize)
		switch {
		case s.missing && errors.Is(err, sheep.ErrNoObject):
			return v, nil
		case err != nil:
			return sheep.VDI{}, err
		case proto.Text(tag) == s.Tag:
			return v, nil
		}
	}
	if head {
		return sheep.VDI{}, fmt.Errorf("VDI %q tag %q id %d: %w", s.Name, s.Tag, s.SnapID, sheep.ErrNoTag)
	}
	return sheep.VDI{}, fmt.Errorf("VDI %q: %w", s.Name, sheep.ErrNoVDI)
}

// isSnapshot reports whether v is a snapshot. That the table has it as none does
// not mean much after the restore of a cluster, where clients write inodes
// themselves; it is looked up then.
func (s *search) isSnapshot(ctx context.Context, v sheep.VDI) (bool, error) {
	if v.Snapshot {
		return true, nil
	}
	b, err := s.o.readField(ctx, v, snapTimeField, 8)
	if err != nil {
		return false, err
	}
	when := binary.LittleEndian.Uint64(b)
	if when == 0 || when == s.time {
		return false, nil
	}
	s.stale = append(s.stale, v)
	return true, nil
}

// named returns the VDIs of the name that are not deleted, the newest first:
// numbers are given upwards from the hash of the name, with a wrap at the end.
func (o *Operations) named(name string) []sheep.VDI {
	list := slices.DeleteFunc(slices.Clone(o.dir.VDIsNamed(name)), func(v sheep.VDI) bool { return v.Deleted })
	start := firstNumber(name)
	age := func(v sheep.VDI) uint32 { return uint32(v.ID-start) & (sheep.MaxVDIs - 1) }
	slices.SortFunc(list, func(a, b sheep.VDI) int { return int(age(b)) - int(age(a)) })
	return list
}

func (o *Operations) readField(ctx context.Context, v sheep.VDI, off uint32, n int) ([]byte, error) {
	b := make([]byte, n)
	if err := o.next.Read(ctx, Ref(v, sheep.InodeObject(v.ID)), b, off); err != nil {
		return nil, fmt.Errorf("read inode of VDI %v: %w", v.ID, err)
	}
	return b, nil
}

// nextSnapID returns the snapshot id of a new head of the name.
func (o *Operations) nextSnapID(name string) uint32 {
	return lastSnapID(o.named(name)) + 1
}

func lastSnapID(list []sheep.VDI) uint32 {
	last := uint32(0)
	for _, v := range list {
		last = max(last, v.SnapID)
	}
	return last
}

// firstNumber returns the number that the first VDI of the name gets if it is free.
func firstNumber(name string) sheep.VDIID { return max(placement.HashName(name), 1) }

// freeNumber returns the number of a new VDI of the name.
func (o *Operations) freeNumber(name string) (sheep.VDIID, error) {
	used := o.dir.UsedBitmap()
	start := firstNumber(name)
	if o.dir.Defaults().Recycle {
		start = 1
	}
	v := firstClear(used, start, sheep.MaxVDIs)
	if v == 0 {
		v = firstClear(used, 1, start)
	}
	if v == 0 {
		return 0, sheep.ErrFullVDI
	}
	return v, nil
}

// firstClear returns the first number in [from, to) whose bit is clear, or 0.
func firstClear(used []byte, from, to sheep.VDIID) sheep.VDIID {
	for v := from; v < to; v++ {
		if v%64 == 0 && v+64 <= to && binary.LittleEndian.Uint64(used[v/8:]) == ^uint64(0) {
			v += 63
			continue
		}
		if used[v/8]&(1<<(v%8)) == 0 {
			return v
		}
	}
	return 0
}
