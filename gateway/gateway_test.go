package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/sheeptest"
)

// A testCluster is a cluster log in memory with gateways over one store.
type testCluster struct {
	store    *sheeptest.Memory
	fenced   fenced
	gateways []*Gateway

	mu     sync.Mutex
	index  sheep.Generation
	owners map[sheep.VDIID]cluster.Ownership

	snapshots map[sheep.VDIID]bool
	doubt     cluster.Doubt // about any VDI
	raising   chan struct{} // if not nil, doubts are raised when it is closed
}

// fenced refuses writes under generations that are no longer the newest, as
// replicas do.
type fenced struct {
	*sheeptest.Memory
	mu     *sync.Mutex
	newest map[sheep.VDIID]sheep.Generation
}

func (f fenced) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	f.mu.Lock()
	stale := ref.Generation < f.newest[ref.ID.VDI()]
	f.newest[ref.ID.VDI()] = max(f.newest[ref.ID.VDI()], ref.Generation)
	f.mu.Unlock()
	if stale || ref.Generation == 0 {
		return fmt.Errorf("generation %d: %w", ref.Generation, sheep.ErrStaleOwner)
	}
	return f.Memory.Write(ctx, ref, w)
}

// newTestCluster returns a cluster of n gateways that run until the test ends.
func newTestCluster(t *testing.T, n int) *testCluster {
	c := &testCluster{store: sheeptest.NewMemory(), owners: make(map[sheep.VDIID]cluster.Ownership)}
	c.fenced = fenced{Memory: c.store, mu: new(sync.Mutex), newest: make(map[sheep.VDIID]sheep.Generation)}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range n {
		m := member{c: c, inc: sheep.Incarnation(i + 1)}
		g := New(c.fenced, m, m, m.inc, slog.New(slog.DiscardHandler))
		c.gateways = append(c.gateways, g)
		wg.Go(func() { _ = g.Run(ctx) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return c
}

// set logs an ownership.
func (c *testCluster) set(vdi sheep.VDIID, change func(old cluster.Ownership, index sheep.Generation) (cluster.Ownership, bool)) cluster.Ownership {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.owners[vdi]
	now, ok := change(old, c.index+1)
	if !ok {
		return old
	}
	c.index++
	c.owners[vdi] = now
	for _, g := range c.gateways {
		g.Ownership(vdi, old, now)
	}
	return now
}

// owner returns who owns the VDI of testRef.
func (c *testCluster) owner() cluster.Ownership {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.owners[0x7c2b25]
}

// wantFlush has a client of gateway i flush, and be told what that says.
func (c *testCluster) wantFlush(t *testing.T, i int, want error) {
	t.Helper()
	err := c.gateways[i].Flush(t.Context(), 0x7c2b25)
	if !errors.Is(err, want) {
		t.Errorf("flush through gateway %d: %v, want %v", i, err, want)
	}
	sheep.Told(err)
}

// A member is the cluster as one gateway sees it, and its way to the others.
type member struct {
	c   *testCluster
	inc sheep.Incarnation
}

func nodeOf(inc sheep.Incarnation) sheep.Node {
	return sheep.Node{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(inc))}
}

func (m member) Own(_ context.Context, vdi sheep.VDIID) (cluster.Ownership, error) {
	return m.c.set(vdi, func(old cluster.Ownership, index sheep.Generation) (cluster.Ownership, bool) {
		return cluster.Ownership{Owner: m.inc, Node: nodeOf(m.inc), Generation: index}, old.Owner == 0
	}), nil
}

func (m member) HandOver(_ context.Context, vdi sheep.VDIID, gen sheep.Generation, to sheep.Incarnation) error {
	m.c.set(vdi, func(old cluster.Ownership, index sheep.Generation) (cluster.Ownership, bool) {
		return cluster.Ownership{Owner: to, Node: nodeOf(to), Generation: index, Draining: true}, old.Generation == gen
	})
	return nil
}

func (m member) Drained(_ context.Context, vdi sheep.VDIID, _ sheep.Generation) error {
	m.c.set(vdi, func(old cluster.Ownership, _ sheep.Generation) (cluster.Ownership, bool) {
		old.Draining = false
		return old, true
	})
	return nil
}

func (m member) Disown(_ context.Context, vdi sheep.VDIID, gen sheep.Generation) error {
	m.c.set(vdi, func(old cluster.Ownership, _ sheep.Generation) (cluster.Ownership, bool) {
		return cluster.Ownership{}, old.Generation == gen
	})
	return nil
}

func (m member) DoubtAbout(sheep.VDIID) cluster.Doubt {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	return m.c.doubt
}

func (m member) RaiseDoubt(context.Context, sheep.VDIID) error {
	if m.c.raising != nil {
		<-m.c.raising
	}
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.c.index++
	m.c.doubt = cluster.Doubt{Since: uint64(m.c.index), Blind: true}
	return nil
}

func (m member) SettleDoubt(_ context.Context, _ sheep.VDIID, d cluster.Doubt) error {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	if m.c.doubt == d {
		m.c.doubt = cluster.Doubt{}
	}
	return nil
}

func (m member) Lease() error { return nil }

func (m member) VDI(id sheep.VDIID) (sheep.VDI, bool) {
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	return sheep.VDI{ID: id, Snapshot: m.c.snapshots[id]}, true
}

func (m member) at(owner sheep.Node) Owned {
	return m.c.gateways[owner.Addr.Port()-1].Owned(m.inc)
}

func (m member) Read(ctx context.Context, owner sheep.Node, ref sheep.Ref, p []byte, off uint32) error {
	return m.at(owner).Read(ctx, ref, p, off)
}

func (m member) Write(ctx context.Context, owner sheep.Node, ref sheep.Ref, w *sheep.Write) error {
	return m.at(owner).Write(ctx, ref, w)
}

func (m member) Remove(ctx context.Context, owner sheep.Node, ref sheep.Ref) error {
	return m.at(owner).Remove(ctx, ref)
}

func (m member) Flush(ctx context.Context, owner sheep.Node, vdi sheep.VDIID) error {
	return m.at(owner).Flush(ctx, vdi)
}

func (m member) Decref(context.Context, sheep.Node, sheep.Ref, uint32, uint32) error {
	return sheep.ErrNotSupported
}

func TestGatewayIsALink(t *testing.T) {
	t.Run("as the owner", func(t *testing.T) {
		sheeptest.Objects(t, func(t *testing.T) sheep.Objects { return newTestCluster(t, 1).gateways[0] })
	})
	t.Run("forwarding to the owner", func(t *testing.T) {
		sheeptest.Objects(t, func(t *testing.T) sheep.Objects {
			c := newTestCluster(t, 2)
			if _, err := (member{c: c, inc: 2}).Own(t.Context(), 0x7c2b25); err != nil {
				t.Fatal(err)
			}
			return c.gateways[0]
		})
	})
}

func testRef(index uint32) sheep.Ref {
	return sheep.Ref{ID: sheep.DataObject(0x7c2b25, index), Policy: sheep.Replicated(1), Size: 1 << 20}
}

func TestTheFirstWriteTakesTheOwnershipAndReadsDoNot(t *testing.T) {
	c := newTestCluster(t, 2)
	if err := c.gateways[0].Read(t.Context(), testRef(0), make([]byte, 1), 0); !errors.Is(err, sheep.ErrNoObject) {
		t.Fatalf("got %v, want %v", err, sheep.ErrNoObject)
	}
	if own := c.owner(); own.Owner != 0 {
		t.Errorf("a read has taken the ownership: %v", own)
	}
	if err := c.gateways[1].Write(t.Context(), testRef(0), &sheep.Write{Create: true}); err != nil {
		t.Fatal(err)
	}
	if own := c.owner(); own.Owner != 2 {
		t.Errorf("got owner %v, want the gateway that wrote", own)
	}
}

func TestCopyOnWriteFillsTheRestFromTheSource(t *testing.T) {
	c := newTestCluster(t, 1)
	g, source, ref := c.gateways[0], testRef(0), testRef(1)
	want := bytes.Repeat([]byte{3}, int(source.Size))
	if err := g.Write(t.Context(), source, &sheep.Write{Data: want, Create: true}); err != nil {
		t.Fatal(err)
	}
	if err := g.Write(t.Context(), ref, &sheep.Write{Off: 512, Data: []byte("new"), Create: true, From: &source}); err != nil {
		t.Fatal(err)
	}
	copy(want[512:], "new")
	got := make([]byte, len(want))
	if err := g.Read(t.Context(), ref, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy is wrong (%v)", err)
	}
	missing := testRef(9)
	if err := g.Write(t.Context(), ref, &sheep.Write{Data: []byte("x"), Create: true, From: &missing}); !errors.Is(err, sheep.ErrNoObject) {
		t.Errorf("got %v, want %v", err, sheep.ErrNoObject)
	}
}

func TestAnIdleOwnerHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 2)
		if err := c.gateways[0].Write(t.Context(), testRef(0), &sheep.Write{Create: true}); err != nil {
			t.Fatal(err)
		}
		write := func() {
			if err := c.gateways[1].Write(t.Context(), testRef(0), &sheep.Write{Data: []byte("x")}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		write()
		if own := c.owner(); own.Owner != 1 {
			t.Errorf("a busy owner has lost the VDI to %v", own)
		}
		time.Sleep(2 * idleAfter)
		write()
		if own := c.owner(); own.Owner != 2 || own.Draining {
			t.Errorf("got %v, want the gateway that forwards", own)
		}
		if c.store.Flushes(0x7c2b25) == 0 {
			t.Error("the VDI was not flushed before it was handed over")
		}
		write()
	})
}

