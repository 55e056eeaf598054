package flight

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sheepdog/sheep"
)

// shards is how many lists a Table has. A Flight stays in one, and is used again
// by the processor that has used it before, so that lists are hardly shared.
const shards = 16

// Config is what a Table can do without.
type Config struct {
	// Deadline returns how long clients wait for requests to a VDI; 0 is for
	// ever. nil means that all wait for ever.
	Deadline func(sheep.VDIID) time.Duration

	Log *slog.Logger // nil discards
}

// A Table holds the requests in flight on one node.
type Table struct {
	cfg Config

	lists   [shards]shard
	spare   sync.Pool     // of *Flight
	made    atomic.Uint32 // flights so far
	limited atomic.Int64  // flights with a deadline

	abandoned abandoned
}

// A shard is a list of flights, with room to the next so that processors do not
// share a cache line.
type shard struct {
	mu    sync.Mutex
	first *Flight // guarded by mu
	_     [48]byte
}

// NewTable returns an empty table.
func NewTable(cfg Config) *Table {
	if cfg.Deadline == nil {
		cfg.Deadline = func(sheep.VDIID) time.Duration { return 0 }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Table{cfg: cfg}
}

// Slow returns the requests that have been in flight for at least age, the
// oldest first.
func (t *Table) Slow(age time.Duration) []Request {
	now := time.Now()
	var slow []Request
	for i := range t.lists {
		s := &t.lists[i]
		s.mu.Lock()
		for f := s.first; f != nil; f = f.next {
			if now.Sub(f.since) >= age {
				slow = append(slow, f.request(now))
			}
		}
		s.mu.Unlock()
	}
	slices.SortFunc(slow, func(a, b Request) int { return cmp.Or(cmp.Compare(b.Age, a.Age), cmp.Compare(a.ID, b.ID)) })
	return slow
}

// enter enters a request.
func (t *Table) enter(ctx context.Context, op Op, id sheep.ObjectID) *Flight {
	f, ok := t.spare.Get().(*Flight)
	if !ok {
		f = &Flight{shard: &t.lists[t.made.Add(1)%shards]}
	}
	f.Context, f.op, f.id, f.since = ctx, op, id, time.Now()
	if d := t.cfg.Deadline(id.VDI()); d > 0 {
		t.limit(f, d)
	}
	s := f.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.next = s.first; f.next != nil {
		f.next.prev = f
	}
	s.first = f
	return f
}

// leave ends a request.
func (t *Table) leave(f *Flight) {
	s := f.shard
	s.mu.Lock()
	if f.prev != nil {
		f.prev.next = f.next
	} else {
		s.first = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	}
	f.next, f.prev = nil, nil
	s.mu.Unlock()
	if f.limit.duration != 0 {
		t.unlimit(f)
		return // whoever waited for it looks at it once more
	}
	f.Waits(Working, 0, nil)
	f.Context = context.Background()
	t.spare.Put(f)
}
