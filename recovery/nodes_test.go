package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/recovery"
	"sheepdog/sheep"
	"sheepdog/sheep/replica"
	"sheepdog/sheep/store/vfs/vfstest"
)

// inWorld runs fn with a cluster of five storage nodes that hold the objects.
func inWorld(t *testing.T, fn func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, rand.New(rand.NewPCG(1, 1)), 5)
		createAll(t, w)
		fn(t, w)
		for _, m := range w.machines {
			if m.life != nil {
				w.stop(m, true)
			}
		}
	})
}

// holders returns the machines that hold the object of ref in the present epoch.
func (w *world) holders(ref sheep.Ref) []*machine {
	v := w.machines[5].life.View()
	var all []*machine
	for _, i := range v.Ring.Place(ref.ID, 3) {
		all = append(all, w.machines[slices.IndexFunc(w.machines, func(m *machine) bool { return m.node.Addr == v.Nodes[i].Addr })])
	}
	return all
}

func TestANodeThatDoesNotHoldAnObjectSaysSo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.disable(true)
		w.begin()
		time.Sleep(time.Second)
		ref, holders := reference(0), w.holders(reference(0))
		ref.Epoch = w.epoch
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, m := range w.machines[:5] {
			var want error
			if !slices.Contains(holders, m) {
				want = replica.ErrNotHolder
			}
			if err := m.life.replica.Read(ctx, ref, make([]byte, 8), 0); !errors.Is(err, want) {
				t.Errorf("read from %v: got %v, want %v", m.node, err, want)
			}
		}
	})
}

// TestNobodyIsToldOfATrustedCopyThatIsNotThere: a node is asked for the state of an
// object at the moment in which it has fetched it. Who heard that it knows for certain
// that there is no such object would remove the last copy.
func TestNobodyIsToldOfATrustedCopyThatIsNotThere(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		settle(w)
		w.disable(true)
		w.stop(w.holders(reference(0))[0], true)
		w.begin()
		time.Sleep(time.Second)
		ref, fresh := reference(0), w.holders(reference(0))[2]
		ref.Epoch = w.epoch
		if s := fresh.life.rec.State(ref.ID); s.Exists || s.Trusted {
			t.Fatalf("the new holder has it already: %+v", s)
		}
		fetched := false
		fresh.missed.Store(new(func() {
			if err := fresh.life.rec.Verify(fresh.life.ctx, ref); err != nil {
				t.Error(err)
			}
			fetched = true
		}))
		if s := fresh.life.rec.State(ref.ID); !fetched || !s.Exists && (s.Trusted || s.Current == w.epoch) {
			t.Errorf("fetched meanwhile: %t; got %+v", fetched, s)
		}
		if s := fresh.life.rec.State(ref.ID); !s.Exists || !s.Trusted {
			t.Errorf("after the fetch: %+v", s)
		}
	})
}

func TestACopyThatHadNoRoomForAWriteIsNotReadUntilItIsEqual(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ref, full, gateway := reference(0), w.holders(reference(0))[1], w.machines[5].life
		full.disk.SetFree(0)
		again := &sheep.Write{Data: content(7), Create: true}
		if err := gateway.fan.Write(gateway.ctx, ref, again); !errors.Is(err, sheep.ErrNoSpace) {
			t.Fatalf("got %v, want %v", err, sheep.ErrNoSpace)
		}
		ref.Epoch = w.epoch
		p := make([]byte, slotSize)
		if err := full.life.replica.Read(t.Context(), ref, p, 0); !errors.Is(err, sheep.ErrNoSpace) {
			t.Errorf("read of the copy that lacks the write: got %v, want %v", err, sheep.ErrNoSpace)
		}
		if err := gateway.fan.Read(t.Context(), ref, p, 0); err != nil || p[0] != 7 {
			t.Errorf("read: %d, %v; want it from another copy", p[0], err)
		}
		full.disk.SetFree(1 << 40)
		if err := full.life.replica.Read(t.Context(), ref, p, 0); err != nil || p[0] != 7 {
			t.Errorf("read when there is room: %d, %v", p[0], err)
		}
	})
}