func TestWhatADrainHasLostIsToldThoughAnotherOwns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 2)
		lost := false
		c.store.Fail = func(op string, _ sheep.ObjectID) error {
			if op == "flush" && lost {
				return sheep.ErrLostWrites
			}
			return nil
		}
		if err := c.gateways[0].Write(t.Context(), testRef(0), &sheep.Write{Create: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * idleAfter)
		lost = true
		if err := c.gateways[1].Write(t.Context(), testRef(0), &sheep.Write{Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		lost = false
		if own := c.owner(); own.Owner != 2 || own.Draining {
			t.Fatalf("got %v, want the gateway that forwards", own)
		}
		// Through another gateway it is told twice: the first answer may not arrive.
		for k, want := range []error{sheep.ErrLostWrites, sheep.ErrLostWrites, nil} {
			c.wantFlush(t, min(k, 1), want)
			synctest.Wait()
		}
	})
}

func TestADoubtIsToldUnlessTheOwnerKnowsBetter(t *testing.T) {
	for _, tt := range []struct {
		name  string
		doubt cluster.Doubt
		fan   error
		want  error
		after uint64 // Since of the doubt that is left
	}{
		{"the owner has lost nothing", cluster.Doubt{Since: 9}, nil, nil, 0},
		{"the owner has lost something", cluster.Doubt{Since: 9}, sheep.ErrLostWrites, sheep.ErrLostWrites, 0},
		{"nobody knows", cluster.Doubt{Since: 9, Blind: true}, nil, sheep.ErrLostWrites, 0},
		{"a flush that did not get through says nothing", cluster.Doubt{Since: 9, Blind: true}, sheep.ErrNetwork, sheep.ErrNetwork, 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTestCluster(t, 1)
				c.doubt = tt.doubt
				c.store.Fail = func(op string, _ sheep.ObjectID) error { return tt.fan }
				c.wantFlush(t, 0, tt.want)
				synctest.Wait()
				if c.doubt.Since != tt.after {
					t.Errorf("left with %+v, want since %d", c.doubt, tt.after)
				}
			})
		})
	}
}

