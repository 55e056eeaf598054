package command

import (
	"context"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/size"
)

// How objects are made: so many at once, and so many before the map is written.
const (
	fillWidth = 8
	fillBatch = 128
)

// fill makes the data objects with the given indexes of the VDI with the header
// h, each a copy of the object that source names or empty, and enters them in
// the map. The map is written after the objects, so that it never names one
// that is not there. An interrupt takes effect when that is done.
func (s *session) fill(ctx context.Context, h *proto.InodeHeader, indexes []uint32, source func(uint32) sheep.ObjectID) error {
	bar := s.newProgress(s.out, s.app.env.StdoutWidth, uint64(len(indexes))<<h.BlockShift, size.Human)
	defer bar.finish()
	requests := context.WithoutCancel(ctx)
	for len(indexes) > 0 {
		if ctx.Err() != nil {
			return interrupted()
		}
		batch := indexes[:min(fillBatch, len(indexes))]
		indexes = indexes[len(batch):]
		made := &ownMap{s: s, vdi: h.VDI}
		var failure error
		create := func(i uint32) error {
			return s.Create(requests, sheep.DataObject(h.VDI, i), source(i), nil, 0, 0)
		}
		i := 0
		for err := range remote.Ordered(values(batch), fillWidth, create) {
			switch {
			case err == nil:
				made.add(requests, batch[i])
				bar.add(1 << h.BlockShift)
			case failure == nil:
				failure = failed(err, "Failed to write object %v: %s", sheep.DataObject(h.VDI, batch[i]), remote.Text(err))
			}
			i++
		}
		made.flush(requests)
		if failure == nil {
			failure = made.err
		}
		if failure != nil {
			return failure
		}
	}
	return nil
}

// values yields s.
func values(s []uint32) func(func(uint32) bool) {
	return func(yield func(uint32) bool) {
		for _, v := range s {
			if !yield(v) {
				return
			}
		}
	}
}

// countUp returns the numbers below n.
func countUp(n int) []uint32 {
	s := make([]uint32, n)
	for i := range s {
		s[i] = uint32(i)
	}
	return s
}

// An ownMap enters objects that a VDI has come to own in its map, with one
// request for each run of neighbours.
type ownMap struct {
	s     *session
	vdi   sheep.VDIID
	flags proto.Flags

	first, count uint32 // the run that is not yet written
	err          error  // of the first write that failed
}

// maxRun is how long a run grows before it is written.
const maxRun = 64

// add says that the object with the index exists.
func (m *ownMap) add(ctx context.Context, index uint32) {
	if m.count > 0 && (index != m.first+m.count || m.count == maxRun) {
		m.flush(ctx)
	}
	if m.count == 0 {
		m.first = index
	}
	m.count++
}

// flush writes the run.
func (m *ownMap) flush(ctx context.Context) {
	if m.count == 0 {
		return
	}
	entries := make([]sheep.VDIID, m.count)
	for i := range entries {
		entries[i] = m.vdi
	}
	if err := m.s.WriteMap(ctx, m.vdi, m.first, entries, m.flags); err != nil && m.err == nil {
		m.err = failed(err, "Failed to write object %v: %s", sheep.InodeObject(m.vdi), remote.Text(err))
	}
	m.count = 0
}
