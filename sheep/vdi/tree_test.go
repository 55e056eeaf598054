package vdi_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/vdi"
)

// createHyper creates a hyper volume.
func (g *gateway) createHyper(name string, size uint64) sheep.VDI {
	return g.must(g.ops.Create(context.Background(), name, proto.VDIBody{Size: size, StorePolicy: proto.StoreHyper}))
}

// inbox enters entries into the tree of v as a Disk does.
func (g *gateway) inbox(v sheep.VDI, entries ...proto.BTreeEntry) error {
	leaf := proto.BTreeNode{Depth: proto.BTreeLeafDepth, Entries: entries}
	id := sheep.BTreeObject(v.ID, proto.BTreeInbox)
	return g.guard.Write(context.Background(), sheep.Ref{ID: id}, &sheep.Write{Data: leaf.Append(nil), Durable: true})
}

// fill makes the data objects that entries name.
func (w *world) fill(v sheep.VDI, entries ...proto.BTreeEntry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range entries {
		if e.VDI != 0 {
			w.objects[sheep.DataObject(v.ID, e.Index)] = object{}
		}
	}
}

// A treeModel is what a tree should have.
type treeModel map[uint32]sheep.VDIID

func (m treeModel) set(entries ...proto.BTreeEntry) {
	for _, e := range entries {
		if e.VDI == 0 {
			delete(m, e.Index)
		} else {
			m[e.Index] = e.VDI
		}
	}
}

// same fails unless the tree of v has what m has, for our readers and for C's, which
// looks for the first element that is not less, in the root and then in the leaf.
func (m treeModel) same(t *testing.T, g *gateway, v sheep.VDI) {
	t.Helper()
	tree := vdi.NewTree(g.guard, v)
	got := treeModel{}
	for e, err := range tree.InUse(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got[e.Index] = e.VDI
	}
	if !maps.Equal(got, m) {
		t.Fatalf("the tree has %d objects, want %d", len(got), len(m))
	}
	g.originalReads(t, v, m)
}

// originalReads looks each index of m up as C Sheepdog does.
func (g *gateway) originalReads(t *testing.T, v sheep.VDI, m treeModel) {
	t.Helper()
	root := g.treeNode(t, sheep.InodeObject(v.ID), proto.MapOffset)
	leaves := make(map[sheep.ObjectID]proto.BTreeNode)
	for index, owner := range m {
		leaf := root
		if root.Depth == proto.BTreeRootDepth {
			at, _ := slices.BinarySearchFunc(root.Children, index, func(c proto.BTreeChild, i uint32) int { return int(int64(c.Last) - int64(i)) })
			if at == len(root.Children) {
				t.Fatalf("index %d is beyond the root", index)
			}
			id := root.Children[at].ID
			if _, ok := leaves[id]; !ok {
				leaves[id] = g.treeNode(t, id, 0)
			}
			leaf = leaves[id]
		}
		at, found := slices.BinarySearchFunc(leaf.Entries, index, func(e proto.BTreeEntry, i uint32) int { return int(int64(e.Index) - int64(i)) })
		if !found || leaf.Entries[at].VDI != owner {
			t.Fatalf("index %d is not in its leaf", index)
		}
	}
}

// treeNode reads a node.
func (g *gateway) treeNode(t *testing.T, id sheep.ObjectID, off uint32) proto.BTreeNode {
	t.Helper()
	b := make([]byte, proto.BTreeHeaderSize)
	g.try(g.guard.Read(t.Context(), sheep.Ref{ID: id}, b, off))
	h, err := proto.DecodeBTreeHeader(b)
	g.try(err)
	b = make([]byte, h.Size())
	g.try(g.guard.Read(t.Context(), sheep.Ref{ID: id}, b, off))
	n, err := proto.DecodeBTreeNode(b)
	if err != nil {
		t.Fatalf("node %v: %v", id, err)
	}
	return n
}

// Shapes of trees that split soon: small nodes that are written at once, large ones
// that are not, and roots that become wide.
var shapes = []struct {
	name                                   string
	atomic, small, wide, entries, children int
}{
	{"nodes that are written at once", 1 << 16, 4, 1000, 1000, 1000},
	{"nodes that are not", 32, 8, 1000, 1000, 1000},
	{"a wide root", 40, 4, 6, 40, 1000},
	{"a wide root of large leaves", 1 << 16, 6, 8, 100, 1000},
}