func TestWhatIsOwnedIsFlushedWhenANodeHasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 2)
		if err := c.gateways[0].Write(t.Context(), testRef(0), &sheep.Write{Create: true}); err != nil {
			t.Fatal(err)
		}
		for _, g := range c.gateways {
			g.Secure()
		}
		synctest.Wait()
		if n := c.store.Flushes(0x7c2b25); n != 1 {
			t.Errorf("got %d flushes, want the owner's", n)
		}
		c.store.Fail = func(string, sheep.ObjectID) error { return sheep.ErrLostWrites }
		c.gateways[0].Secure()
		synctest.Wait()
		c.store.Fail = nil
		for _, want := range []error{sheep.ErrLostWrites, nil} {
			c.wantFlush(t, 0, want)
			synctest.Wait()
		}
	})
}

// TestNoFlushSucceedsBeforeTheLogKnowsOfALoss: what was found to be lost by a flush
// that nobody waits for is told by the flushes of clients, while the log is being told
// and afterwards.
func TestNoFlushSucceedsBeforeTheLogKnowsOfALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1)
		if err := c.gateways[0].Write(t.Context(), testRef(0), &sheep.Write{Create: true}); err != nil {
			t.Fatal(err)
		}
		lost := true
		c.store.Fail = func(string, sheep.ObjectID) error {
			if lost {
				return &sheep.LostWritesError{Why: "test", Forget: func() { lost = false }}
			}
			return nil
		}
		c.raising = make(chan struct{})
		c.gateways[0].Secure()
		synctest.Wait()
		if err := c.gateways[0].Flush(t.Context(), 0x7c2b25); !errors.Is(err, sheep.ErrLostWrites) {
			t.Errorf("a flush while the log is told: %v", err)
		}
		close(c.raising)
		synctest.Wait()
		for _, want := range []error{sheep.ErrLostWrites, nil} {
			c.wantFlush(t, 0, want)
			synctest.Wait()
		}
	})
}

