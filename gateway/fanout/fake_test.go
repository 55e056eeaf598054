package fanout_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"sheepdog/gateway/fanout"
	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/placement"
)

const vid = sheep.VDIID(7)

var ref = sheep.Ref{ID: sheep.DataObject(vid, 1), Policy: sheep.Replicated(3), Size: 64, Generation: 5}

// A fleet is storage nodes in memory, the cluster that they form, and the way
// to them. The gateway under test stores nothing itself.
type fleet struct {
	*fanout.Fanout

	mu      sync.Mutex
	nodes   []*storage // all that there ever were; each has a zone of its own
	view    *cluster.View
	changed chan struct{}
}

// A storage is one node. It refuses requests of other epochs or for another
// life of it.
type storage struct {
	node    sheep.Node
	inc     sheep.Incarnation
	down    bool
	fail    error                     // what its requests end in
	lacks   bool                      // the object, which it would have to fetch
	hold    chan struct{}             // if not nil, what the answers of its writes and flushes wait for
	objects map[sheep.ObjectID]string // what was written last
	writes  []sheep.Ref               // that reached it, refused ones too
	reads   int                       // likewise
	flushes int                       // answered
}

// newFleet returns a cluster of n nodes in its first epoch.
func newFleet(n int) *fleet {
	f := &fleet{changed: make(chan struct{})}
	for i := range n {
		f.nodes = append(f.nodes, &storage{
			node: sheep.Node{
				Addr:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(7000+i)),
				VNodes: 64, Zone: sheep.ZoneID(i + 1),
			},
			inc:     sheep.Incarnation(100 * (i + 1)),
			objects: make(map[sheep.ObjectID]string),
		})
	}
	f.Fanout = fanout.New(f, nil, f, slog.New(slog.DiscardHandler))
	f.next(nil)
	return f
}

// next begins the epoch of the nodes that are not down.
func (f *fleet) next(change func(v *cluster.View)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := &cluster.View{Status: cluster.OK, Epoch: 1, Self: -1, Joined: true}
	if f.view != nil {
		v.Epoch, v.Settings = f.view.Epoch+1, f.view.Settings
	}
	for _, s := range f.nodes {
		if !s.down {
			v.Nodes = append(v.Nodes, s.node)
			v.Members = append(v.Members, cluster.Member{Node: s.node, Incarnation: s.inc})
		}
	}
	v.Ring = placement.NewRing(v.Nodes)
	if change != nil {
		change(v)
	}
	f.view = v
	f.wake()
}

// wake has everybody look at the view again. The caller holds f.mu.
func (f *fleet) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// leave takes nodes away and begins an epoch without them.
func (f *fleet) leave(nodes ...*storage) {
	f.mu.Lock()
	for _, s := range nodes {
		s.down = true
	}
	f.mu.Unlock()
	f.next(nil)
}

// restart lets nodes leave and join again, in new lives.
func (f *fleet) restart(nodes ...*storage) {
	f.leave(nodes...)
	f.mu.Lock()
	for _, s := range nodes {
		s.inc++
		s.down, s.fail = false, nil
	}
	f.mu.Unlock()
	f.next(nil)
}

// holders returns the nodes that hold the object of ref in the present epoch.
func (f *fleet) holders() []*storage {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []*storage
	for _, i := range f.view.Ring.Place(ref.ID, ref.Policy.Width()) {
		at := slices.IndexFunc(f.nodes, func(s *storage) bool { return s.node.Addr == f.view.Nodes[i].Addr })
		all = append(all, f.nodes[at])
	}
	return all
}

// set changes a node.
func (f *fleet) set(s *storage, change func(s *storage)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(s)
}

func (f *fleet) View() *cluster.View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view
}

func (f *fleet) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// at returns the node that a request is for, or why it does not take it. The
// caller holds f.mu.
func (f *fleet) at(to client.Peer, e sheep.Epoch) (*storage, error) {
	s := f.nodes[slices.IndexFunc(f.nodes, func(s *storage) bool { return s.node.Addr == to.Node.Addr })]
	switch {
	case s.down || s.inc != to.Incarnation:
		return s, sheep.ErrNetwork
	case s.fail != nil:
		return s, s.fail
	case e != f.view.Epoch:
		return s, &sheep.StaleEpochError{Sent: e, Current: f.view.Epoch}
	}
	return s, nil
}

func (f *fleet) Read(_ context.Context, to client.Peer, ref sheep.Ref, p []byte, off uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.at(to, ref.Epoch)
	s.reads++
	if err == nil && s.lacks && ref.IfStale == sheep.StaleRefuses {
		err = sheep.ErrStaleCopy
	}
	if err != nil {
		return err
	}
	data, ok := s.objects[ref.ID]
	if !ok {
		return sheep.ErrNoObject
	}
	copy(p, data[off:])
	return nil
}

func (f *fleet) StartWrite(_ context.Context, to client.Peer, ref sheep.Ref, w *sheep.Write, done func(error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.at(to, ref.Epoch)
	s.writes = append(s.writes, ref)
	switch {
	case err != nil:
	case s.lacks && ref.IfStale == sheep.StaleRefuses:
		err = sheep.ErrStaleCopy
	case s.lacks && ref.IfStale == sheep.StaleNotes:
	default:
		s.objects[ref.ID] = string(bytes.Clone(w.Data))
	}
	if hold := s.hold; hold != nil {
		go func() { <-hold; done(err) }()
		return
	}
	go done(err)
}

func (f *fleet) Remove(_ context.Context, to client.Peer, ref sheep.Ref) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.at(to, ref.Epoch)
	if err != nil {
		return err
	}
	if _, ok := s.objects[ref.ID]; !ok {
		return sheep.ErrNoObject
	}
	delete(s.objects, ref.ID)
	return nil
}

func (f *fleet) Flush(_ context.Context, to client.Peer, e sheep.Epoch, _ sheep.VDIID) error {
	f.mu.Lock()
	hold := f.nodes[slices.IndexFunc(f.nodes, func(s *storage) bool { return s.node.Addr == to.Node.Addr })].hold
	f.mu.Unlock()
	if hold != nil {
		<-hold
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.at(to, e)
	if err == nil {
		s.flushes++
	}
	return err
}

// create returns the creation of an object with the content.
func create(content string) *sheep.Write { return &sheep.Write{Data: []byte(content), Create: true} }

// A call is a request that runs beside the test.
type call struct {
	done chan struct{}
	err  error
}

// begin runs fn until it ends or all wait.
func begin(fn func() error) *call {
	c := &call{done: make(chan struct{})}
	go func() {
		c.err = fn()
		close(c.done)
	}()
	synctest.Wait()
	return c
}

// ended reports whether the call has been answered.
func (c *call) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// wantWaiting fails the test if the call has been answered.
func (c *call) wantWaiting(t *testing.T, why string) {
	t.Helper()
	if c.ended() {
		t.Fatalf("answered (%v), though %s", c.err, why)
	}
}

// wantEnd waits for the call and compares how it ended.
func (c *call) wantEnd(t *testing.T, want error) {
	t.Helper()
	<-c.done
	if !errors.Is(c.err, want) {
		t.Fatalf("got %v, want %v", c.err, want)
	}
}
