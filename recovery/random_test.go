package recovery_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/sheep"
)

const (
	objects  = 12
	slotSize = 512 // a disk does not tear it
	slots    = objectSize / slotSize
)

// A slot is what is known of a piece of an object: versions that only grow.
type slot struct {
	top     uint64 // may have been written
	acked   uint64 // answered
	durable uint64 // on stable storage
}

// A history is what the objects of the disk may hold.
type history struct {
	mu    sync.Mutex
	slots [objects][slots]slot
}

// change calls fn with a slot.
func (h *history) change(i, k int, fn func(s *slot)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fn(&h.slots[i][k])
}

// flushed notes that what was answered at the time of before is durable, or, if
// writes were lost, that what was not may be gone.
func (h *history) flushed(before [objects][slots]slot, lost bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.slots {
		for k := range h.slots[i] {
			s := &h.slots[i][k]
			if !lost {
				s.durable = max(s.durable, before[i][k].acked)
			} else if s.acked == before[i][k].acked {
				s.acked = s.durable
			}
		}
	}
}

func (h *history) copy() [objects][slots]slot {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.slots
}

func reference(i int) sheep.Ref {
	return sheep.Ref{ID: sheep.DataObject(disk.ID, uint32(i)), Policy: disk.Policy, Size: objectSize, Generation: 1}
}

func content(v uint64) []byte {
	p := make([]byte, slotSize)
	for off := 0; off < slotSize; off += 8 {
		binary.LittleEndian.PutUint64(p[off:], v)
	}
	return p
}

// version returns which version p holds, and whether it holds one as a whole.
func version(p []byte) (uint64, bool) {
	v := binary.LittleEndian.Uint64(p)
	for off := 0; off < slotSize; off += 8 {
		if binary.LittleEndian.Uint64(p[off:]) != v {
			return 0, false
		}
	}
	return v, true
}

// work writes objects, read now and then, through the gateway, each object by
// one worker, until stop is closed.
func work(t *testing.T, l *life, h *history, rng *rand.Rand, mine []int, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		i, k := mine[rng.IntN(len(mine))], rng.IntN(slots)
		if rng.IntN(4) == 0 {
			p := make([]byte, slotSize)
			err := l.fan.Read(l.ctx, reference(i), p, uint32(k*slotSize))
			v, whole := version(p)
			if l.ctx.Err() != nil {
				return
			}
			h.change(i, k, func(s *slot) {
				// What all holders have lost is not there; the next flush will say so.
				if err != nil || !whole || v < s.durable || v > s.top {
					t.Errorf("object %d, slot %d: read version %d (whole %t), %v; want %d to %d", i, k, v, whole, err, s.durable, s.top)
				}
			})
			continue
		}
		w := &sheep.Write{Off: uint32(k * slotSize), Durable: rng.IntN(3) == 0}
		var v uint64
		h.change(i, k, func(s *slot) { s.top++; v = s.top })
		w.Data = content(v)
		err := l.fan.Write(l.ctx, reference(i), w)
		if l.ctx.Err() != nil {
			return // it may have been written
		}
		if err != nil {
			t.Errorf("write object %d, slot %d: %v", i, k, err)
			return
		}
		h.change(i, k, func(s *slot) {
			s.acked = v
			if w.Durable {
				s.durable = v
			}
		})
	}
}

// flush flushes the disk and notes what that says.
func flush(t *testing.T, l *life, h *history) {
	before := h.copy()
	err := l.fan.Flush(l.ctx, disk.ID)
	sheep.Told(err)
	if err != nil && !errors.Is(err, sheep.ErrLostWrites) {
		t.Errorf("flush: %v", err)
		return
	}
	h.flushed(before, err != nil)
}

// verify compares every copy in the cluster with the history and the others.
func verify(t *testing.T, w *world, h *history) {
	t.Helper()
	for i := range objects {
		ref := reference(i)
		seen := make(map[int]uint64)
		for _, m := range w.machines {
			if m.life == nil {
				continue
			}
			st, err := m.life.replica.States(t.Context(), w.epoch, []sheep.ObjectID{ref.ID})
			if err != nil {
				t.Fatal(err)
			}
			if !st[0].Trusted || !st[0].Exists {
				continue
			}
			p := make([]byte, objectSize)
			if err := m.life.store.Read(ref.ID, 0, p, 0); err != nil {
				t.Fatal(err)
			}
			for k := range slots {
				v, whole := version(p[k*slotSize:][:slotSize])
				s := h.slots[i][k]
				if first, ok := seen[k]; !whole || v < s.acked || v > s.top || ok && first != v {
					t.Errorf("object %d, slot %d on %v: version %d (whole %t), want %d to %d, of which %d is durable, on another copy %d", i, k, m.node, v, whole, s.acked, s.top, s.durable, first)
				}
				seen[k] = v
			}
		}
		if len(seen) == 0 {
			t.Errorf("object %d has no trusted copy", i)
		}
	}
}

// script lets nodes lose their power, stop and come back while workers write,
// with up to pause milliseconds between: recovery seldom comes to an end in 50.
// The last storage node that is up stays so.
func script(t *testing.T, w *world, rng *rand.Rand, steps, pause int) {
	storage := w.machines[:len(w.machines)-1]
	for range steps {
		time.Sleep(time.Duration(rng.IntN(pause)) * time.Millisecond)
		var up, down []*machine
		for _, m := range storage {
			if m.life != nil {
				up = append(up, m)
			} else {
				down = append(down, m)
			}
		}
		switch victim := up[rng.IntN(len(up))]; {
		case rng.IntN(8) == 0:
			w.heed(rng, up)
		case len(down) > 0 && (len(up) == 1 || rng.IntN(2) == 0):
			w.start(down[rng.IntN(len(down))], false)
		case !slices.ContainsFunc(up, func(m *machine) bool { return m != victim && !w.isDrained(m) }):
			// The others are to hold nothing.
		default:
			w.stop(victim, rng.IntN(4) == 0)
		}
		w.begin()
		if t.Failed() {
			break
		}
	}
	for _, m := range storage {
		if m.life == nil {
			w.start(m, false)
			w.begin()
		}
	}
}

