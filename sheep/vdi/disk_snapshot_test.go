package vdi_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/vdi"
)

// TestDiskFollowsTheHead takes a snapshot of an open disk and does each kind of
// request first.
func TestDiskFollowsTheHead(t *testing.T) {
	data := []byte("after the snapshot")
	for _, test := range []struct {
		name  string
		do    func(t *testing.T, d *vdi.Disk) error
		block string // the first block of the disk afterwards
		size  uint64
	}{
		{"a write", func(t *testing.T, d *vdi.Disk) error { return d.WriteAt(t.Context(), data, 100, false) }, "after the snapshot", 0},
		{"a write to another object", func(t *testing.T, d *vdi.Disk) error { return d.WriteAt(t.Context(), data, 5*mib, true) }, "before", 0},
		{"a discard", func(t *testing.T, d *vdi.Disk) error { return d.Zero(t.Context(), 0, 4*mib, vdi.ZeroOptions{}) }, "", 0},
		{"zeroes in an object", func(t *testing.T, d *vdi.Disk) error { return d.Zero(t.Context(), 100, 50, vdi.ZeroOptions{}) }, "", 0},
		{"a resize", func(t *testing.T, d *vdi.Disk) error { return d.Resize(t.Context(), 20*mib) }, "before", 20 * mib},
		{"a refresh", func(t *testing.T, d *vdi.Disk) error { return d.Refresh(t.Context()) }, "before", 0},
		{"a read", func(t *testing.T, d *vdi.Disk) error { return d.ReadAt(t.Context(), make([]byte, 10), 100) }, "before", 0},
	} {
		for _, kept := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, map in memory %v", test.name, kept), func(t *testing.T) {
				w := newWorld(t, 1)
				g := w.gateways[0]
				g.create("test", 16*mib)
				d, h := g.open("test")
				h.remote.Store(!kept)
				g.try(d.WriteAt(t.Context(), []byte("before"), 100, false))
				old := d.VDI()
				g.snapshot(old, "one")
				middle := g.must(g.ops.Lookup(t.Context(), "test", "", 0))
				g.snapshot(middle, "two")
				g.try(test.do(t, d))
				want(t, d, 100, append([]byte(test.block), 0))
				if head := g.must(g.ops.Lookup(t.Context(), "test", "", 0)); d.VDI().ID != head.ID {
					t.Errorf("the disk is VDI %v, the head %v", d.VDI().ID, head.ID)
				}
				if test.size != 0 && (d.Size() != test.size || g.header(d.VDI().ID).Size != test.size) {
					t.Errorf("size %d, in the inode %d, want %d", d.Size(), g.header(d.VDI().ID).Size, test.size)
				}
				for _, tag := range []string{"one", "two"} {
					s, err := vdi.OpenDisk(t.Context(), h, "test", tag, 0, vdi.DiskConfig{})
					g.try(err)
					want(t, s, 100, []byte("before\x00"))
					if s.Size() != 16*mib {
						t.Errorf("the size of snapshot %s is %d", tag, s.Size())
					}
				}
				h.flushed.Store(0)
				g.try(d.Flush(t.Context()))
				if n := h.flushed.Load(); n != 2 {
					t.Errorf("%d VDIs were flushed, want the head and the one before", n)
				}
			})
		}
	}
}

