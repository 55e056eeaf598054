package vdi_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

func addr(port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port))
}

func TestNumbersAndReferencesAreThoseOfC(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	base := g.create("test", 16<<20)
	if base.ID != 0x7c2b25 || base.SnapID != 1 {
		t.Errorf("first VDI of test is %v with id %d, want 7c2b25 with 1", base.ID, base.SnapID)
	}
	g.try(g.store(base.ID, 0, 1))
	head := g.snapshot(base, "snap1")
	if head.ID != 0x7c2b26 || head.SnapID != 2 || head.Parent != base.ID {
		t.Errorf("head after the snapshot is %+v", head)
	}
	if got := g.gref(base.ID, 0); got != [2]int32{0, 1} {
		t.Errorf("reference of the snapshot is %v, want {0,1}", got)
	}
	if got := g.gref(head.ID, 0); got != [2]int32{1, 0} {
		t.Errorf("reference of the head is %v, want {1,0}", got)
	}
	if h := g.header(base.ID); h.Tag != "snap1" || h.SnapTime == 0 || h.Name != "test" || h.SnapID != 1 {
		t.Errorf("snapshot's header: tag %q time %d name %q id %d", h.Tag, h.SnapTime, h.Name, h.SnapID)
	}
	h := g.header(head.ID)
	if h.Tag != "" || h.SnapTime != 0 || h.Size != 16<<20 || h.CreateTime != g.header(base.ID).SnapTime || h.Parent != base.ID {
		t.Errorf("head's header: tag %q time %d size %d parent %v", h.Tag, h.SnapTime, h.Size, h.Parent)
	}
	if h.Unused != [4092]byte{} {
		t.Error("the head's unused bytes are used")
	}
	g.try(g.store(head.ID, 0, 2))
	if got := g.gref(head.ID, 0); got != [2]int32{} {
		t.Errorf("reference of the head after the overwrite is %v, want {0,0}", got)
	}
	if got := w.ledger(base.ID, 0); !slices.Equal(got, []int32{1, -1, 0, 0}) {
		t.Errorf("ledger is %v, want 1,-1", got)
	}
	clone := g.cloneOf("clone1", base.ID)
	if clone.ID != 0xc8f989 || clone.SnapID != 1 {
		t.Errorf("clone1 is %v with id %d, want c8f989 with 1", clone.ID, clone.SnapID)
	}
	if got := g.gref(base.ID, 0); got != [2]int32{0, 2} {
		t.Errorf("reference of the base after the clone is %v, want {0,2}", got)
	}
}

// TestLifeCycle is A12 of the reproductions on C: after all deletions data and
// ledgers are gone, and five tombstones are left.
func TestLifeCycle(t *testing.T) {
	w := newWorld(t, 2)
	g, other := w.gateways[0], w.gateways[1]
	first := g.create("disk", 64<<20)
	for i := range uint32(4) {
		g.try(g.store(first.ID, i, uint64(i)+1))
	}
	second := g.snapshot(first, "a")
	w.owner[first.ID] = other
	g.try(g.store(second.ID, 0, 10))
	g.try(g.store(second.ID, 5, 11))
	third := g.snapshot(second, "b")
	g.try(g.store(third.ID, 1, 12))
	clone := other.cloneOf("clone", first.ID)
	other.try(other.store(clone.ID, 2, 13))

	// Roll back to a.
	_, err := g.ops.Delete(t.Context(), "disk", "", 0)
	g.try(err)
	fourth := g.cloneOf("disk", first.ID)
	if fourth.SnapID != 3 || fourth.ID != third.ID+1 {
		t.Errorf("head after the rollback is %+v", fourth)
	}
	g.try(g.store(fourth.ID, 3, 14))
	if leaks := w.leaks(); len(leaks) != 0 {
		t.Errorf("leaked before the deletions: %v", leaks)
	}

	for _, q := range []struct {
		name, tag string
		id        uint32
	}{{"disk", "a", 0}, {"disk", "", 0}, {"clone", "", 0}, {"disk", "", 2}} {
		if _, err := g.ops.Delete(t.Context(), q.name, q.tag, q.id); err != nil {
			t.Fatalf("delete %+v: %v", q, err)
		}
	}
	for _, kind := range []sheep.Kind{sheep.KindData, sheep.KindLedger, sheep.KindVMState} {
		if ids := w.objectsOf(kind); len(ids) != 0 {
			t.Errorf("%v objects left: %v", kind, ids)
		}
	}
	if ids := w.objectsOf(sheep.KindInode); len(ids) != 5 {
		t.Errorf("%d inodes left, want 5 tombstones", len(ids))
	}
	for _, v := range w.VDIs() {
		if h := g.header(v.ID); !v.Deleted || v.Name != "" || h.Name != "" || h.Size != 0 || h.VDI != v.ID {
			t.Errorf("tombstone %+v with header name %q size %d VDI %v", v, h.Name, h.Size, h.VDI)
		}
	}
}

