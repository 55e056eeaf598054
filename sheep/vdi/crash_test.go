package vdi_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/vdi"
)

// family is a world with a snapshotted, cloned and rolled back disk.
func family(t testing.TB) *world {
	w := newWorld(t, 2)
	g := w.gateways[0]
	a := g.create("test", 64<<20)
	for _, i := range []uint32{0, 1, 2, 5, 40_000} {
		g.try(g.store(a.ID, i, uint64(i)+1))
	}
	g.try(g.guard.Write(t.Context(), sheep.Ref{ID: sheep.VMStateObject(a.ID, 0)}, &sheep.Write{Data: []byte("vm"), Create: true}))
	h := g.header(a.ID)
	h.VMStateSize = 100
	g.try(g.writeInode(a.ID, 0, h.Append(nil)))
	b := g.snapshot(a, "one")
	g.try(g.store(b.ID, 1, 20))
	g.try(g.store(b.ID, 7, 21))
	c := g.snapshot(b, "two")
	g.try(g.store(c.ID, 2, 30))
	d := g.cloneOf("clone", a.ID)
	g.try(g.store(d.ID, 5, 40))
	g.try(g.setSlot(c.ID, 0, 0))
	if leaks := w.leaks(); len(leaks) != 0 {
		t.Fatalf("leaks before the test: %v", leaks)
	}
	return w
}

// TestPlansSurviveCrashes crashes the executor of each operation at every one of
// its requests, before and after the request is applied. Another node must end
// up exactly where the first would have.
func TestPlansSurviveCrashes(t *testing.T) {
	attr := func(value string) []byte {
		a := proto.Attr{AttrHeader: proto.AttrHeader{Name: proto.Label("test"), Key: proto.Label("k")}, Value: []byte(value)}
		return a.Append(nil)
	}
	create := func(name string, b proto.VDIBody) func(*world) error {
		return func(w *world) error {
			_, err := w.gateways[0].ops.Create(context.Background(), name, b)
			return err
		}
	}
	remove := func(name, tag string) func(*world) error {
		return func(w *world) error {
			_, err := w.gateways[0].ops.Delete(context.Background(), name, tag, 0)
			return err
		}
	}
	base := family(t)
	one := base.gateways[0].must(base.gateways[0].ops.Lookup(t.Context(), "test", "one", 0))
	head := base.gateways[0].must(base.gateways[0].ops.Lookup(t.Context(), "test", "", 0))
	for _, c := range []struct {
		name string
		op   func(*world) error
	}{
		{"create", create("new", proto.VDIBody{Size: 1 << 20})},
		{"snapshot", create("test", proto.VDIBody{Size: 64 << 20, Base: head.ID, SnapID: 1})},
		{"clone", create("copy", proto.VDIBody{Size: 64 << 20, Base: one.ID})},
		{"rebase", create("test", proto.VDIBody{Size: 64 << 20, Base: one.ID, SnapID: 1})},
		{"rebase to nothing", create("test", proto.VDIBody{Size: 64 << 20, SnapID: 1})},
		{"delete head", remove("test", "")},
		{"delete oldest snapshot", remove("test", "one")},
		{"delete snapshot", remove("test", "two")},
		{"delete clone", remove("clone", "")},
		{"set attribute", func(w *world) error {
			_, err := w.gateways[0].ops.Attr(context.Background(), attr("x"), proto.FlagAttrCreate)
			return err
		}},
		{"create attribute", func(w *world) error {
			_, err := w.gateways[0].ops.Attr(context.Background(), attr("x"), proto.FlagAttrCreate|proto.FlagAttrExcl)
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := base.clone(t)
			if err := c.op(want); err != nil {
				t.Fatal(err)
			}
			total := want.calls
			if leaks := want.leaks(); len(leaks) != 0 {
				t.Errorf("undisturbed leaks: %v", leaks)
			}
			for n := 1; n <= total+1; n++ {
				for _, applied := range []bool{false, true} {
					w := base.clone(t)
					w.failAt, w.applied, w.repeat = n, applied, n > total
					if err := c.op(w); err != nil {
						t.Fatalf("crash at request %d, applied %t: %v", n, applied, err)
					}
					if diff := w.same(want); diff != "" {
						t.Errorf("crash at request %d, applied %t: after the second execution and undisturbed: %s", n, applied, diff)
					}
				}
			}
		})
	}
}

