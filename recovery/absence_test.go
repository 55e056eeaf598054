package recovery_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/recovery"
	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/store/vfs/vfstest"
)

// inPatientWorld runs fn with a complete cluster of five storage nodes that waits
// for the copies of those that leave.
func inPatientWorld(t *testing.T, delay time.Duration, fn func(t *testing.T, w *world)) {
	inWorld(t, func(t *testing.T, w *world) {
		settle(w)
		w.change(func() { w.delay = delay })
		time.Sleep(time.Second)
		fn(t, w)
	})
}

// fetched returns how much the storage nodes that are up have fetched in their
// lives, together.
func (w *world) fetched() (sum recovery.Fetched) {
	for _, m := range w.machines {
		if m.life != nil {
			f := m.life.rec.Fetched()
			sum.Objects += f.Objects
			sum.Bytes += f.Bytes
		}
	}
	return sum
}

// copies returns how many of the machines that are up have a copy of the object
// that they trust.
func (w *world) copies(ref sheep.Ref) int {
	n := 0
	for _, m := range w.machines {
		if m.life != nil {
			if s := m.life.rec.State(ref.ID); s.Exists && s.Trusted {
				n++
			}
		}
	}
	return n
}

// held returns the objects that m holds in the present epoch.
func (w *world) held(m *machine) []int {
	var all []int
	for i := range objects {
		if slices.Contains(w.holders(reference(i)), m) {
			all = append(all, i)
		}
	}
	return all
}

// leave has m leave the cluster.
func (w *world) leave(m *machine, clean bool) {
	w.stop(m, clean)
	w.begin()
}

func TestADepartureStartsNoHealingBeforeItsTimeIsOver(t *testing.T) {
	for _, clean := range []bool{true, false} {
		inPatientWorld(t, time.Minute, func(t *testing.T, w *world) {
			gone := w.machines[1]
			lost := len(w.held(gone))
			w.leave(gone, clean)
			time.Sleep(50 * time.Second)
			gateway := w.machines[5].life
			for i := range 3 * objects { // each holder in turn, as it would be
				if err := gateway.fan.Read(gateway.ctx, reference(i%objects), make([]byte, slotSize), 0); err != nil {
					t.Error(err)
				}
			}
			if got := w.fetched().Objects; got != 0 {
				t.Errorf("%d objects were fetched before the time was over", got)
			}
			later := 0
			for _, m := range w.machines {
				if m.life == nil || m.node.VNodes == 0 {
					continue
				}
				p := m.life.rec.Progress()
				later += int(p.Later)
				if w.completed(m) != (p.Later == 0) || p.Later > 0 && !p.Running {
					t.Errorf("%v leaves %d objects for later; complete: %t, running: %t", m.node, p.Later, w.completed(m), p.Running)
				}
				if p.Later > 0 && (p.Recheck > 11*time.Second || p.Recheck < 8*time.Second || p.Awaited[0].Node != gone.node) {
					t.Errorf("%v waits another %v for %v", m.node, p.Recheck, p.Awaited)
				}
			}
			if later != lost {
				t.Errorf("%d objects are left for later, %d have lost a copy", later, lost)
			}
			time.Sleep(11 * time.Second)
			settle(w)
			if got := int(w.fetched().Objects); got != lost {
				t.Errorf("%d objects were fetched, %d have lost a copy", got, lost)
			}
			for i := range objects {
				if got := w.copies(reference(i)); got != 3 {
					t.Errorf("object %d has %d copies", i, got)
				}
			}
		})
	}
}