func TestAGatewayThatLeavesGivesUpWhatItHasFlushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1)
		write := func() {
			if err := c.gateways[0].Write(t.Context(), testRef(0), &sheep.Write{Create: true}); err != nil {
				t.Fatal(err)
			}
		}
		write()
		if err := c.gateways[0].FlushOwned(t.Context()); err != nil {
			t.Fatal(err)
		}
		if own := c.owner(); own.Owner != 0 || c.store.Flushes(0x7c2b25) != 1 {
			t.Errorf("owner %v after %d flushes, want none after 1", own, c.store.Flushes(0x7c2b25))
		}
		write()
		c.store.Fail = func(string, sheep.ObjectID) error { return sheep.ErrLostWrites }
		if err := c.gateways[0].FlushOwned(t.Context()); !errors.Is(err, sheep.ErrLostWrites) {
			t.Errorf("got %v, want %v", err, sheep.ErrLostWrites)
		}
		if own := c.owner(); own.Owner != 1 || !c.doubt.Blind {
			t.Errorf("owner %v, doubt %+v; want the next client told", own, c.doubt)
		}
	})
}

func TestAPlanWaitsForWhatIsInFlightAndHoldsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1)
		g, ref := c.gateways[0], testRef(0)
		if err := g.Write(t.Context(), ref, &sheep.Write{Create: true}); err != nil {
			t.Fatal(err)
		}
		hold := make(chan struct{})
		c.store.Fail = func(op string, _ sheep.ObjectID) error {
			if op == "write" {
				<-hold
			}
			return nil
		}
		var wg sync.WaitGroup
		wg.Go(func() { _ = g.Write(t.Context(), ref, &sheep.Write{Data: []byte("in flight")}) })
		synctest.Wait()
		frozen := c.set(0x7c2b25, func(_ cluster.Ownership, index sheep.Generation) (cluster.Ownership, bool) {
			return cluster.Ownership{Owner: 1, Node: nodeOf(1), Generation: index, Draining: true, Plan: true}, true
		})
		var late atomic.Bool
		wg.Go(func() {
			_ = g.Write(t.Context(), ref, &sheep.Write{Data: []byte("late")})
			late.Store(true)
		})
		time.Sleep(time.Second)
		if !c.owner().Draining {
			t.Error("drained with a write in flight")
		}
		close(hold)
		time.Sleep(time.Second)
		if c.owner().Draining || late.Load() {
			t.Errorf("draining %v, late write done %v; want neither", c.owner().Draining, late.Load())
		}
		ctx := WithGrant(t.Context(), single{vdi: 0x7c2b25, generation: frozen.Generation})
		if err := g.Write(ctx, ref, &sheep.Write{Off: 64, Data: []byte("plan")}); err != nil {
			t.Errorf("the plan's own write: %v", err)
		}
		c.set(0x7c2b25, func(cluster.Ownership, sheep.Generation) (cluster.Ownership, bool) { return cluster.Ownership{}, true })
		wg.Wait()
		if !late.Load() {
			t.Error("the late write has not been done after the plan")
		}
	})
}