// heed does what operators do: a node is drained or is not any more, is to be
// waited for, or does not weigh what it did.
func (w *world) heed(rng *rand.Rand, up []*machine) {
	m := up[rng.IntN(len(up))]
	others := slices.ContainsFunc(up, func(o *machine) bool { return o != m && !w.isDrained(o) })
	switch rng.IntN(4) {
	case 0:
		w.beginWith(func() { w.drained = nil })
	case 1:
		if others && !w.isDrained(m) {
			w.beginWith(func() { w.drained = append(w.drained, m.node.Addr) })
		}
	case 2:
		w.change(func() { w.care = map[netip.AddrPort]time.Duration{m.node.Addr: time.Minute} })
	case 3:
		w.beginWith(func() { m.node.VNodes = uint16(1 + rng.IntN(200)) })
	}
}

func (w *world) isDrained(m *machine) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.drained, m.node.Addr)
}

// TestNothingAcknowledgedIsLostWhileTheGatewayLives runs random scripts. The
// gateway lives through all of it: what it has answered is in every trusted
// copy at the end, durable or not, unless a flush has said that it was lost.
func TestNothingAcknowledgedIsLostWhileTheGatewayLives(t *testing.T) {
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprintf("SHEEP_TEST_SEED=%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { live(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

// seeds returns SHEEP_TEST_SEED, or as many new seeds as SHEEP_TEST_SEEDS says:
// 200 if it says nothing.
func seeds(t *testing.T) []uint64 {
	t.Helper()
	number := func(name string, otherwise uint64) uint64 {
		v := os.Getenv(name)
		if v == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	if s := number("SHEEP_TEST_SEED", 0); s != 0 {
		return []uint64{s}
	}
	otherwise := uint64(200)
	if testing.Short() {
		otherwise = 20
	}
	all := make([]uint64, number("SHEEP_TEST_SEEDS", otherwise))
	for i := range all {
		all[i] = rand.Uint64()
	}
	return all
}

func live(t *testing.T, rng *rand.Rand) {
	nodes := 4 + rng.IntN(2)
	w := newWorld(t, rand.New(rand.NewPCG(rng.Uint64(), 2)), nodes)
	w.delay = []time.Duration{0, 0, 100 * time.Millisecond, time.Second, time.Hour}[rng.IntN(5)]
	gateway := w.machines[nodes].life
	watchdog := time.AfterFunc(time.Hour, func() { panic("the requests do not end") })
	h := &history{}
	createAll(t, w)
	stop := make(chan struct{})
	var workers sync.WaitGroup
	for k := range 4 {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 3))
		workers.Go(func() { work(t, gateway, h, rng, []int{k, k + 4, k + 8}, stop) })
	}
	workers.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(700 * time.Millisecond):
				flush(t, gateway, h)
			}
		}
	})
	script(t, w, rng, 80, []int{50, 100, 400}[rng.IntN(3)])
	w.beginWith(func() { w.drained = nil })
	close(stop)
	workers.Wait()
	flush(t, gateway, h)
	settle(w)
	verify(t, w, h)
	watchdog.Stop()
	for _, m := range w.machines {
		w.stop(m, true)
	}
}

// settle returns when all nodes are complete.
func settle(w *world) {
	for {
		if w.isComplete() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestCopiesAreEqualWhenTheirWriterHasDied kills the gateway in the middle of
// its writes, and sometimes a storage node with it. What has reached some
// copies only is at all or none afterwards.
func TestCopiesAreEqualWhenTheirWriterHasDied(t *testing.T) {
	seed := seeds(t)[0]
	t.Logf("SHEEP_TEST_SEED=%d", seed)
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(seed, 4))
		w := newWorld(t, rand.New(rand.NewPCG(rng.Uint64(), 5)), 5)
		h := &history{}
		createAll(t, w)
		for range 20 {
			m := w.machines[5]
			l := m.life
			var workers sync.WaitGroup
			for k := range 4 {
				rng := rand.New(rand.NewPCG(rng.Uint64(), 6))
				workers.Go(func() { work(t, l, h, rng, []int{k, k + 4, k + 8}, nil) })
			}
			time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond)
			dead := []*machine{m}
			if rng.IntN(2) == 0 {
				dead = append(dead, w.machines[rng.IntN(5)])
			}
			for _, m := range dead {
				w.stop(m, false)
			}
			workers.Wait()
			h.flushed(h.copy(), true)
			for _, m := range dead {
				w.begin()
				w.start(m, false)
				w.begin()
			}
			settle(w)
			verify(t, w, h)
			if t.Failed() {
				break
			}
		}
		for _, m := range w.machines {
			w.stop(m, true)
		}
	})
}

// createAll creates the objects.
func createAll(t *testing.T, w *world) {
	t.Helper()
	l := w.machines[len(w.machines)-1].life
	for i := range objects {
		if err := l.fan.Write(l.ctx, reference(i), &sheep.Write{Create: true}); err != nil {
			t.Fatal(err)
		}
	}
}
