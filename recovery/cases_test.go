package recovery_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sheepdog/recovery"
	"sheepdog/sheep"
)

// allCopies checks that each object has a current copy on each of its holders, and
// none elsewhere, and that it is what was written last.
func (w *world) allCopies(t *testing.T) {
	t.Helper()
	settle(w)
	time.Sleep(time.Second) // for what is surplus
	for i := range objects {
		ref := reference(i)
		holders := w.holders(ref)
		for _, m := range w.machines[:len(w.machines)-1] {
			if m.life == nil {
				continue
			}
			s := m.life.rec.State(ref.ID)
			if holds := slices.Contains(holders, m); s.Exists != holds || holds && !s.Trusted {
				t.Errorf("object %d on %v, which holds it: %t; got %+v", i, m.node, holds, s)
			}
			p := make([]byte, slotSize)
			if s.Exists && (m.life.store.Read(ref.ID, 0, p, 0) != nil || p[0] != byte(i+1)) {
				t.Errorf("object %d on %v has version %d", i, m.node, p[0])
			}
		}
	}
}

// writeAll writes version i+1 into object i.
func writeAll(t *testing.T, w *world) {
	t.Helper()
	gateway := w.machines[len(w.machines)-1].life
	for i := range objects {
		if err := gateway.fan.Write(gateway.ctx, reference(i), &sheep.Write{Data: content(uint64(i + 1)), Durable: i%2 == 0}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestChangesOfTheCluster has all kinds of changes happen, one after the other or
// all before recovery has dealt with the first.
func TestChangesOfTheCluster(t *testing.T) {
	changes := []struct {
		name string
		fn   func(w *world)
	}{
		{"a node leaves", func(w *world) { w.leave(w.machines[0], false) }},
		{"a node weighs more", func(w *world) { w.beginWith(func() { w.machines[1].node.VNodes = 200 }) }},
		{"a node changes its zone", func(w *world) { w.beginWith(func() { w.machines[2].node.Zone = w.machines[3].node.Zone }) }},
		{"the node is back", func(w *world) { w.start(w.machines[0], false); w.begin() }},
		{"a node weighs less", func(w *world) { w.beginWith(func() { w.machines[1].node.VNodes = 8 }) }},
		{"a node is drained", func(w *world) { w.drain(w.machines[4]) }},
		{"the zone is another again", func(w *world) { w.beginWith(func() { w.machines[2].node.Zone = 77 }) }},
		{"the drained node leaves", func(w *world) { w.leave(w.machines[4], true) }},
		{"another node begins a new life", func(w *world) { w.stop(w.machines[3], false); w.start(w.machines[3], false); w.begin() }},
		{"the drain is undone", func(w *world) { w.drain() }},
		{"the drained node is back", func(w *world) { w.start(w.machines[4], false); w.begin() }},
	}
	t.Run("one after the other", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			for _, change := range changes {
				writeAll(t, w)
				change.fn(w)
				w.allCopies(t)
				if t.Failed() {
					t.Fatal(change.name)
				}
			}
		})
	})
	t.Run("during recovery", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			settle(w)
			writeAll(t, w)
			for _, change := range changes {
				change.fn(w)
				for _, m := range w.machines {
					if m.life != nil {
						m.life.rec.SetThrottle(recovery.Throttle{Max: 5, Interval: time.Second})
					}
				}
				time.Sleep(500 * time.Millisecond)
			}
			w.allCopies(t)
		})
	})
}

// TestAFullDiskDoesNotStopTheOthers: a node that is to hold more has no room.
func TestAFullDiskDoesNotStopTheOthers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		settle(w)
		writeAll(t, w)
		gateway := w.machines[5].life
		if err := gateway.fan.Flush(gateway.ctx, disk.ID); err != nil {
			t.Fatal(err)
		}
		w.leave(w.machines[0], true)
		var full *machine
		for _, m := range w.machines[1:5] {
			if full == nil || len(w.held(m)) > len(w.held(full)) {
				full = m
			}
		}
		full.disk.SetFree(0)
		time.Sleep(10 * time.Second)
		waiting := full.life.rec.Waiting()
		if len(waiting) == 0 || w.completed(full) {
			t.Fatalf("%d objects wait on the full node; complete: %t", len(waiting), w.completed(full))
		}
		for _, o := range waiting {
			if !errors.Is(o.Err, sheep.ErrNoSpace) {
				t.Errorf("object %v waits because of %v", o.ID, o.Err)
			}
		}
		for _, m := range w.machines[1:5] {
			if m != full && !w.completed(m) {
				t.Errorf("%v is not complete: %+v", m.node, m.life.rec.Waiting())
			}
		}
		for i := range objects {
			p := make([]byte, slotSize)
			if err := gateway.fan.Read(gateway.ctx, reference(i), p, 0); err != nil || p[0] != byte(i+1) {
				t.Errorf("object %d: read version %d, %v", i, p[0], err)
			}
		}
		full.disk.SetFree(1 << 40)
		w.allCopies(t)
	})
}

// TestALostFileIsReplacedOnFirstContact: who reads or writes notices nothing.
func TestALostFileIsReplacedOnFirstContact(t *testing.T) {
	contacts := map[string]func(l *life, ref sheep.Ref, version uint64) error{
		"write": func(l *life, ref sheep.Ref, version uint64) error {
			return l.fan.Write(l.ctx, ref, &sheep.Write{Data: content(version)})
		},
		"read": func(l *life, ref sheep.Ref, version uint64) error {
			p := make([]byte, slotSize)
			for range 3 { // whichever is asked first
				if err := l.fan.Read(l.ctx, ref, p, 0); err != nil || p[0] != byte(version) {
					return fmt.Errorf("read version %d, %w", p[0], err)
				}
			}
			return nil
		},
	}
	for name, contact := range contacts {
		for lost := range 3 {
			t.Run(fmt.Sprintf("%s, %d lost", name, lost), func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					settle(w)
					writeAll(t, w)
					ref := reference(0)
					for _, m := range w.holders(ref)[:lost] {
						if _, err := m.life.store.Remove(ref.ID, w.epoch); err != nil {
							t.Fatal(err)
						}
					}
					if err := contact(w.machines[5].life, ref, 1); err != nil {
						t.Error(err)
					}
					time.Sleep(10 * time.Second)
					w.allCopies(t)
				})
			})
		}
	}
}

// TestAnObjectThatNobodyHasStaysAway: to ask for it again and again ends each time.
func TestAnObjectThatNobodyHasStaysAway(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		settle(w)
		l, ref := w.machines[5].life, reference(objects+1)
		for range 3 {
			if err := l.fan.Write(l.ctx, ref, &sheep.Write{Data: content(1)}); !errors.Is(err, sheep.ErrNoObject) {
				t.Errorf("write: got %v, want %v", err, sheep.ErrNoObject)
			}
			if err := l.fan.Read(l.ctx, ref, make([]byte, 1), 0); !errors.Is(err, sheep.ErrNoObject) {
				t.Errorf("read: got %v, want %v", err, sheep.ErrNoObject)
			}
		}
		if got := w.copies(ref); got != 0 {
			t.Errorf("it has %d copies", got)
		}
	})
}

// TestASourceThatCannotBeReadIsReplacedByAnother: of the two copies that are left
// one is torn.
func TestASourceThatCannotBeReadIsReplacedByAnother(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		settle(w)
		writeAll(t, w)
		holders := w.holders(reference(0))
		torn := holders[1]
		torn.life.rec.Distrust(reference(0).ID)
		w.leave(holders[0], rand.IntN(2) == 0)
		w.allCopies(t)
	})
}