// TestFailedPlansAreUndone has a write of each operation fail for good.
func TestFailedPlansAreUndone(t *testing.T) {
	base := family(t)
	g := base.gateways[0]
	one := g.must(g.ops.Lookup(t.Context(), "test", "one", 0))
	head := g.must(g.ops.Lookup(t.Context(), "test", "", 0))
	for _, c := range []struct {
		what string
		body proto.VDIBody
		deny sheep.VDIID // writes to whose inode fail
		want error
	}{
		{"snapshot without room for the new inode", proto.VDIBody{Base: head.ID, SnapID: 1}, head.ID + 1, proto.ErrVDIWrite},
		{"snapshot of an inode that cannot be written", proto.VDIBody{Base: head.ID, SnapID: 1}, head.ID, proto.ErrBaseVDIWrite},
		{"rebase onto an inode that cannot be written", proto.VDIBody{Base: one.ID, SnapID: 1}, one.ID, proto.ErrBaseVDIWrite},
	} {
		w := base.clone(t)
		w.deny = sheep.InodeObject(c.deny)
		if _, err := w.gateways[0].ops.Create(t.Context(), "test", c.body); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
		if diff := w.same(base); diff != "" {
			t.Errorf("%s: before and after: %s", c.what, diff)
		}
	}
}

// A model knows what every disk holds.
type model map[sheep.VDIID]map[uint32][64]byte

func (m model) store(id sheep.VDIID, i uint32, stamp uint64) {
	block := m[id][i]
	for n := range 8 {
		block[8*(stamp%7)+uint64(n)] = byte(stamp >> (8 * n))
	}
	m[id][i] = block
}

func (m model) copy(from, to sheep.VDIID) {
	m[to] = map[uint32][64]byte{}
	maps.Copy(m[to], m[from])
}

// check verifies that every disk holds what it should.
func (m model) check(w *world) error {
	for id, blocks := range m {
		for i := range uint32(maxIndex) {
			got, err := w.gateways[0].load(id, i)
			if err != nil {
				return fmt.Errorf("block %d of %v: %w", i, id, err)
			}
			if got != blocks[i] {
				return fmt.Errorf("block %d of %v is %x, want %x", i, id, got, blocks[i])
			}
		}
	}
	return nil
}

const maxIndex = 6