// TestQEMUBranches replays the first write to a snapshot view.
func TestQEMUBranches(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	base := g.create("test", 16<<20)
	g.try(g.store(base.ID, 1, 1))
	head := g.snapshot(base, "snap1")
	g.try(g.store(head.ID, 2, 2))

	if _, err := g.ops.Delete(t.Context(), "test", "", 0); err != nil {
		t.Fatal(err)
	}
	branch, err := g.ops.Create(t.Context(), "test", proto.VDIBody{Size: 16 << 20, Base: base.ID, Copies: 2, BlockShift: 22})
	if err != nil {
		t.Fatal(err)
	}
	if g.slot(branch.ID, 1) != base.ID || g.slot(branch.ID, 2) != 0 {
		t.Error("the branch does not have the snapshot's map")
	}
	if w.objects[sheep.DataObject(head.ID, 2)] != nil {
		t.Error("the data of the deleted head is still there")
	}
	// A second branch without a head: the deletion finds none.
	if _, err := g.ops.Delete(t.Context(), "test", "", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := g.ops.Delete(t.Context(), "test", "", 0); !errors.Is(err, sheep.ErrNoVDI) {
		t.Errorf("deleting a head that is not there: %v, want no VDI", err)
	}
}

// TestQEMUDeletesSnapshot replays snapshot -d with its bug: it empties the head.
func TestQEMUDeletesSnapshot(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	base := g.create("test", 16<<20)
	for i := range uint32(3) {
		g.try(g.store(base.ID, i, uint64(i)))
	}
	head := g.snapshot(base, "snap1")
	g.try(g.store(head.ID, 0, 9))

	g.try(g.writeInode(head.ID, proto.MapOffset, make([]byte, 32)))
	if v := g.must(g.ops.Lookup(t.Context(), "test", "", 1)); v.ID != base.ID {
		t.Fatalf("lookup of id 1 found %v", v.ID)
	}
	if v := g.must(g.ops.Delete(t.Context(), "test", "", 1)); v.ID != base.ID {
		t.Fatalf("deletion of id 1 deleted %v", v.ID)
	}
	if ids := append(w.objectsOf(sheep.KindData), w.objectsOf(sheep.KindLedger)...); len(ids) != 0 {
		t.Errorf("objects left: %v", ids)
	}
	if _, err := g.ops.Lookup(t.Context(), "test", "snap1", 0); !errors.Is(err, sheep.ErrNoTag) {
		t.Errorf("lookup of the deleted snapshot: %v, want no tag", err)
	}
}

// TestQEMUFollowsSnapshot replays the refusal by which a running VM learns of a
// snapshot that somebody else has taken.
func TestQEMUFollowsSnapshot(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	old := g.create("test", 16<<20)
	g.try(g.store(old.ID, 0, 1))
	head := g.snapshot(old, "tag")

	if err := g.store(old.ID, 0, 2); !errors.Is(err, sheep.ErrReadOnly) {
		t.Errorf("write to the snapshot: %v, want read-only", err)
	}
	if err := g.setSlot(old.ID, 5, old.ID); !errors.Is(err, sheep.ErrReadOnly) {
		t.Errorf("map write to the snapshot: %v, want read-only", err)
	}
	g.try(g.setSlot(old.ID, 5, 0)) // a discard that was under way
	if v := g.must(g.ops.Lookup(t.Context(), "test", "", 0)); v.ID != head.ID {
		t.Errorf("the head is %v, want %v", v.ID, head.ID)
	}
	g.try(g.store(head.ID, 0, 2))
	label := proto.Label("other")
	g.try(g.writeInode(old.ID, 256, label[:]))
	if v := g.must(g.ops.Lookup(t.Context(), "test", "other", 0)); v.ID != old.ID {
		t.Errorf("the snapshot's new tag finds %v", v.ID)
	}
}

func TestVMStateGoesWithItsVDI(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	base := g.create("vm", 16<<20)
	for i := range uint32(3) {
		wr := sheep.Write{Data: []byte("state"), Create: true}
		g.try(g.guard.Write(t.Context(), sheep.Ref{ID: sheep.VMStateObject(base.ID, i)}, &wr))
	}
	h := g.header(base.ID)
	h.VMStateSize, h.VMClock, h.Tag = 2<<22+5, 77, "live"
	g.try(g.writeInode(base.ID, 0, h.Append(nil)))
	g.snapshot(base, "live")
	if h := g.header(base.ID); h.VMStateSize != 2<<22+5 || h.VMClock != 77 {
		t.Errorf("saved state is %d bytes, clock %d", h.VMStateSize, h.VMClock)
	}
	g.must(g.ops.Delete(t.Context(), "vm", "live", 0))
	if ids := w.objectsOf(sheep.KindVMState); len(ids) != 0 {
		t.Errorf("vmstate objects left: %v", ids)
	}
	if h := g.header(base.ID); h.VMClock != 77 {
		t.Error("the tombstone lost its other header fields")
	}
}

func TestLookup(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	v1 := g.create("test", 1<<20)
	v2 := g.snapshot(v1, "one")
	v3 := g.snapshot(v2, "two")
	gone := g.create("gone", 1<<20)
	goneHead := g.snapshot(gone, "t")
	g.must(g.ops.Delete(t.Context(), "gone", "", 0))
	for _, c := range []struct {
		what      string
		name, tag string
		id        uint32
		want      sheep.VDIID
		err       error
	}{
		{"a name finds the head", "test", "", 0, v3.ID, nil},
		{"a tag finds the snapshot", "test", "one", 0, v1.ID, nil},
		{"an id finds the snapshot", "test", "", 2, v2.ID, nil},
		{"a wrong tag with a right id matches", "test", "nonsense", 1, v1.ID, nil},
		{"of two matches the newer wins", "test", "one", 2, v2.ID, nil},
		{"the head does not match its id", "test", "", 3, 0, sheep.ErrNoTag},
		{"a missing tag where there is a head", "test", "three", 0, 0, sheep.ErrNoTag},
		{"a missing name", "tes", "", 0, 0, sheep.ErrNoVDI},
		{"no name", "", "", 0, 0, sheep.ErrNoVDI},
		{"a name with snapshots only", "gone", "", 0, 0, sheep.ErrNoVDI},
		{"a missing tag of a name with snapshots only", "gone", "x", 0, 0, sheep.ErrNoVDI},
		{"a snapshot of a name without head", "gone", "t", 0, gone.ID, nil},
	} {
		v, err := g.ops.Lookup(t.Context(), c.name, c.tag, c.id)
		if !errors.Is(err, c.err) || c.err == nil && err != nil || v.ID != c.want {
			t.Errorf("%s: %v, %v; want %v, %v", c.what, v.ID, err, c.want, c.err)
		}
	}
	again := g.create("gone", 1<<20)
	if again.SnapID != 2 || again.ID != goneHead.ID+1 {
		t.Errorf("the name made again: %+v", again)
	}
}

func TestNumbersWrapAround(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	start := sheep.VDIID(0x7c2b25)
	w.taken = make([]byte, sheep.MaxVDIs/8)
	for v := start; v < sheep.MaxVDIs; v++ {
		w.taken[v/8] |= 1 << (v % 8)
	}
	v := g.create("test", 1<<20)
	if v.ID != 1 {
		t.Errorf("number is %v, want 1", v.ID)
	}
	head := g.snapshot(v, "x")
	if got := g.must(g.ops.Lookup(t.Context(), "test", "", 0)); head.ID != 2 || got.ID != 2 {
		t.Errorf("head is %v, lookup finds %v, want 2", head.ID, got.ID)
	}
}

func TestRecycledNumbers(t *testing.T) {
	w := newWorld(t, 1)
	w.defaults.Recycle = true
	g := w.gateways[0]
	a := g.create("test", 8<<20)
	if a.ID != 1 {
		t.Errorf("first number is %v, want 1", a.ID)
	}
	g.try(g.store(a.ID, 0, 1))
	b := g.snapshot(a, "s")
	g.must(g.ops.Delete(t.Context(), "test", "", 0))
	if _, ok := w.VDI(b.ID); !ok {
		t.Error("a member of a family that is left was forgotten")
	}
	g.must(g.ops.Delete(t.Context(), "test", "s", 0))
	if len(w.table) != 0 || len(w.objects) != 0 {
		t.Errorf("left: %d VDIs, %d objects", len(w.table), len(w.objects))
	}
	if v := g.create("other", 1<<20); v.ID != 1 {
		t.Errorf("number is %v, want 1 again", v.ID)
	}
}

// TestClusterRestore replays what dog does to load a cluster snapshot.
func TestClusterRestore(t *testing.T) {
	src := newWorld(t, 1)
	v1 := src.gateways[0].create("test", 16<<20)
	src.gateways[0].try(src.gateways[0].store(v1.ID, 0, 1))
	v2 := src.gateways[0].snapshot(v1, "a")
	src.gateways[0].try(src.gateways[0].store(v2.ID, 1, 2))
	src.gateways[0].snapshot(v2, "b")

	w := newWorld(t, 1)
	g := w.gateways[0]
	for _, v := range []sheep.VDI{v1, v2} {
		w.table[v.ID] = sheep.VDI{ID: v.ID, Policy: v.Policy, BlockShift: v.BlockShift}
		inode := make([]byte, sheep.InodeSize)
		src.objects[sheep.InodeObject(v.ID)].read(inode, 0)
		wr := sheep.Write{Data: inode, Create: true}
		g.try(g.guard.Write(t.Context(), sheep.Ref{ID: sheep.InodeObject(v.ID)}, &wr))
	}
	for _, id := range src.objectsOf(sheep.KindData) {
		data := make([]byte, 4<<20)
		src.objects[id].read(data, 0)
		wr := sheep.Write{Data: data, Create: true}
		g.try(g.guard.Write(t.Context(), sheep.Ref{ID: id}, &wr))
	}
	if _, err := g.ops.Lookup(t.Context(), "test", "", 0); !errors.Is(err, sheep.ErrNoVDI) {
		t.Errorf("lookup of a head that was not restored: %v", err)
	}
	if v := g.must(g.ops.Lookup(t.Context(), "test", "a", 0)); v.ID != v1.ID {
		t.Errorf("tag a finds %v", v.ID)
	}
	head := g.must(g.ops.Create(t.Context(), "test", proto.VDIBody{Size: 16 << 20, Base: v2.ID}))
	if head.SnapID != 3 || head.Parent != v2.ID || g.slot(head.ID, 0) != v1.ID || g.slot(head.ID, 1) != v2.ID {
		t.Errorf("head %+v", head)
	}
	for _, v := range []sheep.VDIID{v1.ID, v2.ID} {
		if !w.table[v].Snapshot {
			t.Errorf("%v is no snapshot yet", v)
		}
	}
	if err := g.store(v2.ID, 1, 5); !errors.Is(err, sheep.ErrReadOnly) {
		t.Errorf("write to the restored snapshot: %v", err)
	}
}

func TestHyperVolumesOfNativeClients(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	v := sheep.VDI{ID: 5, Policy: sheep.Replicated(2), BlockShift: 22, Hyper: true}
	w.table[v.ID] = v
	leaf := sheep.BTreeObject(v.ID, 1)
	h := proto.InodeHeader{Name: "big", VDI: v.ID, StorePolicy: 1, Copies: 2, BlockShift: 22, Size: 1 << 50}
	root := proto.BTreeNode{Depth: proto.BTreeRootDepth, Children: []proto.BTreeChild{{Last: 1 << 21, ID: leaf}}}
	put := func(id sheep.ObjectID, data []byte) {
		g.try(g.guard.Write(t.Context(), sheep.Ref{ID: id}, &sheep.Write{Data: data, Create: true}))
	}
	put(sheep.InodeObject(v.ID), proto.BTreeNode{Depth: 1}.Append(h.Append(nil)))
	data := sheep.DataObject(v.ID, 1<<21)
	put(data, []byte("x"))
	put(leaf, proto.BTreeNode{Depth: 1, Entries: []proto.BTreeEntry{{Index: 1 << 21, VDI: v.ID}}}.Append(nil))

	// A client of hyper volumes writes header and root together, then the counter.
	g.try(g.writeInode(v.ID, 0, root.Append(h.Append(nil))))
	g.try(g.writeInode(v.ID, 568, binary.LittleEndian.AppendUint32(nil, 2)))
	if got := g.header(v.ID).BTreeCounter; got != 2 {
		t.Errorf("counter is %d", got)
	}
	if got := g.readInode(v.ID, proto.MapOffset, 24); !slices.Equal(got, root.Append(nil)) {
		t.Errorf("root is %x", got)
	}
	if err := g.setSlot(v.ID, 0, v.ID); !errors.Is(err, sheep.ErrInvalid) {
		t.Errorf("map write: %v, want refused", err)
	}
	if _, err := g.ops.Create(t.Context(), "big", proto.VDIBody{Base: v.ID, SnapID: 1}); !errors.Is(err, sheep.ErrInvalid) {
		t.Errorf("snapshot: %v, want refused", err)
	}
	g.must(g.ops.Delete(t.Context(), "big", "", 0))
	if len(w.objects) != 1 {
		t.Errorf("%d objects left, want the inode", len(w.objects))
	}
}

func TestAttributes(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	attr := func(key, value string) []byte {
		a := proto.Attr{AttrHeader: proto.AttrHeader{Name: proto.Label("test"), Key: proto.Label(key)}, Value: []byte(value)}
		return a.Append(nil)
	}
	do := func(flags proto.Flags, key, value string, want error) proto.VDIReply {
		t.Helper()
		r, err := g.ops.Attr(context.Background(), attr(key, value), flags)
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("flags %#x key %s: %v, want %v", uint16(flags), key, err, want)
		}
		return r
	}
	const set, excl, del = proto.FlagAttrCreate, proto.FlagAttrCreate | proto.FlagAttrExcl, proto.FlagAttrDelete
	do(0, "k1", "", sheep.ErrNoVDI)
	do(set, "k1", "", sheep.ErrNoVDI)
	v := g.create("test", 1<<20)
	do(0, "k1", "", sheep.ErrNoObject)
	do(del, "k1", "", sheep.ErrNoObject)
	r := do(set, "k1", "one", nil)
	if r.VDI != 0x7c2b25 || r.Attr != 0xe16253d9 || r.Copies != 2 {
		t.Errorf("k1 is at %+v, want 7c2b25, e16253d9", r)
	}
	do(excl, "k1", "two", sheep.ErrVDIExists)
	do(set, "k1", "three", nil)
	if got := do(0, "k1", "", nil); got != r {
		t.Errorf("k1 is found at %+v, was made at %+v", got, r)
	}
	buf := make([]byte, sheep.AttrSize)
	g.try(g.guard.Read(t.Context(), sheep.Ref{ID: sheep.AttrObject(r.VDI, r.Attr)}, buf, 0))
	a, err := proto.DecodeAttr(buf)
	if err != nil || string(a.Value) != "three" || a.Ctime != g.header(v.ID).CreateTime {
		t.Errorf("stored: %q ctime %d, %v", a.Value, a.Ctime, err)
	}
	do(del, "k1", "", nil)
	do(0, "k1", "", sheep.ErrNoObject)
	if r := do(excl, "k1", "four", nil); r.Attr != 0xe16253da {
		t.Errorf("made again at %x, want behind the tombstone", r.Attr)
	}
	g.snapshot(v, "s")
	do(0, "k1", "", nil)
}

