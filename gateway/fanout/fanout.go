// Package fanout turns a request for an object into requests to the nodes that
// hold its copies.
//
// Placement names the holders for one epoch. A read asks this node's own copy
// first and the others in turn; a write goes to all copies at once and is
// answered when every copy of the current epoch has taken it. If one did not,
// because its node died or moved to another epoch, the fan-out waits for the
// next epoch and sends the whole write again: that loop, in retry.go, is the
// only one of its kind. A client therefore sees neither half a write as a
// success nor an error that waiting could have avoided.
//
// The fan-out remembers which incarnations of which nodes have answered
// deferred writes, so that a flush can tell whether what it makes durable is
// still all there.
package fanout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"sheepdog/gateway/flight"
	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/replica"
)

// Cluster is what the fan-out needs of the membership.
type Cluster interface {
	View() *cluster.View
	Changed() <-chan struct{}
}

// Peers sends requests to other nodes in the peer role.
type Peers interface {
	Read(ctx context.Context, to client.Peer, ref sheep.Ref, p []byte, off uint32) error
	StartWrite(ctx context.Context, to client.Peer, ref sheep.Ref, w *sheep.Write, done func(error))
	Remove(ctx context.Context, to client.Peer, ref sheep.Ref) error
	Flush(ctx context.Context, to client.Peer, e sheep.Epoch, vdi sheep.VDIID) error
}

var (
	_ sheep.Objects = (*Fanout)(nil)
	_ sheep.Flusher = (*Fanout)(nil)
)

// A Fanout stores objects on the nodes of the cluster.
type Fanout struct {
	cluster Cluster
	local   *replica.Replica
	peers   Peers
	log     *slog.Logger

	deferred deferred
	groups   sync.Pool             // of *group
	rotation atomic.Uint32         // which remote copy a read asks first
	current  atomic.Pointer[nodes] // of the newest view that a request has met
}

// New returns a fan-out over the copy of this node, local, and those of peers.
func New(c Cluster, local *replica.Replica, peers Peers, log *slog.Logger) *Fanout {
	f := &Fanout{cluster: c, local: local, peers: peers, log: log}
	f.rotation.Store(rand.Uint32())
	return f
}

// Read fills p from the nearest copy of the object.
func (f *Fanout) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	return f.retry(ctx, "read", ref.ID, func(v *nodes) error {
		ref.Epoch = v.Epoch
		holders, err := place(v, ref)
		if err != nil {
			return err
		}
		return f.readAny(ctx, v, ref, holders.list(), p, off)
	})
}

// readAny asks the holders one after the other, this node first, and those last
// that stand in for absent nodes. An object that no holder has does not exist; any
// other failure of all of them is reported.
func (f *Fanout) readAny(ctx context.Context, v *nodes, ref sheep.Ref, holders []int, p []byte, off uint32) error {
	var failed error
	missing := 0
	try := func(i int) bool {
		err := f.readFrom(ctx, v, i, ref, p, off)
		if err == nil {
			failed = nil
			return true
		}
		if errors.Is(err, sheep.ErrNoObject) {
			missing++
		} else {
			failed = errors.Join(failed, err)
		}
		return false
	}
	n := v.prefer(ref, holders)
	for _, group := range [...][]int{holders[:n], holders[n:]} {
		for _, i := range group {
			if i == v.Self && try(i) {
				return nil
			}
		}
		first := int(f.rotation.Add(1))
		for k := range group {
			i := group[(first+k)%len(group)]
			if i != v.Self && try(i) {
				return nil
			}
		}
	}
	if missing == len(holders) {
		return fmt.Errorf("read object %v: %w", ref.ID, sheep.ErrNoObject)
	}
	return failed
}

func (f *Fanout) readFrom(ctx context.Context, v *nodes, i int, ref sheep.Ref, p []byte, off uint32) error {
	flight.Of(ctx).Asks(v.Epoch, v.Nodes, []int{i}, v.Self)
	if i == v.Self {
		return f.local.Read(ctx, ref, p, off)
	}
	return f.peers.Read(ctx, v.peers[i], ref, p, off)
}

// Write changes every copy of the object.
func (f *Fanout) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	return f.retry(ctx, "write", ref.ID, func(v *nodes) error {
		ref.Epoch = v.Epoch
		holders, err := placeForWrite(v, ref)
		if err != nil {
			return err
		}
		if err := f.writeAll(ctx, v, ref, w, holders.list()); err != nil {
			return err
		}
		if !w.Durable {
			f.deferred.note(v, ref.ID.VDI(), holders.list())
		}
		return nil
	})
}

// writeAll sends w to all holders at once and waits for all answers. This
// node's own copy comes last: it is written while the others travel.
func (f *Fanout) writeAll(ctx context.Context, v *nodes, ref sheep.Ref, w *sheep.Write, holders []int) error {
	g := f.group(len(holders))
	g.flight = flight.Of(ctx)
	g.turn = g.flight.Asks(v.Epoch, v.Nodes, holders, v.Self)
	own := -1
	for k, i := range holders {
		if i == v.Self {
			own = k
			continue
		}
		f.peers.StartWrite(ctx, v.peers[i], ref, w, g.answers[k])
	}
	if own >= 0 {
		f.local.StartWrite(ctx, ref, w, g.answers[own])
	}
	err := g.wait()
	f.groups.Put(g)
	return err
}

