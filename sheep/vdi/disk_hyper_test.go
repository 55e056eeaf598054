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
	"sheepdog/sheep/proto"
	"sheepdog/sheep/vdi"
)

// A distantHost is what a client has that is no sheep: nobody tells it of maps.
type distantHost struct {
	h *diskHost
}

func (d distantHost) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	return d.h.Read(ctx, ref, p, off)
}

func (d distantHost) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	return d.h.Write(ctx, ref, w)
}

func (d distantHost) Remove(ctx context.Context, ref sheep.Ref) error { return d.h.Remove(ctx, ref) }

func (d distantHost) Flush(ctx context.Context, v sheep.VDIID) error { return d.h.Flush(ctx, v) }

func (d distantHost) Lookup(ctx context.Context, name, tag string, snapID uint32) (sheep.VDI, error) {
	return d.h.Lookup(ctx, name, tag, snapID)
}

func (d distantHost) MapVersion(sheep.VDIID) (uint64, bool) { return 0, true }

func (d distantHost) WatchMap(sheep.VDIID, func(uint32, []sheep.VDIID)) (stop func()) {
	return func() {}
}

// TestHyperDiskAgainstModel has several workers do random things to a hyper volume,
// whose tree is split often, and compares it with a copy in memory.
func TestHyperDiskAgainstModel(t *testing.T) {
	const workers, steps = 4, 40
	for _, test := range []struct {
		name string
		with func(*diskHost, *rand.Rand) vdi.DiskHost
	}{
		{"with the map in memory", nil},
		{"without the map in memory", func(h *diskHost, _ *rand.Rand) vdi.DiskHost { h.remote.Store(true); return h }},
		{"with a map that may not be kept for long", func(h *diskHost, _ *rand.Rand) vdi.DiskHost { h.flip.Store(true); return h }},
		{"far from the sheep", func(h *diskHost, _ *rand.Rand) vdi.DiskHost { return distantHost{h} }},
		{"with requests that fail", func(h *diskHost, r *rand.Rand) vdi.DiskHost { h.fault = faults(r); return h }},
		{"far from the sheep, with requests that fail", func(h *diskHost, r *rand.Rand) vdi.DiskHost {
			h.fault = faults(r)
			return distantHost{h}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, 2)
			g := w.gateways[0]
			vdi.ShapeTrees(g.guard, 64, 4, 3, 100, 100)
			const size = 12<<22 - 12345
			g.createHyper("test", size)
			r := seeded(t)
			h := g.host()
			var host vdi.DiskHost = h
			if test.with != nil {
				host = test.with(h, r)
			}
			m := &modelled{want: make([]byte, size)}
			var err error
			for {
				if m.d, err = vdi.OpenDisk(t.Context(), host, "test", "", 0, vdi.DiskConfig{}); err == nil {
					break
				}
				if !isCrash(err) {
					t.Fatal(err)
				}
			}
			h.linger()
			work(t, m, r, workers, steps, lanes(size, 22, workers))
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

func isCrash(err error) bool { return errors.Is(err, errCrash) }

// faults fails some requests, before or after they were done.
func faults(r *rand.Rand) func() (before, after error) {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(r.Uint64(), 2))
	return func() (before, after error) {
		mu.Lock()
		defer mu.Unlock()
		switch random.IntN(30) {
		case 0:
			return errCrash, nil
		case 1:
			return nil, errCrash
		}
		return nil, nil
	}
}

// TestHyperDisksOfTwoGateways lets the ownership go back and forth between two
// gateways with a disk each.
func TestHyperDisksOfTwoGateways(t *testing.T) {
	w := newWorld(t, 2)
	r := seeded(t)
	v := w.gateways[0].createHyper("test", 32*mib)
	disks, hosts := make([]modelled, 2), make([]*diskHost, 2)
	content := make([]byte, 32*mib)
	for i, g := range w.gateways {
		vdi.ShapeTrees(g.guard, 64, 4, 3, 100, 100)
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
	for i := range 150 {
		switch r.IntN(10) {
		case 0:
			own(r.IntN(2))
		case 1: // a discard of a native client
			g, block := w.gateways[r.IntN(2)], uint32(r.IntN(8))
			g.try(g.guard.Discard(t.Context(), sheep.DataObject(v.ID, block)))
			clear(content[uint64(block)<<22:][:4*mib])
		default:
			if err := disks[r.IntN(2)].step(t.Context(), r, lane{0, 32 * mib}); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		}
	}
	disks[0].same(t, w)
	disks[1].same(t, w)
}

// TestLargestHyperDisk uses both ends of 16 PiB, and asks for all of its extents.
func TestLargestHyperDisk(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	const size = 1 << 54
	g.createHyper("test", 1<<50)
	d, h := g.open("test")
	g.try(d.Resize(t.Context(), size))
	if err := d.Resize(t.Context(), size+1); err == nil {
		t.Error("it became larger than 16 PiB")
	}
	for _, off := range []uint64{0, 5 << 40, 5<<40 + 4*mib, size - 1} {
		g.try(d.WriteAt(t.Context(), []byte{byte(off>>22) | 1}, off, false))
	}
	for _, off := range []uint64{0, 5 << 40, 5<<40 + 4*mib, size - 1} {
		want(t, d, off, []byte{byte(off>>22) | 1})
	}
	want(t, d, size-5000, make([]byte, 4999))
	h.reads.Store(0)
	if got, want := extents(t, d, 0, size), fmt.Sprintf("data %d, hole %d, data %d, hole %d, data %d",
		4*mib, 5<<40-4*mib, 8*mib, size-5<<40-12*mib, 4*mib); got != want {
		t.Errorf("extents %s, want %s", got, want)
	}
	if got, want := extents(t, d, 1<<40+1, 1<<50), fmt.Sprintf("hole %d, data %d, hole %d", 4<<40-1, 8*mib, uint64(1<<50)-4<<40+1-8*mib); got != want {
		t.Errorf("extents %s, want %s", got, want)
	}
	g.try(d.Zero(t.Context(), 4*mib, size-4*mib, vdi.ZeroOptions{}))
	if got, want := extents(t, d, 0, size), fmt.Sprintf("data %d, hole %d", 4*mib, size-4*mib); got != want {
		t.Errorf("after a discard extents are %s, want %s", got, want)
	}
	if n := h.reads.Load(); n > 100 {
		t.Errorf("%d reads to look at a few objects", n)
	}
	if n := w.dataObjects(); n != 1 {
		t.Errorf("%d objects are left, want 1", n)
	}
}

// TestTreeOfUsualShape fills a volume until its tree has leaves of its own, and goes
// on where C Sheepdog has left a root of as many entries as fit.
func TestTreeOfUsualShape(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	v := g.createHyper("test", 1<<54)
	m := treeModel{}
	enter := func(entries []proto.BTreeEntry) {
		t.Helper()
		w.fill(v, entries...)
		m.set(entries...)
		for len(entries) > 0 {
			n := min(len(entries), 1000)
			g.try(g.inbox(v, entries[:n]...))
			entries = entries[n:]
		}
	}
	run := func(first, n, gap uint32) (entries []proto.BTreeEntry) {
		for i := range n {
			entries = append(entries, proto.BTreeEntry{Index: first + i*gap, VDI: v.ID})
		}
		return entries
	}
	enter(run(0, vdi.LeafEntries, 2))
	if root := g.root(t, v); root.Depth != 1 || len(root.Entries) != vdi.LeafEntries {
		t.Errorf("the root has depth %d and %d entries", root.Depth, len(root.Entries))
	}
	enter(run(7, 1, 1))
	root := g.root(t, v)
	half := uint32(vdi.LeafEntries / 2)
	if len(root.Children) != 2 || root.Children[0] != (proto.BTreeChild{Last: (half - 1) * 2, ID: sheep.BTreeObject(v.ID, 0)}) ||
		root.Children[1] != (proto.BTreeChild{Last: (vdi.LeafEntries - 1) * 2, ID: sheep.BTreeObject(v.ID, 1)}) || g.header(v.ID).BTreeCounter != 2 {
		t.Errorf("the root is %+v", root)
	}
	enter(run(1<<20, 3*vdi.LeafEntries, 1)) // at the end
	enter(run(1, 200, 16))
	m.same(t, g, v)
	if leaks := w.leaks(); len(leaks) > 0 {
		t.Errorf("leaked: %v", leaks)
	}
}

func (g *gateway) root(t *testing.T, v sheep.VDI) proto.BTreeNode {
	t.Helper()
	b := g.readInode(v.ID, proto.MapOffset, 1<<20)
	n, err := proto.DecodeBTreeNode(b)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestTreeOfTheOriginal enters an object into a root as large as C Sheepdog's get.
func TestTreeOfTheOriginal(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	v := g.createHyper("test", 1<<54)
	m, root := treeModel{}, proto.BTreeNode{Depth: proto.BTreeLeafDepth}
	for i := range uint32(proto.MaxBTreeEntries) {
		root.Entries = append(root.Entries, proto.BTreeEntry{Index: i * 3, VDI: v.ID})
	}
	m.set(root.Entries...)
	w.fill(v, root.Entries...)
	header := g.readInode(v.ID, 0, proto.InodeHeaderSize)
	g.try(g.writeInode(v.ID, 0, root.Append(header)))
	if got := g.readInode(v.ID, proto.MapOffset, 4<<20); !bytes.Equal(got[:len(root.Append(nil))], root.Append(nil)) {
		t.Fatal("the root is not what the client wrote")
	}
	w.written = 0
	for _, index := range []uint32{1_000_000, 1_000_003, 1} {
		e := proto.BTreeEntry{Index: index, VDI: v.ID}
		w.fill(v, e)
		m.set(e)
		g.try(g.inbox(v, e))
	}
	if w.written > 16<<20 {
		t.Errorf("%d bytes were written for three objects", w.written)
	}
	w.written = 0
	e := proto.BTreeEntry{Index: 1_000_006, VDI: v.ID}
	w.fill(v, e)
	m.set(e)
	g.try(g.inbox(v, e))
	if w.written > 64<<10 {
		t.Errorf("%d bytes were written for the fourth object", w.written)
	}
	var got int
	for e, err := range vdi.NewTree(g.guard, v).InUse(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if m[e.Index] != e.VDI {
			t.Fatalf("object %d", e.Index)
		}
		got++
	}
	if got != len(m) {
		t.Errorf("the tree has %d objects, want %d", got, len(m))
	}
}