// TestRandomHistories runs operations and client writes at random, with crashes,
// and requires that no disk ever loses a block and, without crashes of client
// writes, that nothing leaks.
func TestRandomHistories(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("VDI_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("VDI_SEED=%d", seed)
	for round := range uint64(12) {
		for _, crashes := range []bool{false, true} {
			if err := history(t, rand.New(rand.NewPCG(seed, round)), crashes); err != nil {
				t.Fatalf("round %d, crashes %t: %v", round, crashes, err)
			}
		}
	}
}

func history(t *testing.T, r *rand.Rand, crashes bool) error {
	ctx := t.Context()
	w := newWorld(t, 2)
	m := model{}
	lost := false // a client's write was cut off: objects may leak
	for step := range uint64(60) {
		g := w.gateways[r.IntN(2)]
		clear(w.owner)
		for _, v := range w.VDIs() {
			if r.IntN(3) == 0 {
				w.owner[v.ID] = w.gateways[r.IntN(2)]
			}
		}
		w.calls, w.failAt, w.applied = 0, 0, r.IntN(2) == 0
		if crashes && r.IntN(2) == 0 {
			w.failAt = 1 + r.IntN(30)
		}
		alive := slices.DeleteFunc(w.VDIs(), func(v sheep.VDI) bool { return v.Deleted })
		name := []string{"a", "b", "c"}[r.IntN(3)]
		var v sheep.VDI
		if len(alive) > 0 {
			v = alive[r.IntN(len(alive))]
		}
		var err error
		switch op := r.IntN(12); {
		case op == 0 || v.ID == 0:
			if v, err = g.ops.Create(ctx, name, proto.VDIBody{Size: 64 << 20}); err == nil {
				m[v.ID] = map[uint32][64]byte{}
			}
		case op == 1 && v.Snapshot:
			var c sheep.VDI
			if c, err = g.ops.Create(ctx, name, proto.VDIBody{Size: 64 << 20, Base: v.ID}); err == nil {
				m.copy(v.ID, c.ID)
			}
		case op == 2 && v.Snapshot:
			var c sheep.VDI
			if c, err = g.ops.Create(ctx, name, proto.VDIBody{Size: 64 << 20, Base: v.ID, SnapID: 1}); err == nil {
				m.copy(v.ID, c.ID)
			}
		case op <= 4 && !v.Snapshot:
			var c sheep.VDI
			if c, err = g.ops.Create(ctx, v.Name, proto.VDIBody{Size: 64 << 20, Base: v.ID, SnapID: 1}); err == nil {
				m.copy(v.ID, c.ID)
			}
		case op == 5:
			id := v.SnapID
			if !v.Snapshot {
				id = 0
			}
			if _, err = g.ops.Delete(ctx, v.Name, "", id); err == nil {
				delete(m, v.ID)
			}
		case op == 6:
			i := uint32(r.IntN(maxIndex))
			err = again(w, func() error { return g.guard.Discard(ctx, sheep.DataObject(v.ID, i)) })
			delete(m[v.ID], i)
		default:
			if v.Snapshot {
				continue
			}
			i := uint32(r.IntN(maxIndex))
			err = again(w, func() error { return g.store(v.ID, i, step+1) })
			m.store(v.ID, i, step+1)
		}
		if w.crashed() {
			lost = true
		}
		w.recover()
		if err != nil && !errors.Is(err, sheep.ErrVDIExists) && !errors.Is(err, sheep.ErrNoVDI) {
			return fmt.Errorf("step %d: %w", step, err)
		}
		if err := m.check(w); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
		if lost || w.interrupted || step%4 != 0 {
			continue
		}
		if leaks := w.leaks(); len(leaks) != 0 {
			return fmt.Errorf("step %d: leaks %v", step, leaks)
		}
	}
	// Whatever was miscounted, deleting all must not fail.
	for _, v := range w.VDIs() {
		if v.Deleted {
			continue
		}
		id := v.SnapID
		if !v.Snapshot {
			id = 0
		}
		w.gateways[0].must(w.gateways[0].ops.Delete(ctx, v.Name, "", id))
	}
	left := append(w.objectsOf(sheep.KindData), w.objectsOf(sheep.KindLedger)...)
	if len(left) != 0 && !lost && !w.interrupted {
		return fmt.Errorf("left after all deletions: %v", left)
	}
	return nil
}

// again repeats a request that was cut off, as clients do.
func again(w *world, fn func() error) error {
	err := fn()
	if w.crashed() {
		w.interrupted = true
		w.recover()
		err = fn()
	}
	return err
}

func FuzzPlanPayloads(f *testing.F) {
	f.Add(uint8(vdi.PlanNew), append([]byte{1}, make([]byte, 27)...))
	f.Add(uint8(vdi.PlanDelete), append([]byte{1}, make([]byte, 10)...))
	f.Add(uint8(vdi.PlanAttr), append([]byte{1, 2}, make([]byte, 784)...))
	f.Add(uint8(0), []byte{1, 0x25, 0x2b, 0x7c, 0, 0, 0, 0, 0, 2, 22})
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		again, err := vdi.ReencodePlan(kind, b)
		if err == nil && !slices.Equal(again, b) {
			t.Errorf("%x decodes and encodes to %x", b, again)
		}
	})
}
