package vdi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/vdi"
)

// A lane is a range of a disk that one worker alone writes.
type lane struct{ from, to uint64 }

// lanes deals a disk out: of two objects each worker has a part, the third is
// one worker's alone, with a part of what follows.
func lanes(size uint64, shift uint8, workers int) [][]lane {
	list := make([][]lane, workers)
	block := uint64(1) << shift
	for i, from := 0, uint64(0); from < size; i, from = i+1, from+block {
		to := min(from+block, size)
		if i%3 == 2 {
			k := i / 3 % workers
			list[k] = append(list[k], lane{from, to})
			continue
		}
		part := (to - from) / uint64(workers)
		for k := range workers {
			at := from + uint64(k)*part
			list[k] = append(list[k], lane{at, at + part})
		}
	}
	return list
}

// A modelled disk is one with what it should hold.
type modelled struct {
	d    *vdi.Disk
	want []byte
}

// step does something random in a lane, again until it succeeds, and compares.
func (m *modelled) step(ctx context.Context, r *rand.Rand, l lane) error {
	off := l.from + r.Uint64N(l.to-l.from)
	n := 1 + r.Uint64N(min(l.to-off, 3*mib))
	switch r.IntN(8) {
	case 0, 1:
		off, n = l.from, l.to-l.from // perhaps a whole object
	case 2, 3, 4:
		n = min(n, 5000)
	}
	var err error
	switch kind := r.IntN(9); kind {
	case 0, 1, 2, 3:
		p := make([]byte, n)
		fill := r.Uint64()
		for i := range p {
			p[i] = byte(fill >> (i % 8 * 8))
		}
		err = repeat(func() error { return m.d.WriteAt(ctx, p, off, kind == 0) })
		copy(m.want[off:], p)
	case 4, 5:
		opt := vdi.ZeroOptions{Durable: r.IntN(2) == 0, KeepAllocated: r.IntN(4) == 0, Fast: r.IntN(4) == 0}
		err = repeat(func() error { return m.d.Zero(ctx, off, n, opt) })
		if opt.Fast && errors.Is(err, sheep.ErrNotSupported) {
			return nil
		}
		clear(m.want[off:][:n])
	case 6:
		err = repeat(func() error { return m.d.Flush(ctx) })
	default:
		got := make([]byte, n)
		err = repeat(func() error { return m.d.ReadAt(ctx, got, off) })
		if err == nil && !bytes.Equal(got, m.want[off:][:n]) {
			return fmt.Errorf("the %d bytes at %d are not what was written", n, off)
		}
	}
	return err
}

// repeat runs fn again as long as it fails because of a fault.
func repeat(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, errCrash) {
			return err
		}
	}
}