// TestHeadWithSuccessorIsASnapshot is about a cluster that lost its log between
// the last two steps of a snapshot: two inodes look like heads.
func TestHeadWithSuccessorIsASnapshot(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	old := g.create("test", 1<<20)
	head := g.snapshot(old, "tag")
	w.objects[sheep.InodeObject(old.ID)].zero(520, 8)
	old.Snapshot = false
	w.table[old.ID] = old
	if v := g.must(g.ops.Lookup(t.Context(), "test", "", 0)); v.ID != head.ID {
		t.Errorf("the head is %v, want %v", v.ID, head.ID)
	}
	if v := g.must(g.ops.Lookup(t.Context(), "test", "tag", 0)); v.ID != old.ID {
		t.Errorf("the tag finds %v, want %v", v.ID, old.ID)
	}
}

// TestLookupWaitsForTheEndOfAPlan has an inode that says snapshot while the
// table does not yet: the answer must be that after the plan.
func TestLookupWaitsForTheEndOfAPlan(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	old := g.create("test", 1<<20)
	before := w.clone(t)
	head := g.snapshot(old, "")
	g.w.table, before.table = before.table, g.w.table
	plans := w.plans
	w.ending = func() { w.table = before.table }
	v, err := g.ops.Lookup(t.Context(), "test", "", 0)
	if err != nil || v.ID != head.ID || w.plans != plans+1 {
		t.Errorf("lookup found %v, %v with %d plans; want %v with one", v.ID, err, w.plans-plans, head.ID)
	}
}
