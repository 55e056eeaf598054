package scrub

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
)

// Node is the node that a Scrubber works for.
type Node interface {
	// IDs returns the objects that the node stores, ascending, from from on.
	IDs(from sheep.ObjectID) ([]sheep.ObjectID, error)

	// CopyOf says what the node's copy of the object is worth and what is in it,
	// read now.
	CopyOf(ctx context.Context, id sheep.ObjectID) (proto.CopyReport, error)

	// Repair replaces the node's copy by that of another member.
	Repair(ctx context.Context, id sheep.ObjectID, from netip.AddrPort) error

	// Background runs a step of background work, giving way to clients.
	Background(ctx context.Context, fn func() error) error

	// Settled reports whether all copies of the node are current in epoch e.
	Settled(e sheep.Epoch) bool

	// Policy returns how the object is made redundant, and its size.
	Policy(id sheep.ObjectID) (sheep.Policy, uint32)

	// ScrubState returns what SetScrubState has kept, nil if nothing.
	ScrubState() ([]byte, error)
	SetScrubState(b []byte) error
}

// Peers asks other members.
type Peers interface {
	Copy(ctx context.Context, to client.Peer, id sheep.ObjectID) (proto.CopyReport, error)
	Missing(ctx context.Context, to client.Peer, ids []sheep.ObjectID) ([]sheep.ObjectID, error)
	Repair(ctx context.Context, to client.Peer, id sheep.ObjectID, from netip.AddrPort) error
}

// Cluster is what a Scrubber needs of the membership.
type Cluster interface {
	View() *cluster.View
	Changed() <-chan struct{}
}

// How often things are looked at and kept that change without an event.
const (
	lookEvery = time.Second      // whether recovery has ended, or the hours have begun
	keepEvery = 15 * time.Second // how far a pass has come
)

// A Scrubber compares the copies of objects for one node.
type Scrubber struct {
	self    netip.AddrPort
	node    Node
	peers   Peers
	cluster Cluster
	cfg     Config
	log     *slog.Logger

	kept time.Time // when the state was kept last; Run's own

	mu    sync.Mutex
	state state // guarded by mu
	held  bool  // guarded by mu; a pass waits
}

// New returns the scrubber of the node at self. Nothing happens until Run.
func New(self netip.AddrPort, n Node, peers Peers, c Cluster, cfg Config, log *slog.Logger) *Scrubber {
	return &Scrubber{self: self, node: n, peers: peers, cluster: c, cfg: cfg, log: log}
}

// Report returns what was found so far.
func (s *Scrubber) Report() proto.ScrubReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := proto.ScrubReport{Last: s.state.last, Now: s.state.now, Left: slices.Clone(s.state.left)}
	if s.cfg.Every > 0 {
		r.Bits |= proto.ScrubOn
	}
	switch {
	case s.state.running():
		r.Bits |= proto.ScrubRunning
		if s.held {
			r.Bits |= proto.ScrubHeld
		}
	case s.cfg.Every > 0 && s.state.since > 0:
		r.Next = uint64(s.due().Unix())
	}
	return r
}

// due returns when the next pass begins. The caller holds mu.
func (s *Scrubber) due() time.Time {
	from := max(s.state.since, s.state.last.Ended)
	return time.Unix(int64(from), 0).Add(s.cfg.Every)
}

// Run makes one pass after the other until ctx ends.
func (s *Scrubber) Run(ctx context.Context) error {
	if s.cfg.Every == 0 {
		return nil
	}
	for {
		view, err := s.quiet(ctx)
		if err != nil {
			return nil
		}
		if !s.began(view) {
			if !s.sleep(ctx, lookEvery) {
				return nil
			}
			continue
		}
		if err := s.pass(ctx); err != nil {
			return nil // ctx has ended
		}
	}
}

// quiet returns once the cluster serves, no node is in recovery, and the hours are
// right.
func (s *Scrubber) quiet(ctx context.Context) (*cluster.View, error) {
	for {
		changed := s.cluster.Changed()
		view := s.cluster.View()
		quiet := view.Status == cluster.OK && view.Epoch != 0 && view.Self >= 0 && view.Complete() &&
			s.node.Settled(view.Epoch) && s.cfg.Hours.Has(time.Now())
		s.mu.Lock()
		s.held = !quiet
		s.mu.Unlock()
		if quiet && ctx.Err() == nil {
			return view, nil
		}
		timer := time.NewTimer(lookEvery)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
		timer.Stop()
	}
}