// A client that loses its gateway sends what was not answered to another one, and
// newer things after it.
func TestAWriteThatWaitsEndsWithItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1)
		g, ref := c.gateways[0], testRef(0)
		if err := g.Write(t.Context(), ref, &sheep.Write{Create: true, Data: []byte("old")}); err != nil {
			t.Fatal(err)
		}
		c.set(0x7c2b25, func(_ cluster.Ownership, index sheep.Generation) (cluster.Ownership, bool) {
			return cluster.Ownership{Owner: 1, Node: nodeOf(1), Generation: index, Draining: true, Plan: true}, true
		})
		client, leave := context.WithCancelCause(t.Context())
		gone := errors.New("the client has gone")
		done := make(chan error, 1)
		go func() {
			done <- g.Write(sheep.WithCaller(t.Context(), client), ref, &sheep.Write{Data: []byte("new")})
		}()
		synctest.Wait()
		leave(gone)
		if err := <-done; !errors.Is(err, gone) {
			t.Errorf("got %v, want %v", err, gone)
		}
		c.set(0x7c2b25, func(cluster.Ownership, sheep.Generation) (cluster.Ownership, bool) { return cluster.Ownership{}, true })
		synctest.Wait()
		got := make([]byte, 3)
		if err := g.Read(t.Context(), ref, got, 0); err != nil || string(got) != "old" {
			t.Errorf("read %q, %v; want what was there before", got, err)
		}
	})
}

func TestAWriteThatHasBegunOutlivesItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 1)
		g, ref := c.gateways[0], testRef(0)
		if err := g.Write(t.Context(), ref, &sheep.Write{Create: true}); err != nil {
			t.Fatal(err)
		}
		client, leave := context.WithCancel(t.Context())
		c.store.Fail = func(op string, _ sheep.ObjectID) error {
			if op == "write" {
				leave()
			}
			return nil
		}
		if err := g.Write(sheep.WithCaller(t.Context(), client), ref, &sheep.Write{Data: []byte("new")}); err != nil {
			t.Error(err)
		}
	})
}

func TestAnOwnerThatEndsIsAskedAgain(t *testing.T) {
	for _, end := range []error{sheep.ErrKilled, sheep.ErrShutdown, sheep.ErrCluster, sheep.ErrStaleOwner, &sheep.StaleEpochError{Current: 4}} {
		synctest.Test(t, func(t *testing.T) {
			c := newTestCluster(t, 2)
			if err := c.gateways[0].Write(t.Context(), testRef(0), &sheep.Write{Create: true}); err != nil {
				t.Fatal(err)
			}
			times := 0
			c.store.Fail = func(string, sheep.ObjectID) error {
				if times++; times == 1 {
					return end
				}
				return nil
			}
			if err := c.gateways[1].Write(t.Context(), testRef(0), &sheep.Write{Data: []byte("x")}); err != nil || times != 2 {
				t.Errorf("%v: got %v after %d times", end, err, times)
			}
		})
	}
}

func TestAForwardedWriteDoesNotWaitAtTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 2)
		if err := c.gateways[0].Write(t.Context(), testRef(0), &sheep.Write{Create: true}); err != nil {
			t.Fatal(err)
		}
		c.set(0x7c2b25, func(old cluster.Ownership, _ sheep.Generation) (cluster.Ownership, bool) {
			old.Draining, old.Plan = true, true
			return old, true
		})
		begin := time.Now()
		err := c.gateways[0].Owned(2).Write(t.Context(), testRef(0), &sheep.Write{Data: []byte("new")})
		if !errors.Is(err, sheep.ErrNotOwner) || time.Since(begin) != 0 {
			t.Errorf("got %v after %v, want %v at once", err, time.Since(begin), sheep.ErrNotOwner)
		}
	})
}