func TestAShortAbsenceTransfersOnlyWhatHasChanged(t *testing.T) {
	inPatientWorld(t, time.Hour, func(t *testing.T, w *world) {
		gone, gateway := w.machines[1], w.machines[5].life
		mine := w.held(gone)
		if len(mine) < 4 {
			t.Fatalf("the node holds %d objects only", len(mine))
		}
		w.leave(gone, true)
		time.Sleep(time.Minute)
		for _, i := range mine[:2] {
			if err := gateway.fan.Write(gateway.ctx, reference(i), &sheep.Write{Data: content(7)}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute)
		contacts := w.fetched() // those that hold them meanwhile
		if contacts.Objects != 2 || contacts.Bytes != 2*objectSize {
			t.Errorf("two objects were written, and fetched for that: %+v", contacts)
		}
		w.start(gone, false)
		w.begin()
		settle(w)
		if got := gone.life.rec.Fetched(); got.Objects != 2 || got.Bytes != 2*objectSize {
			t.Errorf("two objects were written meanwhile; fetched when the node came back: %+v", got)
		}
		if got := w.fetched().Objects; got != 4 {
			t.Errorf("%d objects were fetched in all, want 4", got)
		}
		time.Sleep(time.Second)
		for i := range objects {
			for _, m := range w.machines[:5] {
				if m.life.store.Has(reference(i).ID) != slices.Contains(w.holders(reference(i)), m) {
					t.Errorf("object %d on %v: %t", i, m.node, m.life.store.Has(reference(i).ID))
				}
			}
		}
	})
}

// TestAnObjectIsReadableWhileItsHolderIsAwaited reads what a node is to hold that
// has not got it.
func TestAnObjectIsReadableWhileItsHolderIsAwaited(t *testing.T) {
	inPatientWorld(t, time.Hour, func(t *testing.T, w *world) {
		gateway := w.machines[5].life
		if err := gateway.fan.Write(gateway.ctx, reference(0), &sheep.Write{Data: content(7)}); err != nil {
			t.Fatal(err)
		}
		w.leave(w.holders(reference(0))[0], false)
		time.Sleep(time.Second)
		ref := reference(0)
		ref.Epoch = w.epoch
		for _, m := range w.holders(ref) {
			p := make([]byte, slotSize)
			if err := m.life.replica.Read(gateway.ctx, ref, p, 0); err != nil || p[0] != 7 {
				t.Errorf("%v reads version %d, %v; want 7", m.node, p[0], err)
			}
		}
		if got := w.fetched().Objects; got > 1+1 { // it was hot
			t.Errorf("%d objects were fetched for that", got)
		}
	})
}

func TestTheLastCopyIsMadeAnewAtOnce(t *testing.T) {
	inPatientWorld(t, time.Hour, func(t *testing.T, w *world) {
		ref := reference(0)
		first := w.holders(ref)
		w.leave(first[0], false)
		time.Sleep(time.Minute)
		if got := w.fetched().Objects; got != 0 {
			t.Fatalf("%d objects were fetched while two copies were left of each", got)
		}
		w.leave(first[1], false)
		time.Sleep(30 * time.Second)
		down := 0
		for i := range objects {
			n := 0
			for _, m := range w.holdersAmong(reference(i), first[:2]) {
				if m.life != nil {
					n++
				}
			}
			copies := w.copies(reference(i))
			switch {
			case n == 1 && copies < 3:
				t.Errorf("one copy was left of object %d, and now there are %d", i, copies)
			case n > 1 && copies != n:
				t.Errorf("%d copies were left of object %d, and now there are %d", n, i, copies)
			}
			if n == 1 {
				down++
			}
		}
		if down == 0 || down == objects || w.isComplete() {
			t.Errorf("%d of %d objects were down to one copy; complete: %t", down, objects, w.isComplete())
		}
	})
}

// holdersAmong returns the holders of ref if away were members, too.
func (w *world) holdersAmong(ref sheep.Ref, away []*machine) []*machine {
	v := w.machines[5].life.View()
	var gone []cluster.Absence
	for _, m := range away {
		gone = append(gone, cluster.Absence{Node: m.node})
	}
	nodes := v.With(gone)
	var all []*machine
	for _, i := range placement.NewRing(nodes).Place(ref.ID, 3) {
		all = append(all, w.machines[slices.IndexFunc(w.machines, func(m *machine) bool { return m.node.Addr == nodes[i].Addr })])
	}
	return all
}

// maintain has the log say that the machines are being maintained, and how long.
func (w *world) maintain(d time.Duration, machines ...*machine) {
	w.change(func() {
		w.care = make(map[netip.AddrPort]time.Duration)
		for _, m := range machines {
			w.care[m.node.Addr] = d
		}
	})
}

func TestMaintenanceWaitsAsLongAsItSays(t *testing.T) {
	inPatientWorld(t, time.Second, func(t *testing.T, w *world) {
		holders := w.holders(reference(0))
		w.maintain(cluster.NoEnd, holders[0], holders[1])
		w.leave(holders[0], true)
		w.leave(holders[1], true)
		before := w.fetched().Objects
		time.Sleep(24 * time.Hour)
		if got := w.fetched().Objects - before; got > 0 || w.isComplete() {
			t.Errorf("%d objects were fetched during maintenance, although one copy is left of each", got)
		}
		w.maintain(25*time.Hour, holders[0], holders[1])
		time.Sleep(30 * time.Minute)
		if got := w.fetched().Objects - before; got > 0 {
			t.Errorf("%d objects were fetched before the maintenance was over", got)
		}
		time.Sleep(time.Hour)
		settle(w)
	})
}

func TestANodeThatDiesDuringTheMaintenanceOfAnotherMakesLastCopiesUrgent(t *testing.T) {
	inPatientWorld(t, time.Hour, func(t *testing.T, w *world) {
		ref := reference(0)
		holders := w.holders(ref)
		w.maintain(cluster.NoEnd, holders[0])
		w.leave(holders[0], true)
		time.Sleep(time.Minute)
		w.leave(holders[1], false)
		time.Sleep(time.Minute)
		if got := w.copies(ref); got < 3 || w.isComplete() {
			t.Errorf("there are %d copies of what had one left; complete: %t", got, w.isComplete())
		}
	})
}

func TestADelayThatIsSwitchedOffWhileNodesAreAwaitedEndsAtOnce(t *testing.T) {
	inPatientWorld(t, time.Hour, func(t *testing.T, w *world) {
		w.leave(w.machines[0], false)
		time.Sleep(time.Minute)
		if w.fetched().Objects > 0 {
			t.Error("it did not wait")
		}
		w.change(func() { w.delay = 0 })
		time.Sleep(30 * time.Second)
		if !w.isComplete() {
			t.Error("it still waits")
		}
	})
}

func TestMaintenanceThatIsDeclaredLateStopsHealingThatIsUnderWay(t *testing.T) {
	inPatientWorld(t, time.Hour, func(t *testing.T, w *world) {
		for _, m := range w.machines[:5] {
			m.life.rec.SetThrottle(recovery.Throttle{Max: 1, Interval: time.Minute})
		}
		w.change(func() { w.delay = 0 })
		gone := w.machines[0]
		lost := len(w.held(gone))
		w.leave(gone, false)
		time.Sleep(90 * time.Second) // each has had one turn
		if w.fetched().Objects == 0 {
			t.Fatal("healing has not begun")
		}
		w.maintain(cluster.NoEnd, gone)
		time.Sleep(time.Second)
		before := int(w.fetched().Objects)
		time.Sleep(time.Hour)
		if got := int(w.fetched().Objects); got != before || got >= lost {
			t.Errorf("fetched %d objects before and %d during the maintenance, of %d", before, got-before, lost)
		}
		w.start(gone, false)
		w.begin()
		for _, m := range w.machines[:5] {
			m.life.rec.SetThrottle(recovery.Throttle{})
		}
		settle(w)
		if got := gone.life.rec.Fetched().Objects; got != 0 {
			t.Errorf("the node fetched %d objects when it was back, though nothing was written", got)
		}
	})
}

func TestJoinsAndWeightsAreNotDelayedByAnAbsence(t *testing.T) {
	for name, more := range map[string]func(w *world){
		"a node that joins":         func(w *world) { w.start(w.machines[3], true) },
		"a node that weighs more":   func(w *world) { w.machines[2].node.VNodes = 512 },
		"a node in another zone":    func(w *world) { w.machines[2].node.Zone = w.machines[1].node.Zone },
		"a node that weighs little": func(w *world) { w.machines[2].node.VNodes = 4 },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				if name == "a node that joins" {
					w.leave(w.machines[3], true)
					w.machines[3].disk = vfstest.NewMemory(1 << 40)
				}
				settle(w)
				w.change(func() { w.delay = time.Hour })
				gone := w.machines[0]
				w.leave(gone, false)
				time.Sleep(10 * time.Second)
				before := w.fetched().Objects
				more(w)
				w.begin()
				time.Sleep(time.Minute)
				if got := w.fetched().Objects; got == before {
					t.Error("nothing was moved")
				}
				for i := range objects {
					for _, m := range w.holdersAmong(reference(i), []*machine{gone}) {
						if m.life != nil && !m.life.rec.State(reference(i).ID).Trusted {
							t.Errorf("object %d on %v waits, though that node would hold it anyway", i, m.node)
						}
					}
				}
				if w.isComplete() {
					t.Error("nothing waits for the node that is absent")
				}
				w.start(gone, false)
				w.begin()
				settle(w)
			})
		})
	}
}