func (s *Scrubber) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// began reports whether a pass is under way, and begins one if it is time.
func (s *Scrubber) began(view *cluster.View) bool {
	s.load(view.Settings.Ctime)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.running() {
		return true
	}
	if time.Now().Before(s.due()) {
		return false
	}
	ids, err := s.node.IDs(0)
	if err != nil {
		s.log.Error("the scrub cannot begin", "err", err)
		return false
	}
	s.state.now = proto.ScrubPass{Began: uint64(time.Now().Unix()), Objects: uint64(len(ids))}
	s.state.cursor = 0
	return true
}

// load makes the state that of the cluster created at ctime.
func (s *Scrubber) load(ctime uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.ctime == ctime {
		return
	}
	b, err := s.node.ScrubState()
	if err == nil && b != nil {
		s.state, err = decodeState(b)
	}
	if err != nil {
		s.log.Warn("the scrub begins anew", "err", err)
	}
	if s.state.ctime != ctime {
		s.state = state{ctime: ctime, since: uint64(time.Now().Unix())}
		s.keepLocked()
	}
}

// keepLocked has the store remember how far the pass has come. The caller holds mu.
func (s *Scrubber) keepLocked() {
	s.kept = time.Now()
	if err := s.node.SetScrubState(s.state.append(nil)); err != nil {
		s.log.Error("the store does not remember how far the scrub has come", "err", err)
	}
}

// batch is how many objects are looked at before the holders are asked which of
// them they lack.
const batch = 4096

// pass goes on with the pass that is under way until its end.
func (s *Scrubber) pass(ctx context.Context) error {
	pace := pacer{rate: s.cfg.Rate}
	for {
		view, err := s.quiet(ctx)
		if err != nil {
			return err
		}
		s.mu.Lock()
		from := s.state.cursor
		s.mu.Unlock()
		ids, err := s.node.IDs(from)
		if err == nil && len(ids) == 0 {
			s.end()
			return nil
		}
		ids = ids[:min(len(ids), batch)]
		var duty []sheep.ObjectID
		if err == nil {
			duty, err = s.duty(ctx, view, ids)
		}
		if err != nil {
			s.log.Debug("the scrub waits", "err", err)
			if !s.sleep(ctx, lookEvery) {
				return context.Cause(ctx)
			}
			continue
		}
		for _, id := range duty {
			if err := s.step(ctx, id, &pace); err != nil {
				return err
			}
		}
		s.moved(ids[len(ids)-1] + 1)
	}
}

// step compares one object once all is quiet.
func (s *Scrubber) step(ctx context.Context, id sheep.ObjectID, pace *pacer) error {
	view, err := s.quiet(ctx)
	if err != nil {
		return err
	}
	var size uint32
	err = s.node.Background(ctx, func() error {
		size = s.object(ctx, view, id)
		return nil
	})
	if err != nil || ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.moved(id + 1)
	if wait := pace.spent(time.Now(), size); wait > 0 && !s.sleep(ctx, wait) {
		return context.Cause(ctx)
	}
	return nil
}

// moved says that the pass has come to the object next.
func (s *Scrubber) moved(next sheep.ObjectID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.cursor = next
	if time.Since(s.kept) >= keepEvery {
		s.keepLocked()
	}
}

// end ends the pass. What still differs stays listed until it is equal or gone.
func (s *Scrubber) end() {
	ids, err := s.node.IDs(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.left = slices.DeleteFunc(s.state.left, func(id sheep.ObjectID) bool {
		_, found := slices.BinarySearch(ids, id)
		return !found && err == nil
	})
	p := s.state.now
	p.Ended = uint64(time.Now().Unix())
	s.state.last, s.state.now, s.state.cursor = p, proto.ScrubPass{}, 0
	s.keepLocked()
	level := slog.LevelInfo
	if p.Differing > 0 {
		level = slog.LevelWarn
	}
	s.log.Log(context.Background(), level, "the scrub has compared the copies of all objects", "objects", p.Compared,
		"differing", p.Differing, "repaired", p.Repaired)
}

// A pacer keeps to a rate.
type pacer struct {
	rate uint64    // bytes a second; 0 is no limit
	free time.Time // when what was spent so far is paid for
}

// spent says that n bytes were spent, and returns how long to wait.
func (p *pacer) spent(now time.Time, n uint32) time.Duration {
	if p.rate == 0 {
		return 0
	}
	if p.free.Before(now.Add(-time.Second)) {
		p.free = now // what was not used in a pause is gone
	}
	p.free = p.free.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	return p.free.Sub(now)
}