// TestASurplusCopyThatWasRemovedIsNoProofOfAbsence: a node held an object for
// an epoch, removed it as surplus and started again. That it has none says
// nothing about any epoch.
func TestASurplusCopyThatWasRemovedIsNoProofOfAbsence(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ref, before := reference(0), w.holders(reference(0))
		settle(w)
		w.stop(before[0], true)
		w.begin()
		time.Sleep(time.Second)
		settle(w)
		guest := w.holders(ref)[slices.IndexFunc(w.holders(ref), func(m *machine) bool { return !slices.Contains(before, m) })]
		if !guest.life.store.Has(ref.ID) {
			t.Fatal("the node that holds it meanwhile has not fetched it")
		}
		w.start(before[0], false)
		w.begin()
		settle(w)
		time.Sleep(time.Second)
		if guest.life.store.Has(ref.ID) {
			t.Fatal("the surplus copy has not been removed")
		}
		w.stop(guest, true)
		w.begin()
		w.disable(true)
		w.start(guest, false)
		w.begin()
		time.Sleep(time.Second)
		if s := guest.life.rec.State(ref.ID); s.Exists || s.Trusted || s.Current != 0 {
			t.Errorf("got %+v, want nothing claimed", s)
		}
	})
}

// TestASurplusCopyThatMissedWritesIsNotBelieved: a node was to hold an object in
// an epoch in which it never looked at its old copy. Later it is complete for an
// epoch in which it does not hold the object, which says nothing about that copy.
func TestASurplusCopyThatMissedWritesIsNotBelieved(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ref, gateway := reference(0), w.machines[5].life
		first := w.holders(ref)
		settle(w)
		w.stop(first[0], true)
		w.begin()
		time.Sleep(time.Second)
		settle(w)
		guest := w.holders(ref)[slices.IndexFunc(w.holders(ref), func(m *machine) bool { return !slices.Contains(first, m) })]
		w.disable(true)
		w.stop(guest, true)
		w.begin()
		if err := gateway.fan.Write(gateway.ctx, ref, &sheep.Write{Data: content(7), Durable: true}); err != nil {
			t.Fatal(err)
		}
		w.start(guest, false)
		w.begin() // now the guest is to hold it again
		time.Sleep(time.Second)
		if !slices.Contains(w.holders(ref), guest) {
			t.Fatal("the guest is not a holder")
		}
		w.start(first[0], false)
		for _, m := range w.machines {
			if m != guest {
				m.life.rec.SetThrottle(recovery.Throttle{Max: 1, Interval: 24 * time.Hour})
			}
		}
		w.disable(false)
		w.begin()
		for !w.completed(guest) {
			time.Sleep(100 * time.Millisecond)
		}
		w.disable(true)
		for _, m := range w.machines[:5] {
			w.stop(m, true)
			w.begin()
			w.start(m, false)
			w.begin()
		}
		p := make([]byte, slotSize)
		if err := gateway.fan.Read(gateway.ctx, ref, p, 0); err != nil || p[0] != 7 {
			t.Errorf("read version %d, %v; want what was written, 7", p[0], err)
		}
	})
}

// TestANodeThatCameAndWentUnusedIsNotWaitedFor: three holders start, none looks at
// its copy, and one goes again. The others know that nothing was answered meanwhile.
func TestANodeThatCameAndWentUnusedIsNotWaitedFor(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ref, gateway := reference(0), w.machines[5].life
		if err := gateway.fan.Write(gateway.ctx, ref, &sheep.Write{Data: content(7), Durable: true}); err != nil {
			t.Fatal(err)
		}
		settle(w)
		w.disable(true)
		holders := w.holders(ref)
		for _, m := range holders {
			w.stop(m, false)
		}
		for _, m := range holders {
			w.start(m, false)
		}
		w.begin()
		time.Sleep(time.Second)
		w.stop(holders[0], false)
		w.begin()
		p := make([]byte, slotSize)
		ctx, cancel := context.WithTimeout(gateway.ctx, time.Minute)
		defer cancel()
		if err := gateway.fan.Read(ctx, ref, p, 0); err != nil || p[0] != 7 {
			t.Errorf("read version %d, %v; want 7", p[0], err)
		}
	})
}

