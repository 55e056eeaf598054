package replica

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// How background work gives way.
const (
	busyRate    = 50                     // requests a second from which on clients are at work
	busyWindow  = 100 * time.Millisecond // over which they are counted, at least
	busyMemory  = time.Second            // and at most
	maxCourtesy = 400 * time.Millisecond // that a step of background work pauses, at most
)

// A courtesy lets background work give way to requests: while there are some, its
// steps run one at a time, each followed by a pause of twice the time that it took.
type courtesy struct {
	served atomic.Uint64 // requests of clients so far
	lane   chan struct{} // has room for one: who put it in has the lane

	mu    sync.Mutex
	since time.Time // guarded by mu; the window began
	count uint64    // guarded by mu; served at that time
	busy  bool      // guarded by mu; in the window before

	elsewhere time.Time // guarded by mu; when another node was last known to be busy
}

func newCourtesy() *courtesy { return &courtesy{lane: make(chan struct{}, 1)} }

// isBusy reports whether clients were at work lately, on this node or on one that
// it works with.
func (c *courtesy) isBusy(now time.Time) bool {
	if c.serves(now) {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Sub(c.elsewhere) < busyMemory
}

// serves reports whether this node has lately served clients.
func (c *courtesy) serves(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	past := now.Sub(c.since)
	if past < busyWindow {
		return c.busy
	}
	served := c.served.Load()
	c.busy = past < busyMemory && float64(served-c.count) >= busyRate*past.Seconds()
	c.since, c.count = now, served
	return c.busy
}

// NoteBusy says that another node, which background work makes use of, serves
// clients at the moment.
func (r *Replica) NoteBusy() {
	r.courtesy.mu.Lock()
	defer r.courtesy.mu.Unlock()
	r.courtesy.elsewhere = time.Now()
}

// Background runs a step of background work, giving way to the requests that this
// node, or one that said so, serves. It returns what fn returns, or why ctx has ended before fn began.
func (r *Replica) Background(ctx context.Context, fn func() error) error {
	c := r.courtesy
	if !c.isBusy(time.Now()) {
		return fn()
	}
	select {
	case c.lane <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-c.lane }()
	began := time.Now()
	err := fn()
	pause := time.NewTimer(min(2*time.Since(began), maxCourtesy))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
	}
	return err
}
