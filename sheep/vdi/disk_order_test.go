package vdi_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/vdi"
)

// await returns when ok does.
func await(t *testing.T, ok func() bool) {
	t.Helper()
	for !ok() {
		if t.Context().Err() != nil {
			t.Fatal(t.Context().Err())
		}
		runtime.Gosched()
	}
}

// A stopper stops the first request that matches, after it was done or before.
type stopper struct {
	match   func(r request) bool
	taken   atomic.Bool
	stopped chan struct{} // closed when it has been stopped
	resume  chan struct{} // to be closed
	creates atomic.Int32
	maps    atomic.Int32
}

func stopAt(h *diskHost, match func(r request) bool) *stopper {
	s := &stopper{match: match, stopped: make(chan struct{}), resume: make(chan struct{})}
	h.hook = func(r request) {
		switch {
		case r.done || r.w == nil:
		case r.w.Create:
			s.creates.Add(1)
		case r.id.Kind() == sheep.KindInode:
			s.maps.Add(1)
		}
		if s.match(r) && !s.taken.Swap(true) {
			close(s.stopped)
			<-s.resume
		}
	}
	return s
}

func start(fn func() error) chan error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return done
}

// TestAnObjectIsMadeOnce has writes come while the object is being made.
func TestAnObjectIsMadeOnce(t *testing.T) {
	for _, kept := range []bool{true, false} {
		for _, share := range []bool{true, false} {
			t.Run(fmt.Sprintf("map in memory %v, shared %v", kept, share), func(t *testing.T) {
				w := newWorld(t, 1)
				g := w.gateways[0]
				g.create("test", 16*mib)
				d, h := g.open("test")
				h.remote.Store(!kept)
				if share {
					g.try(d.WriteAt(t.Context(), []byte("parent"), 1000, false))
					g.snapshot(d.VDI(), "s")
				}
				s := stopAt(h, func(r request) bool { return r.w != nil && r.w.Create && r.w.Off == 0 && r.done })
				var writes []chan error
				for i := range uint64(5) {
					writes = append(writes, start(func() error {
						return d.WriteAt(context.Background(), []byte{byte('a' + i)}, i*100, false)
					}))
					if i == 0 {
						<-s.stopped
					}
				}
				await(t, func() bool { return vdi.GateUsers(d, 0) == 5 })
				close(s.resume)
				for _, done := range writes {
					g.try(<-done)
				}
				if n := s.creates.Load(); n != 1 && !share || n > 2 { // two if the first met the frozen head
					t.Errorf("the object was made %d times", n)
				}
				for i := range uint64(5) {
					want(t, d, i*100, []byte{byte('a' + i), 0})
				}
				if share {
					want(t, d, 1000, []byte("parent\x00"))
				}
			})
		}
	}
}

// TestDiscardWaitsForWrites has a discard come while the object is being written,
// and a write while it is being discarded.
func TestDiscardWaitsForWrites(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	v := g.create("test", 16*mib)
	d, h := g.open("test")
	g.try(d.WriteAt(t.Context(), []byte("old"), 0, false))

	s := stopAt(h, func(r request) bool { return r.id == sheep.DataObject(v.ID, 0) && r.w != nil && !r.done })
	write := start(func() error { return d.WriteAt(context.Background(), []byte("new"), 0, false) })
	<-s.stopped
	discard := start(func() error { return d.Zero(context.Background(), 0, 4*mib, vdi.ZeroOptions{}) })
	await(t, func() bool { return vdi.GateUsers(d, 0) == 2 })
	if n := s.maps.Load(); n != 0 {
		t.Error("the discard did not wait for the write")
	}
	close(s.resume)
	g.try(<-write)
	g.try(<-discard)
	want(t, d, 0, make([]byte, 4))

	g.try(d.WriteAt(t.Context(), []byte("old"), 0, false))
	s = stopAt(h, func(r request) bool { return r.id == sheep.InodeObject(v.ID) && r.w != nil && r.done })
	discard = start(func() error { return d.Zero(context.Background(), 0, 4*mib, vdi.ZeroOptions{}) })
	<-s.stopped
	write = start(func() error { return d.WriteAt(context.Background(), []byte("new"), 100, false) })
	await(t, func() bool { return vdi.GateUsers(d, 0) == 2 })
	close(s.resume)
	g.try(<-write)
	g.try(<-discard)
	want(t, d, 0, []byte("\x00\x00\x00"))
	want(t, d, 100, []byte("new"))
}