// TestAClockThatIsWrongDelaysNobodyForLong: a node that joins has only the log's
// word for how long another has been absent.
func TestAClockThatIsWrongDelaysNobodyForLong(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"ahead": 100 * time.Hour, "behind": -100 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inPatientWorld(t, time.Minute, func(t *testing.T, w *world) {
				late := w.machines[4]
				w.leave(late, true)
				settle(w)
				w.stop(w.machines[0], false)
				w.begin()
				w.start(late, false)
				w.change(func() { w.absences[0].Since = w.absences[0].Since.Add(ahead) })
				w.begin()
				time.Sleep(2 * time.Minute)
				settle(w)
			})
		})
	}
}

// TestTheBudgetIsKept fetches what a node has lost, under limits.
func TestTheBudgetIsKept(t *testing.T) {
	for name, limit := range map[string]recovery.Throttle{
		"one object in ten seconds":             {Max: 1, Interval: 10 * time.Second},
		"as many bytes a second as a tenth":     {Rate: objectSize / 10},
		"whichever is slower":                   {Max: 100, Interval: time.Second, Rate: objectSize / 10},
		"the number of objects, if it is lower": {Max: 1, Interval: 10 * time.Second, Rate: 100 * objectSize},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				settle(w)
				victim := w.machines[0]
				n := len(w.held(victim))
				w.leave(victim, true)
				settle(w)
				time.Sleep(time.Second)
				victim.disk = vfstest.NewMemory(1 << 40)
				w.start(victim, true)
				victim.life.rec.SetThrottle(limit)
				w.begin()
				time.Sleep(15 * time.Second)
				if p := victim.life.rec.Progress(); int(p.Total) != n || p.Finished == 0 || p.Finished == p.Total ||
					p.Bytes != p.Objects*objectSize || p.Left != (p.Total-p.Finished)*objectSize || p.ETA == 0 || p.Rate == 0 {
					t.Errorf("progress with %d objects to fetch: %+v", n, p)
				}
				began := time.Now()
				settle(w)
				if took, want := time.Since(began)+15*time.Second, time.Duration(n-2)*10*time.Second; took < want || took > want+30*time.Second {
					t.Errorf("%d objects took %v", n, took)
				}
				if got := victim.life.rec.Fetched().Objects; int(got) != n {
					t.Errorf("%d objects were fetched, want %d", got, n)
				}
			})
		})
	}
}

