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
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
	survey   survey
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

// readAny asks the holders one after the other: this node first, and last those
// that stand in for absent nodes. Only if none has the object are those asked again
// that would have to fetch it. An object that no holder has does not exist; any
// other failure of all of them is reported.
func (f *Fanout) readAny(ctx context.Context, v *nodes, ref sheep.Ref, holders []int, p []byte, off uint32) error {
	f.order(v, ref, holders)
	all := len(holders)
	var lost []int
	var failed error
	for _, ref.IfStale = range [...]sheep.IfStale{sheep.StaleRefuses, sheep.StaleWaits} {
		lacking := 0
		for _, i := range holders {
			err := f.readFrom(ctx, v, i, ref, p, off)
			switch {
			case err == nil:
				f.remind(ctx, v, ref, lost)
				return nil
			case errors.Is(err, sheep.ErrNoObject):
				lost = append(lost, i)
			case ref.IfStale == sheep.StaleRefuses && errors.Is(err, sheep.ErrStaleCopy):
				holders[lacking] = i
				lacking++
			default:
				failed = errors.Join(failed, err)
			}
		}
		holders = holders[:lacking]
	}
	if len(lost) == all {
		return fmt.Errorf("read object %v: %w", ref.ID, sheep.ErrNoObject)
	}
	return failed
}

// reminding is how long a read that is done waits for those whom it reminds.
const reminding = time.Second

// remind tells those who have lost their copies that others have theirs. They see to
// the rest themselves.
func (f *Fanout) remind(ctx context.Context, v *nodes, ref sheep.Ref, lost []int) {
	if len(lost) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, reminding)
	defer cancel()
	ref.Elsewhere = true
	f.lookAt(ctx, v, ref, lost)
}

// order puts the holders into the order in which a read asks them.
func (f *Fanout) order(v *nodes, ref sheep.Ref, holders []int) {
	n := v.prefer(ref, holders)
	for _, group := range [...][]int{holders[:n], holders[n:]} {
		if k := slices.Index(group, v.Self); k >= 0 {
			group[0], group[k] = group[k], group[0]
			group = group[1:]
		}
		if len(group) > 1 {
			rotate(group, int(f.rotation.Add(1)%uint32(len(group))))
		}
	}
}

// rotate moves the first n elements of s to its end.
func rotate(s []int, n int) {
	slices.Reverse(s[:n])
	slices.Reverse(s[n:])
	slices.Reverse(s)
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
		if !w.Create {
			f.look(ctx, v, ref, holders.list())
		}
		took, err := f.writeAll(ctx, v, ref, w, holders.list())
		if err == nil && !w.Durable {
			f.deferred.note(v, ref.ID.VDI(), took)
		}
		return err
	})
}

// spared is how many holders an object must have for one of them to be spared a
// write that it would have to fetch the object for.
const spared = 3

// writeAll has all holders take w, and returns those that have.
//
// One holder that has yet to fetch the object does not hold up the write if it is on
// two others at least: it is told of it afterwards, and fetches what they have then.
func (f *Fanout) writeAll(ctx context.Context, v *nodes, ref sheep.Ref, w *sheep.Write, holders []int) (took []int, err error) {
	if w.Create || len(holders) < spared {
		return holders, f.sendAll(ctx, v, ref, w, holders)
	}
	ref.IfStale = sheep.StaleRefuses
	n, err := f.send(ctx, v, ref, w, holders)
	if n == len(holders) || curable(err) {
		return holders, err
	}
	took, ref.IfStale = holders, sheep.StaleWaits
	if n == len(holders)-1 {
		took, ref.IfStale = holders[:n], sheep.StaleNotes
	}
	return took, worse(err, f.sendAll(ctx, v, ref, w, holders[n:]))
}

// sendAll is send to holders who are to take w.
func (f *Fanout) sendAll(ctx context.Context, v *nodes, ref sheep.Ref, w *sheep.Write, holders []int) error {
	n, err := f.send(ctx, v, ref, w, holders)
	if n < len(holders) {
		err = worse(err, sheep.ErrStaleCopy)
	}
	return err
}

// send sends w to the holders at once and waits for all answers. This node's own
// copy comes last: it is written while the others travel. Those whose copies are not
// current, and who say so, are moved behind the others, of which there are n. If some
// have no such object and others have, it is sent to those again, as to somebody who
// has lost it.
func (f *Fanout) send(ctx context.Context, v *nodes, ref sheep.Ref, w *sheep.Write, holders []int) (n int, err error) {
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
	stale, missing, err := g.wait()
	f.groups.Put(g)
	if stale|missing == 0 {
		return len(holders), err
	}
	n, lost := arrange(holders, stale, missing)
	switch {
	case lost == 0 || curable(err):
		return n, err
	case lost == len(holders):
		return lost, worse(err, fmt.Errorf("write object %v: %w", ref.ID, sheep.ErrNoObject))
	}
	ref.Elsewhere = true
	found, again := f.send(ctx, v, ref, w, holders[n:n+lost])
	return n + found, worse(err, again)
}

// arrange orders the holders by their answers: those who took the request, then
// those who miss the object, then those whose copies are not current; the k-th bit
// tells of the k-th holder. It returns how many took it, and how many miss the object.
func arrange(holders []int, stale, missing uint32) (took, lost int) {
	was := slices.Clone(holders)
	holders = holders[:0]
	pick := func(mask uint32) int {
		for k, i := range was {
			if mask&(1<<k) != 0 {
				holders = append(holders, i)
			}
		}
		return len(holders)
	}
	took = pick(^(stale | missing))
	lost = pick(missing) - took
	pick(stale)
	return took, lost
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
	peers    []client.Peer // of View.Nodes, index by index
	complete bool          // every copy is known to be current

	expected *expectation
}

// nodes returns the current view.
func (f *Fanout) nodes() *nodes {
	v := f.cluster.View()
	if n := f.current.Load(); n != nil && n.View == v {
		return n
	}
	n := &nodes{View: v, peers: make([]client.Peer, len(v.Nodes)), complete: v.Complete()}
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

	mu      sync.Mutex
	err     error  // the one that decides so far; guarded by mu
	stale   uint32 // a bit for each that says that its copy is not current; guarded by mu
	missing uint32 // likewise for each that says that it has none; guarded by mu
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
		switch {
		case errors.Is(err, sheep.ErrStaleCopy):
			g.stale |= 1 << k
		case errors.Is(err, sheep.ErrNoObject):
			g.missing |= 1 << k
		default:
			g.err = worse(g.err, err)
		}
		g.mu.Unlock()
	}
	if g.pending.Add(-1) == 0 {
		g.answered <- struct{}{}
	}
}

// wait returns who has said that its copy is not current, or that it has none, and
// the error that decides of the others, once all answers are there.
func (g *group) wait() (stale, missing uint32, err error) {
	<-g.answered
	stale, missing, err = g.stale, g.missing, g.err
	g.stale, g.missing, g.err, g.flight = 0, 0, nil, nil
	return stale, missing, err
}