// disable switches recovery in the background off or on, from the next epoch on.
func (w *world) disable(yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disabled = yes
}

// completed reports whether m is complete for the present epoch.
func (w *world) completed(m *machine) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.complete[m.life.inc] == w.epoch
}

// TestWhatWasFlushedOutlastsThoseThatLostItBefore: one holder loses a deferred
// write with its power. The write is flushed by the others, who then lose their
// power too, before recovery is through. The first comes back before them.
func TestWhatWasFlushedOutlastsThoseThatLostItBefore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.disable(true)
		w.harsh = true
		ref, holders, gateway := reference(0), w.holders(reference(0)), w.machines[5].life
		for v := range uint64(3) { // the first makes the object hot, durably
			if err := gateway.fan.Write(gateway.ctx, ref, &sheep.Write{Data: content(v)}); err != nil {
				t.Fatal(err)
			}
		}
		w.stop(holders[0], false)
		w.begin()
		if err := gateway.fan.Flush(gateway.ctx, disk.ID); err != nil {
			t.Fatal(err)
		}
		for _, m := range holders[1:] {
			w.stop(m, false)
			w.begin()
		}
		for _, m := range holders {
			w.start(m, false)
			w.begin()
		}
		for range 3 {
			p := make([]byte, slotSize)
			if err := gateway.fan.Read(gateway.ctx, ref, p, 0); err != nil || p[0] != 2 {
				t.Fatalf("read version %d, %v; want what was flushed, 2", p[0], err)
			}
		}
	})
}

// TestWritesGoOnWhileACopyIsFetched: a node lacks objects that clients write. They
// do not wait for it, and what it has in the end is what the others have.
func TestWritesGoOnWhileACopyIsFetched(t *testing.T) {
	for _, when := range []string{"during the fetch", "before it", "until it is over"} {
		t.Run(when, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				ref, gateway := reference(0), w.machines[5].life
				settle(w)
				w.stop(w.holders(ref)[0], false)
				w.begin()
				settle(w)
				fresh := w.holders(ref)[2]
				w.stop(fresh, false)
				fresh.disk = vfstest.NewMemory(1 << 40)
				w.start(fresh, true)
				hold := make(chan struct{})
				w.mu.Lock()
				w.hold = hold
				w.mu.Unlock()
				w.disable(when == "before it")
				w.begin()
				time.Sleep(10 * time.Second)
				write := func(k int, v uint64) {
					t.Helper()
					ctx, cancel := context.WithTimeout(gateway.ctx, time.Minute)
					defer cancel()
					if err := gateway.fan.Write(ctx, ref, &sheep.Write{Off: uint32(k * slotSize), Data: content(v), Durable: k%2 == 0}); err != nil {
						t.Fatal(err)
					}
				}
				for v := range uint64(3) {
					for k := range slots / 2 {
						write(k, v+1)
					}
				}
				p := make([]byte, slotSize)
				if err := gateway.fan.Read(gateway.ctx, ref, p, 0); err != nil {
					t.Fatal(err)
				}
				if v, _ := version(p); v != 3 {
					t.Errorf("read version %d, want 3", v)
				}
				if fresh.life.store.Has(ref.ID) {
					t.Fatal("the object has been fetched")
				}
				w.mu.Lock()
				w.hold = nil
				w.mu.Unlock()
				close(hold)
				if when == "until it is over" {
					for v := range uint64(100) {
						for k := range slots {
							write(k, v+4)
						}
					}
				}
				w.change(func() { w.disabled = false })
				settle(w)
				var first []byte
				for _, m := range w.holders(ref) {
					p := make([]byte, objectSize)
					if err := m.life.store.Read(ref.ID, 0, p, 0); err != nil {
						t.Fatal(err)
					}
					if first == nil {
						first = p
					}
					if info, err := m.life.store.Stat(ref.ID); !bytes.Equal(p, first) || err != nil || info.WriteEpoch != w.epoch {
						t.Errorf("the copy of %v is another one, or not known to be of epoch %d: %+v, %v", m.node, w.epoch, info, err)
					}
				}
				if v, _ := version(first); v < 3 {
					t.Errorf("the copies have version %d", v)
				}
			})
		})
	}
}