// TestMapWriteWhileAPageIsRead has slots change between the reading of a page
// and its use.
func TestMapWriteWhileAPageIsRead(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	v := g.create("test", 16*mib)
	g.try(g.store(v.ID, 1, 7))
	d, h := g.open("test")
	s := stopAt(h, func(r request) bool { return r.w == nil && r.off == proto.MapOffset && r.done })
	read := start(func() error { return d.ReadAt(context.Background(), make([]byte, 1), 0) })
	<-s.stopped
	g.try(g.store(v.ID, 0, 7)) // native clients
	g.try(g.setSlot(v.ID, 1, 0))
	close(s.resume)
	g.try(<-read)
	before := h.reads.Load()
	if got := extents(t, d, 0, 16*mib); got != "data 4194304, hole 12582912" {
		t.Errorf("extents %s", got)
	}
	if h.reads.Load() != before {
		t.Error("the map was read again")
	}
}

// TestNeighboursShareMapWrites has objects be made while the map is written.
func TestNeighboursShareMapWrites(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	v := g.create("test", 64*mib)
	d, h := g.open("test")
	s := stopAt(h, func(r request) bool { return r.id == sheep.InodeObject(v.ID) && r.w != nil && !r.done })
	var writes []chan error
	for i, block := range []uint64{0, 5, 3, 4, 7, 9} {
		writes = append(writes, start(func() error { return d.WriteAt(context.Background(), []byte("x"), block*4*mib, false) }))
		if i == 0 {
			<-s.stopped
		} else {
			await(t, func() bool { return vdi.SlotWaiters(d) == i })
		}
	}
	close(s.resume)
	for _, done := range writes {
		g.try(<-done)
	}
	if n := s.maps.Load(); n != 4 {
		t.Errorf("the map was written %d times, want 0, 3-5, 7, 9", n)
	}
	for i := range uint32(10) {
		if made := g.slot(v.ID, i) != 0; made != (i == 0 || i >= 3 && i <= 5 || i == 7 || i == 9) {
			t.Errorf("slot %d in use: %v", i, made)
		}
	}
}

// TestMapWriterThatGivesUp ends the context of the request that writes the map
// for all.
func TestMapWriterThatGivesUp(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	v := g.create("test", 64*mib)
	d, h := g.open("test")
	s := stopAt(h, func(r request) bool { return r.id == sheep.InodeObject(v.ID) && r.w != nil && !r.done })
	ctx, cancel := context.WithCancel(t.Context())
	var fail atomic.Bool
	h.fault = func() (before, after error) {
		if fail.Load() && ctx.Err() != nil {
			fail.Store(false)
			return context.Cause(ctx), nil
		}
		return nil, nil
	}
	first := start(func() error { return d.WriteAt(context.Background(), []byte("x"), 0, false) })
	<-s.stopped
	second := start(func() error { return d.WriteAt(ctx, []byte("x"), 4*mib, false) })
	await(t, func() bool { return vdi.SlotWaiters(d) == 1 })
	third := start(func() error { return d.WriteAt(context.Background(), []byte("x"), 8*mib, false) })
	await(t, func() bool { return vdi.SlotWaiters(d) == 2 })
	s.match = func(r request) bool {
		if r.id == sheep.InodeObject(v.ID) && r.w != nil && !r.done && r.off != proto.MapOffset {
			if ctx.Err() == nil {
				cancel()
				fail.Store(true)
			}
		}
		return false
	}
	close(s.resume)
	g.try(<-first)
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("the request that was given up: %v", err)
	}
	g.try(<-third)
	if g.slot(v.ID, 2) != v.ID {
		t.Error("the third object is not in the map")
	}
}

// TestMapPagesAreBounded touches more of a map than may be in memory.
func TestMapPagesAreBounded(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	g.createShift("test", 1<<40, 20)
	h := g.host()
	d, err := vdi.OpenDisk(t.Context(), h, "test", "", 0, vdi.DiskConfig{MapPages: 3})
	g.try(err)
	p := make([]byte, 1)
	const span = vdi.CachedSlots << 20
	for i := range uint64(10) {
		g.try(d.ReadAt(t.Context(), p, i*span))
	}
	if n := vdi.CachedPages(d); n > 3 {
		t.Errorf("%d pages are in memory, want 3", n)
	}
	before := h.reads.Load()
	g.try(d.ReadAt(t.Context(), p, 9*span+5<<20))
	if h.reads.Load() != before {
		t.Error("the last page is not in memory")
	}
	if got := extents(t, d, 0, 1<<40); got != fmt.Sprint("hole ", 1<<40) {
		t.Error(got)
	}
}