func TestALimitThatIsLiftedDoesNotHoldAnyLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, rand.New(rand.NewPCG(1, 1)), 5)
		createAll(t, w)
		for _, m := range w.machines {
			m.life.rec.SetThrottle(recovery.Throttle{Max: 1, Interval: 24 * time.Hour})
		}
		w.leave(w.machines[0], false)
		time.Sleep(time.Minute)
		if w.isComplete() {
			t.Error("the limit did not hold")
		}
		for _, m := range w.machines[1:] {
			m.life.rec.SetThrottle(recovery.Throttle{})
		}
		time.Sleep(time.Minute)
		if !w.isComplete() {
			t.Error("the limit still holds")
		}
		for _, m := range w.machines[1:] {
			w.stop(m, true)
		}
	})
}

// drain has the log say that the machines are to hold nothing, in a new epoch.
func (w *world) drain(machines ...*machine) {
	w.beginWith(func() {
		w.drained = nil
		for _, m := range machines {
			w.drained = append(w.drained, m.node.Addr)
		}
	})
}

// TestANodeThatIsDrainedGivesItsCopiesAway drains the node with the only copy of
// an object, among others: it may be stopped when all are complete, and before that
// it has what it was to have.
func TestANodeThatIsDrainedGivesItsCopiesAway(t *testing.T) {
	inPatientWorld(t, time.Hour, func(t *testing.T, w *world) {
		ref, gateway := reference(0), w.machines[5].life
		holders := w.holders(ref)
		last := holders[2]
		w.drain(holders[0], holders[1])
		w.maintain(cluster.NoEnd, last)
		settle(w)
		if err := gateway.fan.Write(gateway.ctx, ref, &sheep.Write{Data: content(7)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		for _, m := range holders[:2] {
			if got, err := m.life.store.IDs(0); err != nil || len(got) > 0 {
				t.Errorf("%v was drained and has %d objects, %v", m.node, len(got), err)
			}
			w.leave(m, true)
		}
		time.Sleep(10 * time.Second)
		if !w.isComplete() {
			t.Error("somebody waits for nodes that were drained")
		}
		w.drain()
		for _, m := range holders[:2] {
			w.start(m, false)
			w.begin()
		}
		settle(w)
		w.leave(last, false)
		p := make([]byte, slotSize)
		if err := gateway.fan.Read(gateway.ctx, ref, p, 0); err != nil || p[0] != 7 {
			t.Errorf("read version %d, %v; want 7", p[0], err)
		}
	})
}

// TestWhatIsFlushedOutlastsTheNodeThatIsDrained: the node with the only copy of a
// deferred write is drained, the disk is flushed before anybody else has fetched it,
// and then all lose their power.
func TestWhatIsFlushedOutlastsTheNodeThatIsDrained(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.harsh = true
		ref, gateway := reference(objects), w.machines[5].life
		only, others := w.machines[0], w.machines[1:5]
		if err := gateway.fan.Flush(gateway.ctx, disk.ID); err != nil {
			t.Fatal(err)
		}
		for _, m := range others {
			w.stop(m, true)
		}
		w.begin() // the others are away: one copy
		for v := range uint64(3) {
			if err := gateway.fan.Write(gateway.ctx, ref, &sheep.Write{Data: content(v), Create: v == 0}); err != nil {
				t.Fatal(err)
			}
		}
		w.disable(true)
		for _, m := range others {
			w.start(m, false)
		}
		w.begin()
		w.drain(only)
		time.Sleep(time.Second)
		if err := gateway.fan.Flush(gateway.ctx, disk.ID); err != nil {
			t.Fatal(err)
		}
		for _, m := range w.machines[:5] {
			w.stop(m, false)
		}
		for _, m := range w.machines[:5] {
			w.start(m, false)
		}
		w.begin()
		p := make([]byte, slotSize)
		if err := gateway.fan.Read(gateway.ctx, ref, p, 0); err != nil || p[0] != 2 {
			t.Errorf("read version %d, %v; want what was flushed, 2", p[0], err)
		}
	})
}