// TestHyperVolumeIsMade checks the bytes of a new hyper volume, and those after
// two objects were made, as C Sheepdog writes them.
func TestHyperVolumeIsMade(t *testing.T) {
	w := newWorld(t, 1)
	w.defaults.BlockShift = 20
	g := w.gateways[0]
	v := g.createHyper("test", 1<<54)
	h := g.header(v.ID)
	if h.StorePolicy != 1 || h.BlockShift != 22 || h.Size != 1<<54 || !v.Hyper || h.BTreeCounter != 0 {
		t.Errorf("header %+v, VDI %+v", h, v)
	}
	if got := g.readInode(v.ID, proto.MapOffset, 24); hex.EncodeToString(got) != "7462010000000000"+"00000000000000000000000000000000" {
		t.Errorf("the root is %x", got)
	}
	d, _ := g.open("test")
	g.try(d.WriteAt(t.Context(), []byte("x"), 40<<20, false))
	g.try(d.WriteAt(t.Context(), []byte("x"), 0, false))
	if got := g.readInode(v.ID, proto.MapOffset, 24); hex.EncodeToString(got) != "7462010002000000"+"00000000252b7c00"+"0a000000252b7c00" {
		t.Errorf("the root is %x", got)
	}
	for what, b := range map[string]proto.VDIBody{
		"too large":         {Size: 1<<54 + 1, StorePolicy: 1},
		"other objects":     {Size: 1, StorePolicy: 1, BlockShift: 20},
		"a snapshot":        {Size: 1 << 54, SnapID: 1, Base: v.ID},
		"a plain successor": {Size: 1 << 20, SnapID: 1},
		"a clone":           {Size: 1 << 54, Base: v.ID},
		"made of something": {Size: 1, StorePolicy: 1, Base: v.ID},
		"an unknown policy": {Size: 1, StorePolicy: 2},
	} {
		name := "other"
		if b.SnapID != 0 {
			name = "test"
		}
		if _, err := g.ops.Create(t.Context(), name, b); err == nil {
			t.Errorf("%s was made", what)
		}
	}
}

// TestTreeAgainstModel enters random objects and gives them up again.
func TestTreeAgainstModel(t *testing.T) {
	for i, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(t, 2)
			for _, g := range w.gateways {
				vdi.ShapeTrees(g.guard, s.atomic, s.small, s.wide, s.entries, s.children)
			}
			v := w.gateways[0].createHyper("test", 1<<54)
			r := seeded(t)
			m := treeModel{}
			for step := range 400 {
				g := w.gateways[r.IntN(2)]
				entries := randomEntries(r, v, step)
				w.fill(v, entries...)
				g.try(g.inbox(v, entries...))
				m.set(entries...)
				if step%20 == 0 {
					m.same(t, g, v)
					m.look(t, r, g, v)
				}
			}
			m.same(t, w.gateways[0], v)
			if n := w.dataObjectsOf(v.ID); n != len(m) {
				t.Errorf("there are %d objects, want %d", n, len(m))
			}
			if leaks := w.leaks(); len(leaks) > 0 {
				t.Errorf("leaked: %v", leaks)
			}
			if i%2 == 0 { // as C dog does before it deletes a VDI
				w.gateways[1].try(w.gateways[1].writeInode(v.ID, proto.MapOffset, make([]byte, 8<<20)))
				if n := w.dataObjectsOf(v.ID); n != 0 {
					t.Errorf("%d objects are left after the map was cleared", n)
				}
				treeModel{}.same(t, w.gateways[0], v)
			}
			w.gateways[1].must(w.gateways[1].ops.Delete(t.Context(), "test", "", 0))
			if len(w.objects) != 1 {
				t.Errorf("%d objects are left, want the inode", len(w.objects))
			}
		})
	}
}

// randomEntries returns some updates: neighbours, scattered ones, at the end.
func randomEntries(r *rand.Rand, v sheep.VDI, step int) []proto.BTreeEntry {
	owner := v.ID
	if r.IntN(4) == 0 {
		owner = 0
	}
	var entries []proto.BTreeEntry
	at, gap := r.Uint64N(3000), uint64(1)
	switch r.IntN(5) {
	case 0:
		gap = 1 + r.Uint64N(50)
	case 1:
		at = uint64(step) * 10
	case 2:
		at, gap = 1<<32-1-r.Uint64N(2000), 3
	}
	for range 1 + r.IntN(9) {
		if at > 1<<32-1 {
			break
		}
		entries = append(entries, proto.BTreeEntry{Index: uint32(at), VDI: owner})
		at += gap
	}
	return entries
}

// look compares what Owners and Next find with m.
func (m treeModel) look(t *testing.T, r *rand.Rand, g *gateway, v sheep.VDI) {
	t.Helper()
	tree := vdi.NewTree(g.guard, v)
	first := r.Uint32N(3000)
	owners := make([]sheep.VDIID, 1+r.IntN(500))
	g.try(tree.Owners(t.Context(), first, owners))
	next := uint64(first) + uint64(len(owners))
	for i := len(owners) - 1; i >= 0; i-- {
		if owners[i] != m[first+uint32(i)] {
			t.Fatalf("object %d has owner %v, want %v", int(first)+i, owners[i], m[first+uint32(i)])
		}
		if owners[i] != 0 {
			next = uint64(first) + uint64(i)
		}
	}
	got, err := tree.Next(t.Context(), uint64(first), uint64(first)+uint64(len(owners)))
	if err != nil || got != next {
		t.Fatalf("after %d the next object is %d, %v, want %d", first, got, err, next)
	}
}

