package scrub_test

import (
	"context"
	"crypto/sha1"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/scrub"
)

// A world is three nodes in memory.
type world struct {
	mu      sync.Mutex
	nodes   []*fakeNode
	view    *cluster.View
	changed chan struct{}
	looks   int // copies that were read
}

// A fakeNode is a node's store.
type fakeNode struct {
	w       *world
	at      int
	objects map[sheep.ObjectID]string
	state   []byte
	settled bool
}

func newWorld() *world {
	w := &world{changed: make(chan struct{})}
	v := &cluster.View{Status: cluster.OK, Epoch: 3, Joined: true, Settings: cluster.Settings{Ctime: 77}}
	for i := range 3 {
		w.nodes = append(w.nodes, &fakeNode{w: w, at: i, objects: make(map[sheep.ObjectID]string), settled: true})
		v.Nodes = append(v.Nodes, holder(i))
		v.Members = append(v.Members, cluster.Member{Node: holder(i), Incarnation: sheep.Incarnation(i + 1), Complete: 3, Joined: uint64(i)})
	}
	v.Ring = placement.NewRing(v.Nodes)
	w.view = v
	return w
}

func (w *world) put(id sheep.ObjectID, content string) {
	for _, at := range w.view.Ring.Place(id, 3) {
		w.nodes[at].objects[id] = content
	}
}

// equal reports whether all nodes have the objects that want has.
func (w *world) equal(want map[sheep.ObjectID]string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !slices.ContainsFunc(w.nodes, func(n *fakeNode) bool { return !maps.Equal(n.objects, want) })
}

// run runs the scrubbers of all nodes until the end of the test.
func (w *world) run(t *testing.T, cfg scrub.Config) (scrubbers []*scrub.Scrubber, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i, n := range w.nodes {
		s := scrub.New(holder(i).Addr, n, fakePeers{w}, seenBy{w, i}, cfg, slog.New(slog.DiscardHandler))
		scrubbers = append(scrubbers, s)
		wg.Go(func() { _ = s.Run(ctx) })
	}
	return scrubbers, func() { cancel(); wg.Wait() }
}

// seenBy is the cluster as node at sees it.
type seenBy struct {
	w  *world
	at int
}

func (s seenBy) View() *cluster.View {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	v := *s.w.view
	v.Self, v.Members = s.at, slices.Clone(v.Members)
	return &v
}
func (s seenBy) Changed() <-chan struct{} { return s.w.changed }

func (n *fakeNode) IDs(from sheep.ObjectID) ([]sheep.ObjectID, error) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(n.objects)), func(id sheep.ObjectID) bool { return id < from }), nil
}

func (n *fakeNode) CopyOf(_ context.Context, id sheep.ObjectID) (proto.CopyReport, error) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.w.looks++
	r := proto.CopyReport{CopyState: proto.CopyState{ID: id, Bits: proto.CopyTrusted}, Joined: uint64(n.at)}
	if o, ok := n.objects[id]; ok {
		r.Bits |= proto.CopyExists
		r.Digest = sha1.Sum([]byte(o))
	}
	return r, nil
}

func (n *fakeNode) Repair(_ context.Context, id sheep.ObjectID, from netip.AddrPort) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	for i, o := range n.w.nodes {
		if holder(i).Addr == from {
			n.objects[id] = o.objects[id]
		}
	}
	return nil
}

func (n *fakeNode) Background(_ context.Context, fn func() error) error { return fn() }

func (n *fakeNode) Settled(sheep.Epoch) bool {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.settled
}

func (n *fakeNode) Policy(sheep.ObjectID) (sheep.Policy, uint32) {
	return sheep.Replicated(3), 4 << 20
}

func (n *fakeNode) ScrubState() ([]byte, error) { return n.state, nil }

func (n *fakeNode) SetScrubState(b []byte) error {
	n.state = b
	return nil
}

// fakePeers reaches all nodes.
type fakePeers struct{ w *world }

func (p fakePeers) node(to client.Peer) *fakeNode { return p.w.nodes[to.Incarnation-1] }

func (p fakePeers) Copy(ctx context.Context, to client.Peer, id sheep.ObjectID) (proto.CopyReport, error) {
	return p.node(to).CopyOf(ctx, id)
}

func (p fakePeers) Missing(_ context.Context, to client.Peer, ids []sheep.ObjectID) ([]sheep.ObjectID, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(ids), func(id sheep.ObjectID) bool { _, ok := p.node(to).objects[id]; return ok }), nil
}

func (p fakePeers) Repair(ctx context.Context, to client.Peer, id sheep.ObjectID, from netip.AddrPort) error {
	return p.node(to).Repair(ctx, id, from)
}

const many = 200

// filled returns a world with many objects, and what is in them.
func filled() (*world, map[sheep.ObjectID]string) {
	w, want := newWorld(), make(map[sheep.ObjectID]string)
	for i := range many {
		id := sheep.DataObject(7, uint32(i))
		want[id] = id.String()
		w.put(id, id.String())
	}
	return w, want
}