// Two gateways write counters to one object through hand-overs; every
// acknowledged increment must be there at the end.
func TestNoWriteIsLostAcrossHandOvers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 3)
		ref := testRef(0)
		if err := c.gateways[0].Write(t.Context(), ref, &sheep.Write{Create: true}); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i, g := range c.gateways {
			wg.Go(func() {
				for n := range uint64(200) {
					p := binary.LittleEndian.AppendUint64(nil, n+1)
					if err := g.Write(t.Context(), ref, &sheep.Write{Off: uint32(8 * i), Data: p}); err != nil {
						t.Errorf("gateway %d, write %d: %v", i, n, err)
						return
					}
					got := make([]byte, 8)
					if err := c.gateways[n%3].Read(t.Context(), ref, got, uint32(8*i)); err != nil || !bytes.Equal(got, p) {
						t.Errorf("gateway %d read %v, %v; want %v", n%3, got, err, p)
					}
					time.Sleep(time.Duration(i+1) * 40 * time.Millisecond)
				}
			})
		}
		for range 60 {
			own := c.owner()
			_ = (member{c: c, inc: own.Owner}).HandOver(t.Context(), 0x7c2b25, own.Generation, own.Owner%3+1)
			time.Sleep(100 * time.Millisecond)
		}
		wg.Wait()
	})
}

func TestAWriteThatWaitedForASnapshotFindsItReadOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, 2)
		for _, g := range c.gateways[:1] {
			if err := g.Write(t.Context(), testRef(0), &sheep.Write{Create: true}); err != nil {
				t.Fatal(err)
			}
		}
		c.set(0x7c2b25, func(_ cluster.Ownership, index sheep.Generation) (cluster.Ownership, bool) {
			return cluster.Ownership{Owner: 2, Node: nodeOf(2), Generation: index, Draining: true, Plan: true}, true
		})
		var wg sync.WaitGroup
		for i, g := range c.gateways {
			wg.Go(func() {
				if err := g.Write(t.Context(), testRef(0), &sheep.Write{Data: []byte("late")}); !errors.Is(err, sheep.ErrReadOnly) {
					t.Errorf("gateway %d: got %v, want %v", i, err, sheep.ErrReadOnly)
				}
			})
		}
		time.Sleep(time.Second)
		c.mu.Lock()
		c.snapshots = map[sheep.VDIID]bool{0x7c2b25: true}
		c.mu.Unlock()
		c.set(0x7c2b25, func(cluster.Ownership, sheep.Generation) (cluster.Ownership, bool) { return cluster.Ownership{}, true })
		wg.Wait()
	})
}

func TestInsideExclusiveTheSameVDIIsAdmitted(t *testing.T) {
	c := newTestCluster(t, 1)
	g, inode := c.gateways[0], sheep.Ref{ID: sheep.InodeObject(0x7c2b25), Policy: sheep.Replicated(1), Size: sheep.InodeSize}
	err := g.Exclusive(t.Context(), inode.ID, func(ctx context.Context, below sheep.Objects) error {
		if err := below.Write(ctx, inode, &sheep.Write{Create: true}); err != nil {
			return err
		}
		return g.Write(ctx, testRef(0), &sheep.Write{Create: true})
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := len(c.store.IDs()); got != 2 {
		t.Errorf("got %d objects, want 2", got)
	}
}

func TestExclusiveElsewhereRunsNothing(t *testing.T) {
	c := newTestCluster(t, 2)
	if _, err := (member{c: c, inc: 2}).Own(t.Context(), 0x7c2b25); err != nil {
		t.Fatal(err)
	}
	ran := false
	err := c.gateways[0].Exclusive(t.Context(), sheep.InodeObject(0x7c2b25), func(context.Context, sheep.Objects) error {
		ran = true
		return nil
	})
	if _, ok := errors.AsType[*sheep.NotOwnerError](err); !ok || ran {
		t.Errorf("got %v, ran %v; want a NotOwnerError and nothing run", err, ran)
	}
}
