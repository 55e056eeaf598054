package flight

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sheepdog/sheep"
)

// scanEvery is how often requests are looked at whose deadline may have passed:
// it is kept to within so much.
const scanEvery = 250 * time.Millisecond

// maxAbandoned bounds the bytes of the writes to one VDI that go on without
// their clients.
const maxAbandoned = 64 << 20

// changeCost is what a request that goes on without its client counts for beside
// its data.
const changeCost = 1 << 10

// errPassed ends the context of a request at its deadline.
var errPassed = errors.New("the deadline has passed")

// A limit is the deadline of a request. The zero limit is none.
type limit struct {
	duration time.Duration
	cancel   context.CancelCauseFunc
	over     chan struct{}           // closed at the deadline
	cause    atomic.Pointer[Request] // what the request was then
}

func (l *limit) passed() bool { return l.duration != 0 && l.cause.Load() != nil }

// A DeadlineError is the end of a client's wait for a request. The request may
// have been carried out, or still be. It is a sheep.ErrIO.
type DeadlineError struct {
	Request  Request
	Deadline time.Duration
}

func (e *DeadlineError) Error() string {
	r := e.Request
	var b strings.Builder
	fmt.Fprintf(&b, "%v object %v: given up after %v", r.Op, r.ID, e.Deadline)
	if r.State != Working {
		fmt.Fprintf(&b, ", waiting for: %v", r.State)
	}
	for _, n := range r.Nodes {
		fmt.Fprintf(&b, " %v", n)
	}
	if r.Epoch != 0 {
		fmt.Fprintf(&b, " in epoch %d", r.Epoch)
	}
	if r.Reason != nil {
		fmt.Fprintf(&b, " (%v)", r.Reason)
	}
	return b.String()
}

// Unwrap returns sheep.ErrIO.
func (e *DeadlineError) Unwrap() error { return sheep.ErrIO }

// Run ends the waits of clients whose deadline has passed, until ctx ends.
func (t *Table) Run(ctx context.Context) error {
	tick := time.NewTicker(scanEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if t.limited.Load() > 0 {
				t.scan(time.Now())
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// scan ends the waits that are over at the time now.
func (t *Table) scan(now time.Time) {
	var over []*Flight
	for i := range t.lists {
		s := &t.lists[i]
		s.mu.Lock()
		for f := s.first; f != nil; f = f.next {
			if d := f.limit.duration; d != 0 && now.Sub(f.since) >= d && !f.limit.passed() {
				f.limit.cause.Store(new(f.request(now)))
				over = append(over, f)
			}
		}
		s.mu.Unlock()
	}
	for _, f := range over {
		f.limit.cancel(errPassed)
		close(f.limit.over)
		t.tell(*f.limit.cause.Load(), f.limit.duration)
	}
}

// tell logs that a client has got an error.
func (t *Table) tell(r Request, after time.Duration) {
	args := []any{"op", r.Op, "oid", r.ID, "vdi", r.ID.VDI(), "after", after, "state", r.State, "client", r.Client}
	if len(r.Nodes) > 0 {
		args = append(args, "node", r.Nodes)
	}
	if r.Epoch != 0 {
		args = append(args, "epoch", r.Epoch)
	}
	if r.Reason != nil {
		args = append(args, "err", r.Reason)
	}
	t.cfg.Log.Warn("a client's request was given up at its deadline", args...)
}

// limit gives f, which nobody else knows yet, the deadline d, if a client waits
// for it.
func (t *Table) limit(f *Flight, d time.Duration) {
	if _, ok := sheep.ClientOf(f.Context); !ok {
		return
	}
	caller, cancel := context.WithCancelCause(sheep.Caller(f.Context))
	if f.op.changes() {
		f.Context = sheep.WithCaller(f.Context, caller)
	} else {
		f.Context = caller
	}
	f.limit.duration, f.limit.cancel, f.limit.over = d, cancel, make(chan struct{})
	t.limited.Add(1)
}

// unlimit lets go of what limit took.
func (t *Table) unlimit(f *Flight) {
	f.limit.cancel(nil)
	t.limited.Add(-1)
}

// done ends a request and returns what the client gets.
func (t *Table) done(f *Flight, err error) error {
	limited := f.limit.duration != 0
	t.leave(f)
	if !limited {
		return err // f is somebody else's by now
	}
	return f.limit.outcome(err)
}

// outcome returns what the client gets for the outcome err of its request.
func (l *limit) outcome(err error) error {
	if r := l.cause.Load(); r != nil && err != nil {
		return &DeadlineError{Request: *r, Deadline: l.duration}
	}
	return err
}

// detach runs fn, which has size bytes, for as long as it takes, and returns when
// it has ended or the client stops waiting.
func (t *Table) detach(f *Flight, size int, fn func() error) error {
	vdi, size := f.id.VDI(), size+changeCost
	if t.abandoned.full(vdi) {
		return t.done(f, fmt.Errorf("%w: %v object %v: %d MiB that were given up are still on their way to VDI %v",
			sheep.ErrIO, f.op, f.id, maxAbandoned>>20, vdi))
	}
	ended := make(chan error, 1)
	var left atomic.Bool // by the first of the client and the request
	go func() {
		err := fn()
		t.leave(f)
		if !left.CompareAndSwap(false, true) {
			t.abandoned.add(vdi, -size)
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		return f.limit.outcome(err)
	case <-f.limit.over:
	}
	t.abandoned.add(vdi, size)
	if !left.CompareAndSwap(false, true) {
		t.abandoned.add(vdi, -size)
	}
	return f.limit.outcome(errPassed)
}

// abandoned counts what goes on without its clients.
type abandoned struct {
	total atomic.Int64 // so that the map is looked at only if there is something in it

	mu    sync.Mutex
	bytes map[sheep.VDIID]int // guarded by mu
}

func (a *abandoned) full(vdi sheep.VDIID) bool {
	if a.total.Load() == 0 {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bytes[vdi] >= maxAbandoned
}

func (a *abandoned) add(vdi sheep.VDIID, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.bytes == nil {
		a.bytes = make(map[sheep.VDIID]int)
	}
	if a.bytes[vdi] += n; a.bytes[vdi] <= 0 {
		delete(a.bytes, vdi)
	}
	a.total.Add(int64(n))
}