// sum adds up what the nodes have found in their last passes.
func sum(scrubbers []*scrub.Scrubber) (p proto.ScrubPass) {
	for _, s := range scrubbers {
		last := s.Report().Last
		p.Compared += last.Compared
		p.Differing += last.Differing
		p.Repaired += last.Repaired
	}
	return p
}

func TestScrubFindsAndMends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, want := filled()
		for i := range 3 { // whoever has the duty
			w.nodes[i].objects[sheep.DataObject(7, uint32(i))] = "something else"
			delete(w.nodes[i].objects, sheep.DataObject(7, uint32(10+i)))
		}
		for i := range 3 { // whoever has it, he cannot be asked for it
			id := sheep.DataObject(7, uint32(20+i))
			delete(w.nodes[w.view.Ring.Place(id, 3)[0]].objects, id)
		}
		draw := sheep.DataObject(7, 30)
		for i := range 3 {
			w.nodes[i].objects[draw] = string(rune('a' + i))
		}
		scrubbers, stop := w.run(t, scrub.Config{Every: time.Hour})
		time.Sleep(90 * time.Minute)
		stop()
		got := sum(scrubbers)
		if got.Differing != 10 && got.Differing != 13 || got.Repaired != got.Differing-1 || got.Compared < many {
			t.Errorf("the scrub says %+v of %d objects, 10 of which differ and one cannot be decided", got, many)
		}
		left := 0
		for _, s := range scrubbers {
			left += len(s.Report().Left)
		}
		if left != 1 {
			t.Errorf("%d objects are listed as differing, want 1", left)
		}
		for _, n := range w.nodes {
			delete(n.objects, draw)
		}
		delete(want, draw)
		if !w.equal(want) {
			t.Error("copies differ after the scrub")
		}
	})
}

func TestScrubComparesEachObjectOnceInAPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := filled()
		scrubbers, stop := w.run(t, scrub.Config{Every: time.Hour})
		time.Sleep(90 * time.Minute)
		stop()
		if got := sum(scrubbers); got.Compared != many || w.looks != 3*many {
			t.Errorf("%d objects were compared by reading %d copies, want %d and %d", got.Compared, w.looks, many, 3*many)
		}
	})
}

func TestScrubWaitsForRecoveryAndForItsHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := filled()
		w.nodes[1].settled = false
		w.view.Members[2].Complete = 2
		began := time.Now()
		hours := scrub.Hours{From: (began.Hour() + 5) % 24, To: (began.Hour() + 6) % 24}
		scrubbers, stop := w.run(t, scrub.Config{Every: time.Minute, Hours: hours})
		time.Sleep(5*time.Hour + 10*time.Minute - time.Duration(began.Minute())*time.Minute)
		w.mu.Lock()
		looks := w.looks
		w.view.Members[2].Complete = 3
		w.mu.Unlock()
		if looks != 0 {
			t.Errorf("%d copies were read though a node was in recovery", looks)
		}
		time.Sleep(20 * time.Minute)
		w.mu.Lock()
		looks = w.looks
		w.mu.Unlock()
		if looks == 0 || scrubbers[1].Report().Last.Began != 0 {
			t.Errorf("%d copies were read when it was over, and by a node that is in recovery: %+v", looks, scrubbers[1].Report())
		}
		time.Sleep(45 * time.Minute)
		w.mu.Lock()
		before := w.looks
		w.mu.Unlock()
		time.Sleep(5 * time.Hour)
		stop()
		if w.looks != before {
			t.Error("the scrub goes on after its hours")
		}
	})
}

func TestScrubKeepsToItsRateAndGoesOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := filled()
		cfg := scrub.Config{Every: time.Hour, Rate: 4 << 20} // an object a second, of each node
		_, stop := w.run(t, cfg)
		time.Sleep(time.Hour + 30*time.Second)
		stop()
		if w.looks < 3*3*25 || w.looks > 3*3*32 {
			t.Fatalf("%d copies were read in half a minute, want those of 3 objects a second", w.looks)
		}
		scrubbers, stop := w.run(t, cfg)
		time.Sleep(5 * time.Minute)
		stop()
		if got := sum(scrubbers); got.Compared < many || got.Compared > many+3*16 { // what was not kept is done again
			t.Errorf("after a restart %d objects were compared in the pass, want %d", got.Compared, many)
		}
	})
}

func TestScrubBeginsAnewInAnotherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := filled()
		scrubbers, stop := w.run(t, scrub.Config{Every: time.Hour})
		time.Sleep(90 * time.Minute)
		stop()
		if scrubbers[0].Report().Last.Ended == 0 {
			t.Fatal("there was no pass")
		}
		w.view.Settings.Ctime++
		scrubbers, stop = w.run(t, scrub.Config{Every: time.Hour})
		time.Sleep(time.Minute)
		stop()
		if r := scrubbers[0].Report(); r.Last.Ended != 0 || r.Next == 0 {
			t.Errorf("after a format the report is %+v", r)
		}
	})
}

func TestWhoDoesNotScrub(t *testing.T) {
	w, _ := filled()
	scrubbers, stop := w.run(t, scrub.Config{})
	stop()
	if r := scrubbers[0].Report(); r.Bits != 0 || r.Next != 0 {
		t.Errorf("a node without a schedule reports %+v", r)
	}
}