// TestWhatIsTrustedWhileHealingWaits: all that a node holds is trusted but what
// waits, and what is not believed any more is not.
func TestWhatIsTrustedWhileHealingWaits(t *testing.T) {
	inPatientWorld(t, time.Hour, func(t *testing.T, w *world) {
		gone := w.machines[1]
		w.leave(gone, false)
		time.Sleep(time.Minute)
		waits := 0
		for i := range objects {
			ref := reference(i)
			ref.Epoch = w.epoch
			stay := w.holdersAmong(ref, []*machine{gone})
			for _, m := range w.machines[:5] {
				if m.life == nil {
					continue
				}
				holds := slices.Contains(w.holders(ref), m)
				if got, want := m.life.rec.Trusted(ref), holds && slices.Contains(stay, m); got != want && !w.completed(m) {
					t.Errorf("object %d on %v, which holds it: %t; trusted: %t", i, m.node, holds, got)
				}
				if holds && !slices.Contains(stay, m) {
					waits++
				}
			}
		}
		if waits == 0 {
			t.Fatal("nothing waits")
		}
		ref := reference(0)
		ref.Epoch = w.epoch
		m := w.holdersAmong(ref, []*machine{gone})[0]
		if m == gone {
			m = w.holdersAmong(ref, []*machine{gone})[1]
		}
		m.life.rec.Distrust(ref.ID)
		if m.life.rec.Trusted(ref) {
			t.Error("a copy that cannot be read is trusted")
		}
		time.Sleep(time.Minute)
		if !m.life.rec.Trusted(ref) {
			t.Error("the copy is still not mended")
		}
	})
}