// TestDiskThatHasGone checks what the users of a disk are told when it is taken
// away under them.
func TestDiskThatHasGone(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(g *gateway, head sheep.VDI)
	}{
		{"deleted", func(g *gateway, _ sheep.VDI) {
			g.must(g.ops.Delete(context.Background(), "test", "", 0))
		}},
		{"deleted and made anew", func(g *gateway, _ sheep.VDI) {
			g.must(g.ops.Delete(context.Background(), "test", "", 0))
			g.create("test", 16*mib)
		}},
		{"rolled back by deletion", func(g *gateway, _ sheep.VDI) {
			g.must(g.ops.Delete(context.Background(), "test", "", 0))
			base := g.must(g.ops.Lookup(context.Background(), "test", "base", 0))
			g.cloneOf("test", base.ID)
		}},
		{"rolled back to a snapshot in its past", func(g *gateway, head sheep.VDI) {
			base := g.must(g.ops.Lookup(context.Background(), "test", "base", 0))
			g.must(g.ops.Create(context.Background(), "test", proto.VDIBody{Size: 16 * mib, Base: base.ID, SnapID: 1}))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, kept := range []bool{true, false} {
				w := newWorld(t, 1)
				g := w.gateways[0]
				first := g.create("test", 16*mib)
				g.snapshot(first, "base")
				d, h := g.open("test")
				h.remote.Store(!kept)
				g.try(d.WriteAt(t.Context(), []byte("data"), 0, false))
				test.do(g, d.VDI())
				for what, err := range map[string]error{
					"write":               d.WriteAt(t.Context(), []byte("more"), 0, false),
					"write elsewhere":     d.WriteAt(t.Context(), []byte("more"), 8*mib, false),
					"read":                d.ReadAt(t.Context(), make([]byte, 4), 0),
					"read where it is 0":  d.ReadAt(t.Context(), make([]byte, 4), 12*mib),
					"discard":             d.Zero(t.Context(), 0, 4*mib, vdi.ZeroOptions{}),
					"extents":             d.Extents(t.Context(), 0, 16*mib, func(uint64, vdi.Extent) bool { return true }),
					"refresh":             d.Refresh(t.Context()),
					"resize":              d.Resize(t.Context(), 20*mib),
					"zeroes where it's 0": ignore(d.Zero(t.Context(), 12*mib+5, 5, vdi.ZeroOptions{})),
				} {
					if !errors.Is(err, sheep.ErrNoVDI) {
						t.Errorf("map in memory %v: %s: %v", kept, what, err)
					}
				}
			}
		})
	}
}

// ignore stands for an error that does not matter: nothing was to be done.
func ignore(err error) error {
	if err == nil {
		return sheep.ErrNoVDI
	}
	return err
}

// TestDeletedSnapshotCannotBeRead opens a snapshot and deletes it.
func TestDeletedSnapshotCannotBeRead(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	d, h := func() (*vdi.Disk, *diskHost) { g.create("test", 16*mib); return g.open("test") }()
	g.try(d.WriteAt(t.Context(), []byte("data"), 0, false))
	g.snapshot(d.VDI(), "s")
	g.try(d.WriteAt(t.Context(), []byte("more"), 0, false)) // the snapshot alone has the old object
	s, err := vdi.OpenDisk(t.Context(), h, "test", "s", 0, vdi.DiskConfig{})
	g.try(err)
	want(t, s, 0, []byte("data"))
	g.must(g.ops.Delete(t.Context(), "test", "s", 0))
	if err := s.ReadAt(t.Context(), make([]byte, 4), 0); !errors.Is(err, sheep.ErrNoVDI) {
		t.Errorf("a read of a deleted snapshot: %v", err)
	}
	want(t, d, 0, []byte("more"))
}

// A stamped is a write of a number to a block, or a discard (number 0 is kept).
type stamped struct {
	stamp      uint64 // what the block shows, 0 after a discard
	start, end uint64 // of the request, on the test's clock
}

// TestSnapshotsOfABusyDisk takes snapshots while workers write. What a snapshot
// shows must be a state that the disk was in at one moment: if it shows a write,
// then also all that had been answered when that began.
func TestSnapshotsOfABusyDisk(t *testing.T) {
	const workers, perWorker, snapshots, block = 6, 4, 20, mib
	w := newWorld(t, 2)
	g := w.gateways[0]
	g.createShift("test", workers*perWorker*block, 20)
	d, h := g.open("test")
	h.linger()
	reader, _ := w.gateways[1].open("test") // only reads
	r := seeded(t)

	var clock atomic.Uint64
	var mu sync.Mutex
	logs := make([][]stamped, workers*perWorker) // guarded by mu
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for k := range workers {
		mine := rand.New(rand.NewPCG(r.Uint64(), 4))
		wg.Go(func() {
			for i := uint64(1); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				b := mine.IntN(perWorker)*workers + k
				s := stamped{start: clock.Add(1)}
				var err error
				if mine.IntN(5) == 0 {
					err = d.Zero(t.Context(), uint64(b)*block, block, vdi.ZeroOptions{})
				} else {
					s.stamp = uint64(k)<<32 | i
					err = d.WriteAt(t.Context(), binary.LittleEndian.AppendUint64(nil, s.stamp), uint64(b)*block, false)
				}
				if err != nil {
					t.Errorf("worker %d: %v", k, err)
					return
				}
				s.end = clock.Add(1)
				mu.Lock()
				logs[b] = append(logs[b], s)
				mu.Unlock()
			}
		})
	}
	for i := range snapshots {
		before := clock.Load()
		for clock.Load() < before+300 && !t.Failed() {
			runtime.Gosched()
		}
		head := g.must(g.ops.Lookup(t.Context(), "test", "", 0))
		g.snapshot(head, fmt.Sprint("s", i))
	}
	close(stop)
	wg.Wait()
	if leaks := w.leaks(); len(leaks) > 0 {
		t.Errorf("leaked: %v", leaks)
	}

	for i := range snapshots {
		s, err := vdi.OpenDisk(t.Context(), h, "test", fmt.Sprint("s", i), 0, vdi.DiskConfig{})
		g.try(err)
		verifyMoment(t, fmt.Sprint("snapshot ", i), s, logs, block)
	}
	verifyMoment(t, "the disk", d, logs, block)
	verifyMoment(t, "another gateway's disk", reader, logs, block)
	last := make([]byte, 8)
	for b, log := range logs {
		g.try(reader.ReadAt(t.Context(), last, uint64(b)*block))
		if got := binary.LittleEndian.Uint64(last); len(log) > 0 && got != log[len(log)-1].stamp {
			t.Errorf("block %d shows %x at the end, want %x", b, got, log[len(log)-1].stamp)
		}
	}
}