// Remove removes every copy of the object. If there was none it returns
// sheep.ErrNoObject.
func (f *Fanout) Remove(ctx context.Context, ref sheep.Ref) error {
	return f.retry(ctx, "remove", ref.ID, func(v *nodes) error {
		ref.Epoch = v.Epoch
		holders, err := place(v, ref)
		if err != nil {
			return err
		}
		var wg sync.WaitGroup
		errs := make([]error, holders.n)
		fl := flight.Of(ctx)
		turn := fl.Asks(v.Epoch, v.Nodes, holders.list(), v.Self)
		for k, i := range holders.list() {
			wg.Go(func() {
				defer fl.Answered(turn, k)
				if i == v.Self {
					errs[k] = f.local.Remove(ctx, ref)
				} else {
					errs[k] = f.peers.Remove(ctx, v.peers[i], ref)
				}
			})
		}
		wg.Wait()
		return removed(errs)
	})
}

// removed returns what the answers to a removal amount to: the object did not
// exist if no holder had it.
func removed(errs []error) error {
	missing := 0
	for i, err := range errs {
		if errors.Is(err, sheep.ErrNoObject) {
			missing++
			errs[i] = nil
		}
	}
	if missing == len(errs) {
		return sheep.ErrNoObject
	}
	return worst(errs)
}

// nodes is a view with what it takes to reach its nodes.
type nodes struct {
	*cluster.View
	peers []client.Peer // of View.Nodes, index by index

	expected *expectation
}

// nodes returns the current view.
func (f *Fanout) nodes() *nodes {
	v := f.cluster.View()
	if n := f.current.Load(); n != nil && n.View == v {
		return n
	}
	n := &nodes{View: v, peers: make([]client.Peer, len(v.Nodes))}
	for i, node := range v.Nodes {
		n.peers[i].Node = node
		if m, ok := v.MemberAt(node); ok {
			n.peers[i].Incarnation = m.Incarnation
		}
	}
	n.expected = n.expect()
	f.current.Store(n)
	return n
}

// place returns the holders of the object in the epoch of v.
func place(v *nodes, ref sheep.Ref) (h holders, err error) {
	if ref.Policy.Erasure() {
		return h, fmt.Errorf("object %v is erasure-coded: %w", ref.ID, sheep.ErrNotSupported)
	}
	h.n = len(v.Ring.AppendPlace(h.index[:0], ref.ID, ref.Policy.Width()))
	if h.n == 0 {
		return h, fmt.Errorf("object %v: no node stores data in epoch %d: %w", ref.ID, v.Epoch, sheep.ErrHalt)
	}
	return h, nil
}

// placeForWrite is place, but refuses in a strict cluster with too few zones.
func placeForWrite(v *nodes, ref sheep.Ref) (holders, error) {
	h, err := place(v, ref)
	if err == nil && h.n < ref.Policy.Width() && v.Settings.Flags&cluster.FlagStrict != 0 {
		err = fmt.Errorf("object %v: %d zones for %d copies in epoch %d: %w", ref.ID, h.n, ref.Policy.Width(), v.Epoch, sheep.ErrHalt)
	}
	return h, err
}

// holders is a list of indexes into a view's nodes that lives on the stack.
type holders struct {
	index [sheep.MaxCopies]int
	n     int
}

func (h *holders) list() []int { return h.index[:h.n] }

// A group waits for the answers of the copies of one write.
type group struct {
	pending  atomic.Int32
	answers  []func(error) // those of the copies, made once
	answered chan struct{}

	flight *flight.Flight // whose write it is; set before anybody is asked
	turn   uint32         // likewise

	mu  sync.Mutex
	err error // the one that decides so far; guarded by mu
}

// group returns a group that nobody uses, for n copies.
func (f *Fanout) group(n int) *group {
	g, ok := f.groups.Get().(*group)
	if !ok {
		g = &group{answered: make(chan struct{}, 1)}
	}
	g.expect(n)
	return g
}

// expect prepares g for n answers.
func (g *group) expect(n int) {
	for k := len(g.answers); k < n; k++ {
		g.answers = append(g.answers, func(err error) { g.done(k, err) })
	}
	g.pending.Store(int32(n))
}

func (g *group) done(k int, err error) {
	g.flight.Answered(g.turn, k)
	if err != nil {
		g.mu.Lock()
		g.err = worse(g.err, err)
		g.mu.Unlock()
	}
	if g.pending.Add(-1) == 0 {
		g.answered <- struct{}{}
	}
}

// wait returns the error that decides once all answers are there.
func (g *group) wait() error {
	<-g.answered
	err := g.err
	g.err, g.flight = nil, nil
	return err
}