// TestTreeWhenTheNthRequestFails has the gateway die at each of its requests, which
// may have been done or not: what was answered is in the tree, and what goes on
// afterwards as well.
func TestTreeWhenTheNthRequestFails(t *testing.T) {
	for _, s := range shapes {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, done %v", s.name, done), func(t *testing.T) {
				step := 3
				if raceEnabled {
					step = 11
				}
				for n, failed := 1+seeded(t).IntN(step), true; failed; n += step {
					if failed = crashTree(t, n, step, done, func(g *gateway) {
						vdi.ShapeTrees(g.guard, s.atomic, s.small, s.wide, s.entries, s.children)
					}); t.Failed() {
						t.Fatalf("with request %d", n)
					}
				}
			})
		}
	}
}

// crashTree runs a script of which request n fails, and reports whether there is
// one.
func crashTree(t *testing.T, n, step int, done bool, shape func(*gateway)) (failed bool) {
	t.Helper()
	w := newWorld(t, 1)
	g := w.gateways[0]
	shape(g)
	v := g.createHyper("test", 1<<54)
	r := rand.New(rand.NewPCG(1, 2))
	m := treeModel{}
	w.calls, w.applied, w.failAt = 0, done, n
	for k := range 24 {
		entries := randomEntries(r, v, k)
		if k%3 == 0 { // in the middle of what is there
			for i := range entries {
				entries[i].Index = uint32(k*7 + i*3)
			}
		}
		w.fill(v, entries...)
		for {
			err := g.inbox(v, entries...)
			if err != nil && !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			if !w.crashed() {
				break
			}
			w.recover()
			m.halfway(t, g, v, entries)
			w.fill(v, entries...)
			if !failed { // and once more, while it mends what the first has left
				w.calls, w.failAt = 0, 1+n/step%8
			}
			failed = true
		}
		m.set(entries...)
	}
	w.failAt = 0
	m.same(t, g, v)
	g.must(g.ops.Delete(t.Context(), "test", "", 0))
	for id := range w.objects {
		if id.Kind() != sheep.KindInode && id.Kind() != sheep.KindData { // a crash may leave data objects to a sweep
			t.Errorf("%v is left", id)
		}
	}
	return failed
}

// halfway fails unless the tree has what m has, with any part of entries.
func (m treeModel) halfway(t *testing.T, g *gateway, v sheep.VDI, entries []proto.BTreeEntry) {
	t.Helper()
	both := maps.Clone(m)
	open := make(map[uint32]bool)
	for _, e := range entries {
		open[e.Index] = true
		delete(both, e.Index)
	}
	g.originalReads(t, v, both)
	for e, err := range vdi.NewTree(g.guard, v).InUse(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := both[e.Index]; !ok && !open[e.Index] {
			t.Errorf("object %d is in the tree, nobody has entered it", e.Index)
		}
		delete(both, e.Index)
	}
	if len(both) > 0 {
		t.Errorf("the tree has lost %v", both)
	}
}

// TestTreeOfConcurrentWriters has clients of two gateways enter objects at the same
// time, and one that reads: nothing is lost, and what is there is always found.
func TestTreeOfConcurrentWriters(t *testing.T) {
	w := newWorld(t, 2)
	for _, g := range w.gateways {
		vdi.ShapeTrees(g.guard, 64, 6, 8, 100, 1000)
	}
	v := w.gateways[0].createHyper("test", 1<<54)
	w.owner[v.ID] = w.gateways[0]
	m, always := treeModel{}, []proto.BTreeEntry{}
	for i := range uint32(50) {
		always = append(always, proto.BTreeEntry{Index: i * 97, VDI: v.ID})
	}
	w.fill(v, always...)
	w.gateways[0].try(w.gateways[0].inbox(v, always...))
	m.set(always...)
	const writers, each = 6, 150
	var wg sync.WaitGroup
	stop := make(chan struct{})
	reader := make(chan error, 1)
	go func() { reader <- readAlways(v, w.gateways[1], always, stop) }()
	for k := range uint32(writers) {
		var mine []proto.BTreeEntry
		for i := range uint32(each) {
			mine = append(mine, proto.BTreeEntry{Index: (i*writers+k)*5 + 1, VDI: v.ID})
		}
		m.set(mine...)
		w.fill(v, mine...)
		wg.Go(func() {
			g := w.gateways[k%2]
			for _, e := range mine {
				if err := g.inbox(v, e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	if err := <-reader; err != nil {
		t.Error(err)
	}
	m.same(t, w.gateways[0], v)
}

// readAlways reads the tree until stop is closed and fails if it has not all of
// entries.
func readAlways(v sheep.VDI, g *gateway, entries []proto.BTreeEntry, stop chan struct{}) error {
	tree := vdi.NewTree(g.guard, v)
	for {
		for _, e := range entries {
			var owner [1]sheep.VDIID
			if err := tree.Owners(context.Background(), e.Index, owner[:]); err != nil || owner[0] != v.ID {
				return fmt.Errorf("object %d has owner %v, %v", e.Index, owner[0], err)
			}
		}
		n := 0
		for e, err := range tree.InUse(context.Background()) {
			if err != nil {
				return err
			}
			if e.Index%97 == 0 && e.Index/97 < uint32(len(entries)) {
				n++
			}
		}
		if n != len(entries) {
			return fmt.Errorf("%d of %d objects are found", n, len(entries))
		}
		select {
		case <-stop:
			return nil
		default:
		}
	}
}