// verifyMoment checks that what d shows is the state of one moment.
func verifyMoment(t *testing.T, what string, d *vdi.Disk, logs [][]stamped, block uint64) {
	t.Helper()
	shown := make([]int, len(logs)) // index in the log of what the block shows, -1 for nothing
	latest := uint64(0)             // start of the last request that can be seen
	for b, log := range logs {
		p := make([]byte, 8)
		if err := d.ReadAt(t.Context(), p, uint64(b)*block); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		stamp := binary.LittleEndian.Uint64(p)
		shown[b] = -1
		if stamp == 0 {
			continue
		}
		shown[b] = slices.IndexFunc(log, func(s stamped) bool { return s.stamp == stamp })
		if shown[b] < 0 {
			t.Fatalf("%s: block %d shows %x, which nobody wrote", what, b, stamp)
		}
		latest = max(latest, log[shown[b]].start)
	}
	for b, log := range logs {
		for i, s := range log {
			if s.end >= latest || i <= shown[b] {
				continue
			}
			if shown[b] < 0 && lastIsDiscard(log, i, latest) {
				continue
			}
			t.Errorf("%s: block %d lacks write %d of %d, answered at %d, and shows a write begun at %d", what, b, i, len(log), s.end, latest)
			return
		}
	}
}

// lastIsDiscard reports whether a block may show nothing although write i of it
// was answered: a later request was a discard.
func lastIsDiscard(log []stamped, i int, latest uint64) bool {
	for j := i; j < len(log); j++ {
		if log[j].stamp == 0 && !slices.ContainsFunc(log[j+1:], func(s stamped) bool { return s.end < latest }) {
			return true
		}
	}
	return false
}

// TestMigration opens a disk at a second gateway while the first still writes,
// with a snapshot in between, and goes on there.
func TestMigration(t *testing.T) {
	w := newWorld(t, 2)
	a, b := w.gateways[0], w.gateways[1]
	v := a.create("test", 16*mib)
	source, _ := a.open("test")
	w.owner[v.ID] = a
	target, h := b.open("test")
	h.remote.Store(true)
	want(t, target, 0, make([]byte, 100))
	a.try(source.WriteAt(t.Context(), []byte("one"), 0, false))
	want(t, target, 0, []byte("one"))
	a.snapshot(v, "s")
	a.try(source.WriteAt(t.Context(), []byte("two"), 0, false))
	a.try(source.WriteAt(t.Context(), []byte("three"), 5*mib, false))
	a.try(source.Flush(t.Context()))
	h.remote.Store(false)
	h.version.Add(1)
	want(t, target, 0, []byte("two"))
	want(t, target, 5*mib, []byte("three"))
	b.try(target.WriteAt(t.Context(), []byte("four"), 5*mib, false))
	want(t, target, 0, []byte("two"))
	want(t, target, 5*mib, []byte("foure"))
	s, err := vdi.OpenDisk(t.Context(), h, "test", "s", 0, vdi.DiskConfig{})
	b.try(err)
	want(t, s, 0, []byte("one"))
	if target.VDI() != source.VDI() {
		t.Errorf("the heads are %v and %v", target.VDI(), source.VDI())
	}
}
