package command

import (
	"context"
	"iter"
	"slices"

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

// fill makes the data objects with the given indexes, of which there are n, of the
// VDI with the header h, each a copy of the object that source names or empty, and
// enters them in the map. The map is written after the objects, so that it never
// names one that is not there. An interrupt takes effect when that is done.
func (s *session) fill(ctx context.Context, h *proto.InodeHeader, indexes iter.Seq[uint32], n uint64, source func(uint32) sheep.ObjectID) error {
	bar := s.newProgress(s.out, s.app.env.StdoutWidth, n<<h.BlockShift, size.Human)
	defer bar.finish()
	batch := make([]uint32, 0, fillBatch)
	for i := range indexes {
		if batch = append(batch, i); len(batch) < fillBatch {
			continue
		}
		if err := s.fillBatch(ctx, h, batch, bar, source); err != nil {
			return err
		}
		batch = batch[:0]
	}
	if len(batch) == 0 {
		return nil
	}
	return s.fillBatch(ctx, h, batch, bar, source)
}

func (s *session) fillBatch(ctx context.Context, h *proto.InodeHeader, batch []uint32, bar *progress, source func(uint32) sheep.ObjectID) error {
	if ctx.Err() != nil {
		return interrupted()
	}
	requests := context.WithoutCancel(ctx)
	made := &ownMap{s: s, vdi: h.VDI, hyper: h.Hyper()}
	var failure error
	create := func(i uint32) error {
		return s.Create(requests, sheep.DataObject(h.VDI, i), source(i), nil, 0, 0)
	}
	i := 0
	for err := range remote.Ordered(slices.Values(batch), fillWidth, create) {
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
	return failure
}

// countUp yields the numbers below n.
func countUp(n uint64) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for i := uint64(0); i < n && yield(uint32(i)); i++ {
		}
	}
}

// An ownMap enters objects that a VDI has come to own in its map, with one
// request for each run of neighbours.
type ownMap struct {
	s     *session
	vdi   sheep.VDIID
	hyper bool

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
	if err := m.write(ctx); err != nil && m.err == nil {
		m.err = failed(err, "Failed to write object %v: %s", sheep.InodeObject(m.vdi), remote.Text(err))
	}
	m.count = 0
}

func (m *ownMap) write(ctx context.Context) error {
	if m.hyper {
		leaf := proto.BTreeNode{Depth: proto.BTreeLeafDepth}
		for i := range m.count {
			leaf.Entries = append(leaf.Entries, proto.BTreeEntry{Index: m.first + i, VDI: m.vdi})
		}
		inbox := sheep.Ref{ID: sheep.BTreeObject(m.vdi, proto.BTreeInbox)}
		return m.s.host().Write(ctx, inbox, &sheep.Write{Data: leaf.Append(nil), Durable: true})
	}
	entries := make([]sheep.VDIID, m.count)
	for i := range entries {
		entries[i] = m.vdi
	}
	return m.s.WriteMap(ctx, m.vdi, m.first, entries, 0)
}
