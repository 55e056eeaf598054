package cluster

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sheepdog/sheep"
)

// errStopped is what calls get after Run has returned without a reason.
var errStopped = fmt.Errorf("%w: this node has left the cluster", sheep.ErrCluster)

// A Cluster is this node's part in the cluster. All methods may be called
// concurrently, also before and after Run; those that propose something wait
// until it is applied here, their context is done, or Run has returned.
type Cluster struct {
	cfg  Config            // set once
	self sheep.Node        // set once
	inc  sheep.Incarnation // set once
	log  *slog.Logger      // set once

	view atomic.Pointer[View]
	seq  atomic.Uint64 // of the latest proposal

	sessions atomic.Uint64 // so far

	lease atomic.Bool // this node is a member and was not stopped

	mu    sync.RWMutex // taken for reading by look-ups, for writing by the apply goroutine alone
	state *state       // guarded by mu

	waitMu  sync.Mutex
	waiting map[uint64]chan<- outcome // guarded by waitMu; proposals by sequence number
	planned map[uint64]chan<- outcome // guarded by waitMu; plans by index
	failed  map[uint64]error          // guarded by waitMu; errors of plans that this node has executed
	stopped error                     // guarded by waitMu; set when nothing is applied any more

	changed  event // a new view was published
	advanced event // an owner has changed

	applying applier // of the apply goroutine
}

// An outcome is what became of a proposal.
type outcome struct {
	index     uint64    // of its entry
	ownership Ownership // of the VDI that an Own was about, after it
	result    []byte    // of a plan
	err       error
}

// New returns the cluster of cfg. It does nothing before Run.
func New(cfg Config) *Cluster {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Incarnation == 0 {
		cfg.Incarnation = randomIncarnation()
	}
	cfg.Node = canonical(cfg.Node)
	c := &Cluster{
		cfg:     cfg,
		self:    cfg.Node,
		inc:     cfg.Incarnation,
		log:     cfg.Log.With("incarnation", cfg.Incarnation),
		state:   newState(),
		waiting: map[uint64]chan<- outcome{},
		planned: map[uint64]chan<- outcome{},
		failed:  map[uint64]error{},
	}
	c.applying.epoch = cfg.History.Epoch
	c.applying.ctime = cfg.History.Settings.Ctime
	h := cfg.History
	c.view.Store(&View{
		Status:      Wait,
		Epoch:       h.Epoch,
		EpochTime:   h.Time,
		Nodes:       h.Nodes,
		Ring:        newRing(h.Nodes),
		Settings:    h.Settings,
		ForcedEpoch: h.Forced,
		HealedEpoch: h.Healed,
		Self:        -1,
	})
	return c
}

// randomIncarnation returns a number that no other process has.
func randomIncarnation() sheep.Incarnation {
	var b [8]byte
	for {
		rand.Read(b[:])
		if inc := sheep.Incarnation(le.Uint64(b[:])); inc != 0 {
			return inc
		}
	}
}

// canonical returns n as the log carries it: without address zones, and
// without space if it is a gateway, so that automatic weights leave it out.
func canonical(n sheep.Node) sheep.Node {
	n.Addr = netip.AddrPortFrom(n.Addr.Addr().Unmap().WithZone(""), n.Addr.Port())
	n.IOAddr = netip.AddrPortFrom(n.IOAddr.Addr().Unmap().WithZone(""), n.IOAddr.Port())
	if !n.IOAddr.Addr().IsValid() {
		n.IOAddr = netip.AddrPort{}
	}
	if n.VNodes == 0 {
		n.Space = 0
	}
	return n
}