// same fails unless all of the disk is as it should be, its holes are zeroes, and
// no object has leaked.
func (m *modelled) same(t *testing.T, w *world) {
	t.Helper()
	want(t, m.d, 0, m.want)
	at := uint64(0)
	if err := m.d.Extents(t.Context(), 0, m.d.Size(), func(n uint64, e vdi.Extent) bool {
		if e == vdi.ExtentHole && !isZero(m.want[at:][:n]) {
			t.Errorf("a hole of %d bytes at %d is not zero", n, at)
		}
		at += n
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if at != m.d.Size() {
		t.Errorf("the extents have %d bytes, the disk %d", at, m.d.Size())
	}
	if leaks := w.leaks(); len(leaks) > 0 {
		t.Errorf("leaked: %v", leaks)
	}
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// TestDiskAgainstModel has several workers do random things to one disk, each in
// lanes of its own that share objects with the others', and compares the disk with
// a copy in memory.
func TestDiskAgainstModel(t *testing.T) {
	const workers, steps = 4, 60
	for _, test := range []struct {
		name  string
		shift uint8
		with  func(*world, *diskHost, *rand.Rand)
	}{
		{"with the map in memory", 20, nil},
		{"with larger objects", 22, nil},
		{"without the map in memory", 20, func(_ *world, h *diskHost, _ *rand.Rand) { h.remote.Store(true) }},
		{"with a map that may not be kept for long", 20, func(_ *world, h *diskHost, _ *rand.Rand) { h.flip.Store(true) }},
		{"with requests that fail", 20, func(_ *world, h *diskHost, r *rand.Rand) {
			seed := r.Uint64()
			var mu sync.Mutex
			faults := rand.New(rand.NewPCG(seed, 2))
			h.fault = func() (before, after error) {
				mu.Lock()
				defer mu.Unlock()
				switch faults.IntN(30) {
				case 0:
					return errCrash, nil
				case 1:
					return nil, errCrash
				}
				return nil, nil
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, 2)
			g := w.gateways[0]
			size := uint64(12)<<test.shift - 12345
			g.createShift("test", size, test.shift)
			m := &modelled{want: make([]byte, size)}
			var h *diskHost
			m.d, h = g.open("test")
			r := seeded(t)
			parent(t, m, w, g, r)
			if test.with != nil {
				test.with(w, h, r)
			}
			h.linger()
			work(t, m, r, workers, steps, lanes(size, test.shift, workers))
			h.fault, h.hook = nil, nil
			m.same(t, w)
			if err := m.d.Zero(t.Context(), 0, size, vdi.ZeroOptions{}); err != nil {
				t.Fatal(err)
			}
			clear(m.want)
			m.same(t, w)
			if n := w.dataObjectsOf(m.d.VDI().ID); n != 0 {
				t.Errorf("%d objects are left of an empty disk", n)
			}
		})
	}
}

// parent gives the disk some content that it shares with a snapshot.
func parent(t *testing.T, m *modelled, w *world, g *gateway, r *rand.Rand) {
	t.Helper()
	for range 6 {
		off := r.Uint64N(m.d.Size() - 5000)
		p := bytes.Repeat([]byte("parent"), 800)
		copy(m.want[off:], p)
		g.try(m.d.WriteAt(t.Context(), p, off, false))
	}
	g.snapshot(m.d.VDI(), "base")
}

func work(t *testing.T, m *modelled, r *rand.Rand, workers, steps int, parts [][]lane) {
	t.Helper()
	var wg sync.WaitGroup
	for k := range workers {
		mine := rand.New(rand.NewPCG(r.Uint64(), 3))
		wg.Go(func() {
			for i := range steps {
				l := parts[k][mine.IntN(len(parts[k]))]
				if err := m.step(t.Context(), mine, l); err != nil {
					t.Errorf("worker %d, step %d: %v", k, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// dataObjectsOf returns how many data objects a VDI owns.
func (w *world) dataObjectsOf(v sheep.VDIID) int {
	n := 0
	for _, id := range w.objectsOf(sheep.KindData) {
		if id.VDI() == v {
			n++
		}
	}
	return n
}

// TestDisksOfTwoGateways lets the ownership go back and forth between two
// gateways with a disk each, while a third client works as QEMU does. What one
// of them has done the others see.
func TestDisksOfTwoGateways(t *testing.T) {
	w := newWorld(t, 2)
	r := seeded(t)
	v := w.gateways[0].createShift("test", 8*mib, 20)
	disks, hosts := make([]modelled, 2), make([]*diskHost, 2)
	content := make([]byte, 8*mib)
	for i, g := range w.gateways {
		disks[i].d, hosts[i] = g.open("test")
		disks[i].want = content
	}
	own := func(i int) {
		w.mu.Lock()
		w.owner[v.ID] = w.gateways[i]
		w.mu.Unlock()
		hosts[i].version.Add(1)
		hosts[i].remote.Store(false)
		hosts[1-i].version.Add(1)
		hosts[1-i].remote.Store(true)
	}
	own(0)
	for i := range 300 {
		switch r.IntN(10) {
		case 0:
			own(r.IntN(2))
		case 1: // a discard and a write of a native client
			g, block := w.gateways[r.IntN(2)], uint32(r.IntN(8))
			g.try(g.setSlot(v.ID, block, 0))
			clear(content[uint64(block)<<20:][:mib])
		default:
			if err := disks[r.IntN(2)].step(t.Context(), r, lane{0, 8 * mib}); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		}
	}
	disks[0].same(t, w)
	disks[1].same(t, w)
}