// Run makes this node a member and applies the log until ctx is done, which
// makes it leave, or its membership ends. It returns nil if it left because of
// ctx, else why the membership ended.
func (c *Cluster) Run(ctx context.Context) error {
	h := hello{
		version:  protocolVersion,
		fixed:    c.cfg.FixedVNodes,
		node:     c.self,
		epoch:    c.cfg.History.Epoch,
		forced:   c.cfg.History.Forced,
		healed:   c.cfg.History.Healed,
		time:     unixNano(c.cfg.History.Time),
		settings: c.cfg.History.Settings,
		nodes:    c.cfg.History.Nodes,
		owed:     uint32(len(c.cfg.History.VDIs)),
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.applying.ctx, c.applying.cancel = ctx, cancel
	c.applying.wg.Go(func() { c.startInTime(ctx) })
	err := c.cfg.Driver.Run(ctx, Self{Incarnation: c.inc, Hello: h.append(nil), Health: c.cfg.Health}, machine{c})
	c.lease.Store(false)
	if c.applying.reason != nil {
		err = c.applying.reason
	}
	cancel(err)
	c.end(err)
	c.applying.wg.Wait()
	return err
}

// end fails everything that waits.
func (c *Cluster) end(reason error) {
	v := *c.View()
	v.Status, v.Joined = Killed, false
	if reason != nil {
		c.stopHook(reason)
	} else {
		reason = errStopped
	}
	c.waitMu.Lock()
	c.stopped = reason
	for _, ch := range c.waiting {
		ch <- outcome{err: reason}
	}
	for _, ch := range c.planned {
		ch <- outcome{err: reason}
	}
	clear(c.waiting)
	clear(c.planned)
	c.waitMu.Unlock()
	c.view.Store(&v)
	c.changed.fire()
	c.advanced.fire()
}

// Incarnation returns the number of this life of the daemon.
func (c *Cluster) Incarnation() sheep.Incarnation { return c.inc }

// Node returns this node as it was given to New.
func (c *Cluster) Node() sheep.Node { return c.self }

// View returns the present view. It is never nil.
func (c *Cluster) View() *View { return c.view.Load() }

// Changed returns a channel that is closed when the view changes after the
// call. Take it before View, and no change is missed.
func (c *Cluster) Changed() <-chan struct{} { return c.changed.channel() }

// Wait returns nil once ok has returned true for a view. It calls ok with the
// present view first.
func (c *Cluster) Wait(ctx context.Context, ok func(*View) bool) error {
	for {
		changed := c.Changed()
		if ok(c.View()) {
			return nil
		}
		if err := c.stopReason(); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// WaitEpoch returns nil once this node has installed epoch e or a later one.
func (c *Cluster) WaitEpoch(ctx context.Context, e sheep.Epoch) error {
	if err := c.Wait(ctx, func(v *View) bool { return v.Epoch >= e }); err != nil {
		return fmt.Errorf("wait for epoch %d: %w", e, err)
	}
	return nil
}

// Sync returns nil when this node has applied everything that any node had
// logged before the call: reading after it is reading the newest state.
func (c *Cluster) Sync(ctx context.Context) error {
	if err := c.cfg.Driver.Sync(ctx); err != nil {
		return fmt.Errorf("sync with the cluster: %w", err)
	}
	return nil
}

// Lease returns nil while this node may answer requests: it is a member, and
// no other node can have taken it for dead. It is cheap.
func (c *Cluster) Lease() error {
	if !c.lease.Load() {
		if err := c.stopReason(); err != nil {
			return err
		}
		return fmt.Errorf("%w: this node is not a member yet", sheep.ErrCluster)
	}
	return c.cfg.Driver.Lease()
}

func (c *Cluster) stopReason() error {
	c.waitMu.Lock()
	defer c.waitMu.Unlock()
	return c.stopped
}

// propose logs a message and waits until it is applied here.
func (c *Cluster) propose(ctx context.Context, m message) (outcome, error) {
	done := make(chan outcome, 1)
	seq := c.seq.Add(1)
	data := appendMessage(nil, seq, m)
	if len(data) > MaxMessage {
		return outcome{}, fmt.Errorf("%w: a message of %d bytes", sheep.ErrInvalid, len(data))
	}
	if err := c.await(seq, done); err != nil {
		return outcome{}, err
	}
	if err := c.cfg.Driver.Propose(ctx, data); err != nil {
		c.forget(seq)
		return outcome{}, err
	}
	select {
	case out := <-done:
		return out, out.err
	case <-ctx.Done():
		c.forget(seq)
		return outcome{}, context.Cause(ctx)
	}
}

func (c *Cluster) await(seq uint64, done chan<- outcome) error {
	c.waitMu.Lock()
	defer c.waitMu.Unlock()
	if c.stopped != nil {
		return c.stopped
	}
	c.waiting[seq] = done
	return nil
}

func (c *Cluster) forget(seq uint64) {
	c.waitMu.Lock()
	defer c.waitMu.Unlock()
	delete(c.waiting, seq)
}

// An event wakes those that wait for its next occurrence. The zero value is ready.
type event struct {
	mu sync.Mutex
	ch chan struct{} // guarded by mu; nil if nobody waits
}

func (e *event) channel() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ch == nil {
		e.ch = make(chan struct{})
	}
	return e.ch
}

func (e *event) fire() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ch != nil {
		close(e.ch)
		e.ch = nil
	}
}

// unixNano returns how the log has a time: nanoseconds since 1970, 0 for none.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// unixTime is the inverse of unixNano.
func unixTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
