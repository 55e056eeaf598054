package vdi_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/vdi"
)

func TestGuardRefuses(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	snap := g.create("test", 16<<20)
	g.try(g.store(snap.ID, 0, 1))
	head := g.snapshot(snap, "s")
	g.try(g.store(head.ID, 1, 1))
	gone := g.create("gone", 16<<20)
	g.must(g.ops.Delete(t.Context(), "gone", "", 0))
	size := uint32(4 << 20)
	one := []byte{1}
	slot := binary.LittleEndian.AppendUint32(nil, uint32(snap.ID))

	for _, c := range []struct {
		what string
		id   sheep.ObjectID
		w    sheep.Write
		want error
	}{
		{"a write to a missing object", sheep.DataObject(head.ID, 7), sheep.Write{Data: one}, sheep.ErrNoObject},
		{"a write past the end", sheep.DataObject(head.ID, 1), sheep.Write{Off: size, Data: one}, sheep.ErrInvalid},
		{"a write across the end", sheep.DataObject(head.ID, 1), sheep.Write{Off: size - 1, Data: []byte{1, 2}}, sheep.ErrInvalid},
		{"a write up to the end", sheep.DataObject(head.ID, 1), sheep.Write{Off: size - 1, Data: one}, nil},
		{"an offset near 4 GiB", sheep.DataObject(head.ID, 1), sheep.Write{Off: 1<<32 - 1, Data: []byte{1, 2}}, sheep.ErrInvalid},
		{"a write to a snapshot's data", sheep.DataObject(snap.ID, 0), sheep.Write{Data: one}, sheep.ErrReadOnly},
		{"a create of a snapshot's data", sheep.DataObject(snap.ID, 9), sheep.Write{Data: one, Create: true}, sheep.ErrReadOnly},
		{"a create beyond the map", sheep.DataObject(head.ID, 1<<20), sheep.Write{Data: one, Create: true}, sheep.ErrInvalid},
		{"a create of an unknown VDI's data", sheep.DataObject(99, 0), sheep.Write{Data: one, Create: true}, sheep.ErrNoVDI},
		{"a create of a deleted VDI's data", sheep.DataObject(gone.ID, 0), sheep.Write{Data: one, Create: true}, sheep.ErrNoVDI},
		{"a create from a missing object", sheep.DataObject(head.ID, 8), sheep.Write{Data: one, Create: true, From: &sheep.Ref{ID: sheep.DataObject(snap.ID, 8)}}, sheep.ErrNoObject},
		{"a snapshot's saved state", sheep.VMStateObject(snap.ID, 0), sheep.Write{Data: one, Create: true}, nil},
		{"a create with an empty range", sheep.DataObject(head.ID, 3), sheep.Write{Create: true}, nil},
		{"a create of an existing inode of another name", sheep.InodeObject(head.ID), sheep.Write{Data: make([]byte, 4664), Create: true}, sheep.ErrInvalid},
		{"a map write that is not aligned", sheep.InodeObject(head.ID), sheep.Write{Off: 4665, Data: slot}, sheep.ErrInvalid},
		{"a map write of part of a slot", sheep.InodeObject(head.ID), sheep.Write{Off: 4664, Data: slot[:2]}, sheep.ErrInvalid},
		{"a write of references", sheep.InodeObject(head.ID), sheep.Write{Off: proto.GRefOffset, Data: slot}, sheep.ErrInvalid},
		{"a map write of no VDI", sheep.InodeObject(head.ID), sheep.Write{Off: 4664, Data: []byte{0, 0, 0, 1}}, sheep.ErrInvalid},
		{"a non-zero map write to a snapshot", sheep.InodeObject(snap.ID), sheep.Write{Off: 4664, Data: slot}, sheep.ErrReadOnly},
		{"a map write of zeroes to a snapshot", sheep.InodeObject(snap.ID), sheep.Write{Off: 4668, Data: make([]byte, 4)}, nil},
		{"a map write of zeroes to a deleted VDI", sheep.InodeObject(gone.ID), sheep.Write{Off: 4668, Data: make([]byte, 4)}, nil},
		{"a discard on a snapshot", sheep.InodeObject(snap.ID), sheep.Write{Off: 4668, Zero: 4}, sheep.ErrReadOnly},
		{"a discard on a deleted VDI", sheep.InodeObject(gone.ID), sheep.Write{Off: 4668, Zero: 4}, sheep.ErrNoVDI},
		{"a map write to a deleted VDI", sheep.InodeObject(gone.ID), sheep.Write{Off: 4664, Data: slot}, sheep.ErrNoVDI},
		{"a header write to a deleted VDI", sheep.InodeObject(gone.ID), sheep.Write{Data: make([]byte, 4664)}, sheep.ErrNoVDI},
		{"a write to an unknown inode", sheep.InodeObject(99), sheep.Write{Data: one}, sheep.ErrNoObject},
	} {
		if err := g.guard.Write(t.Context(), sheep.Ref{ID: c.id}, &c.w); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
	if err := g.guard.Remove(t.Context(), sheep.Ref{ID: sheep.InodeObject(head.ID)}); !errors.Is(err, sheep.ErrInvalid) {
		t.Errorf("removal of an inode: %v", err)
	}
}

func TestReadsPastTheEndAreZero(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	v := g.create("test", 16<<20)
	id := sheep.DataObject(v.ID, 0)
	g.try(g.guard.Write(t.Context(), sheep.Ref{ID: id}, &sheep.Write{Off: 4<<20 - 2, Data: []byte{1, 2}, Create: true}))
	for _, c := range []struct {
		off  uint32
		want []byte
	}{{4<<20 - 1, []byte{2, 0, 0}}, {4 << 20, []byte{0, 0, 0}}, {1<<32 - 2, []byte{0, 0, 0}}, {4<<20 - 4, []byte{0, 0, 1}}} {
		p := []byte{9, 9, 9}
		if err := g.guard.Read(t.Context(), sheep.Ref{ID: id}, p, c.off); err != nil || !bytes.Equal(p, c.want) {
			t.Errorf("read at %d: %v, %v; want %v", c.off, p, err, c.want)
		}
	}
	if err := g.guard.Read(t.Context(), sheep.Ref{ID: sheep.DataObject(v.ID, 1)}, make([]byte, 1), 0); !errors.Is(err, sheep.ErrNoObject) {
		t.Errorf("read of a missing object: %v", err)
	}
}

func TestHeaderWritesAreMerged(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	v := g.create("test", 16<<20)
	g.try(g.store(v.ID, 0, 1))
	before := g.header(v.ID)

	h := before
	h.Name, h.Tag, h.CreateTime, h.SnapTime, h.VMClock, h.Size, h.VMStateSize = "evil", "tag", 1, 2, 3, 32<<20, 5
	h.CopyPolicy, h.StorePolicy, h.Copies, h.BlockShift, h.SnapID, h.VDI, h.Parent, h.BTreeCounter = 0x11, 1, 3, 20, 9, 10, 11, 12
	h.Unused[7] = 42
	w.written = 0
	g.try(g.writeInode(v.ID, 0, h.Append(nil)))
	want := before
	want.Tag, want.VMClock, want.Size, want.VMStateSize, want.Copies, want.BTreeCounter, want.Unused = h.Tag, h.VMClock, h.Size, h.VMStateSize, h.Copies, h.BTreeCounter, h.Unused
	if got := g.header(v.ID); got != want {
		t.Errorf("header is %+v, want %+v", got, want)
	}
	if w.written > 600 {
		t.Errorf("%d bytes were written for fields in the first 580", w.written)
	}
	if g.slot(v.ID, 0) != v.ID {
		t.Error("the map was disturbed")
	}

	w.written = 0
	g.try(g.writeInode(v.ID, 0, h.Append(nil)))
	if w.written != 0 {
		t.Errorf("the same write again wrote %d bytes", w.written)
	}

	stale := want
	stale.Size = 16 << 20
	if err := g.writeInode(v.ID, 0, stale.Append(nil)); !errors.Is(err, sheep.ErrInvalid) {
		t.Errorf("a write that only shrinks: %v, want refused", err)
	}
	stale.Tag = "newer"
	g.try(g.writeInode(v.ID, 0, stale.Append(nil)))
	if got := g.header(v.ID); got.Size != 32<<20 || got.Tag != "newer" {
		t.Errorf("a stale size with a new tag: size %d, tag %q", got.Size, got.Tag)
	}
	huge := want
	huge.Size = 1<<42 + 1
	if err := g.writeInode(v.ID, 0, huge.Append(nil)); !errors.Is(err, sheep.ErrInvalid) {
		t.Errorf("a size beyond the map: %v, want refused", err)
	}
	label := bytes.Repeat([]byte{'x'}, 256) // as QEMU writes long tags
	g.try(g.writeInode(v.ID, 256, label))
	if got := g.header(v.ID); got.Tag != string(label) || got.CreateTime != before.CreateTime {
		t.Errorf("tag is %q", got.Tag)
	}
}

func TestWritesOfHeaderAndMapAreSplit(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	v := g.create("test", 16<<20)
	for i := range uint32(3) {
		g.try(g.store(v.ID, i, 1))
	}
	g.try(g.guard.Write(t.Context(), sheep.Ref{ID: sheep.DataObject(v.ID, 3)}, &sheep.Write{Create: true}))
	inode := g.readInode(v.ID, 0, sheep.InodeSize)
	le := binary.LittleEndian
	copy(inode, "other name")
	le.PutUint32(inode[proto.MapOffset+4:], 0)
	le.PutUint32(inode[proto.MapOffset+12:], uint32(v.ID))
	le.PutUint32(inode[proto.GRefOffset:], 99)
	g.try(g.writeInode(v.ID, 0, inode))
	if got := g.header(v.ID).Name; got != "test" {
		t.Errorf("name is %q", got)
	}
	if got := []sheep.VDIID{g.slot(v.ID, 0), g.slot(v.ID, 1), g.slot(v.ID, 2), g.slot(v.ID, 3)}; !slices.Equal(got, []sheep.VDIID{v.ID, 0, v.ID, v.ID}) {
		t.Errorf("map is %v", got)
	}
	if got := g.gref(v.ID, 0); got != [2]int32{} {
		t.Errorf("the client changed a reference to %v", got)
	}
	if ids := w.objectsOf(sheep.KindData); len(ids) != 3 {
		t.Errorf("data objects: %v", ids)
	}
}

func TestMapWrites(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	base := g.create("test", 64<<20)
	for i := range uint32(4) {
		g.try(g.store(base.ID, i, 1))
	}
	head := g.snapshot(base, "s")
	g.try(g.store(head.ID, 1, 2))

	// The entries in between keep their values, and so their references.
	g.try(g.guard.Write(t.Context(), sheep.Ref{ID: sheep.DataObject(head.ID, 0)}, &sheep.Write{Create: true}))
	g.try(g.guard.Write(t.Context(), sheep.Ref{ID: sheep.DataObject(head.ID, 3)}, &sheep.Write{Create: true}))
	var slots []byte
	for _, owner := range []sheep.VDIID{head.ID, head.ID, base.ID, head.ID} {
		slots = binary.LittleEndian.AppendUint32(slots, uint32(owner))
	}
	g.try(g.writeInode(head.ID, proto.MapOffset, slots))
	if got := g.gref(head.ID, 2); got != [2]int32{1, 0} {
		t.Errorf("reference of an unchanged slot is %v, want {1,0}", got)
	}
	for _, i := range []uint32{0, 3} {
		if got := g.gref(head.ID, i); got != [2]int32{} {
			t.Errorf("reference of changed slot %d is %v", i, got)
		}
		if got := w.ledger(base.ID, i); !slices.Equal(got, []int32{1, -1, 0, 0}) {
			t.Errorf("ledger %d is %v", i, got)
		}
	}
	again := w.clone(t)
	g.try(g.writeInode(head.ID, proto.MapOffset, slots))
	if diff := again.same(w); diff != "" {
		t.Errorf("the same write again changed something: %s", diff)
	}

	// Discards.
	g.try(g.setSlot(head.ID, 0, 0))
	if w.objects[sheep.DataObject(head.ID, 0)] != nil {
		t.Error("a discarded object is still there")
	}
	g.try(g.guard.Discard(t.Context(), sheep.DataObject(head.ID, 2)))
	if g.slot(head.ID, 2) != 0 || w.objects[sheep.DataObject(base.ID, 2)] == nil {
		t.Error("a discard of a shared object")
	}
	g.try(g.guard.Discard(t.Context(), sheep.DataObject(head.ID, 9)))
	if leaks := w.leaks(); len(leaks) != 0 {
		t.Errorf("leaks: %v", leaks)
	}
}

func TestUnsharedMapWritesAreSmall(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	v := g.create("test", 64<<20)
	g.try(g.guard.Write(t.Context(), sheep.Ref{ID: sheep.DataObject(v.ID, 0)}, &sheep.Write{Create: true}))
	w.calls, w.readBytes, w.written = 0, 0, 0
	g.try(g.setSlot(v.ID, 0, v.ID))
	if w.calls > 3 || w.readBytes > 12 || w.written != 4 {
		t.Errorf("a map write took %d calls, read %d bytes and wrote %d", w.calls, w.readBytes, w.written)
	}
}

// TestOwnersAreFollowed releases through a gateway that owns neither the disk
// nor the ledger.
func TestOwnersAreFollowed(t *testing.T) {
	w := newWorld(t, 3)
	a, b, c := w.gateways[0], w.gateways[1], w.gateways[2]
	base := a.create("test", 16<<20)
	a.try(a.store(base.ID, 0, 1))
	head := a.snapshot(base, "s")
	w.owner[head.ID], w.owner[base.ID] = b, c
	if err := a.guard.WriteOwned(t.Context(), sheep.Ref{ID: sheep.InodeObject(head.ID)}, &sheep.Write{Data: []byte{0}}); !errors.Is(err, sheep.ErrNotOwner) {
		t.Errorf("write at a gateway that is not the owner: %v", err)
	}
	if err := a.guard.DecrefOwned(t.Context(), sheep.Ref{ID: sheep.DataObject(base.ID, 0)}, 0, 0); !errors.Is(err, sheep.ErrNotOwner) {
		t.Errorf("release at a gateway that is not the owner: %v", err)
	}
	a.try(a.store(head.ID, 0, 2))
	if got := w.ledger(base.ID, 0); !slices.Equal(got, []int32{1, -1, 0, 0}) {
		t.Errorf("ledger is %v", got)
	}
	a.must(a.ops.Delete(t.Context(), "test", "s", 0))
	if w.objects[sheep.DataObject(base.ID, 0)] != nil || w.ledger(base.ID, 0) != nil {
		t.Error("the last reference is gone, the object is not")
	}
}

func TestLostAnswersToReleases(t *testing.T) {
	w := newWorld(t, 2)
	a := w.gateways[0]
	base := a.create("test", 16<<20)
	a.try(a.store(base.ID, 0, 1))
	head := a.snapshot(base, "s")
	w.owner[base.ID], w.lose = w.gateways[1], true
	a.try(a.store(head.ID, 0, 2))
	if got := w.ledger(base.ID, 0); w.lose || !slices.Equal(got, []int32{1, -1, 0, 0}) {
		t.Errorf("ledger is %v, want 1,-1", got)
	}
	w.lose = true
	a.must(a.ops.Delete(t.Context(), "test", "s", 0))
	if w.lose || w.ledger(base.ID, 0) != nil || w.objects[sheep.DataObject(base.ID, 0)] != nil {
		t.Error("the object is left")
	}
}

func TestDecref(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	base := g.create("test", 16<<20)
	for i := range uint32(3) {
		g.try(g.store(base.ID, i, 1))
	}
	head := g.snapshot(base, "s")
	ledger := sheep.DataObject(base.ID, 0).Ledger()
	if err := g.guard.Decref(t.Context(), ledger, 1<<20-1, 0); !errors.Is(err, sheep.ErrInvalid) {
		t.Errorf("generation beyond the ledger: %v", err)
	}
	// A release too many does not take the object away: the maps are looked at.
	g.try(g.guard.Decref(t.Context(), ledger, 1, 0))
	g.try(g.guard.Decref(t.Context(), ledger, 0, 1))
	if w.objects[sheep.DataObject(base.ID, 0)] == nil {
		t.Fatal("an object was removed that two maps name")
	}
	// And the ledger is right again.
	if got := w.ledger(base.ID, 0); !slices.Equal(got, []int32{1, 0, 0, 0}) {
		t.Errorf("ledger is %v, want 1", got)
	}
	g.must(g.ops.Delete(t.Context(), "test", "", 0))
	g.must(g.ops.Delete(t.Context(), "test", "s", 0))
	if len(w.objectsOf(sheep.KindData))+len(w.objectsOf(sheep.KindLedger)) != 0 {
		t.Error("objects are left")
	}
	// An echo does not make a ledger of an object that is gone.
	g.try(g.guard.Decref(t.Context(), ledger, 1, 0))
	if len(w.objectsOf(sheep.KindLedger)) != 0 {
		t.Error("a late release made a ledger")
	}
	_ = head
}

func TestErasureCodedVDI(t *testing.T) {
	w := newWorld(t, 1)
	w.defaults.Copies, w.defaults.CopyPolicy = 3, 0x11
	g := w.gateways[0]
	v := g.create("ec", 16<<20)
	if v.Policy != (sheep.Policy{Data: 2, Parity: 1}) {
		t.Errorf("policy is %v", v.Policy)
	}
	g.try(g.store(v.ID, 0, 1)) // the world checks the policy of every reference
	head := g.snapshot(v, "s")
	w.defaults = newWorld(t, 1).defaults
	clone := g.cloneOf("clone", v.ID)
	if head.Policy != v.Policy || clone.Policy != v.Policy {
		t.Errorf("policies are %v and %v", head.Policy, clone.Policy)
	}
	h := g.header(v.ID)
	h.Copies = 5
	g.try(g.writeInode(v.ID, 0, h.Append(nil)))
	if got := g.header(v.ID).Copies; got != 3 {
		t.Errorf("strips changed to %d", got)
	}
}

func TestCloneTakesBlockSizeFromBase(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	base := g.must(g.ops.Create(t.Context(), "base", proto.VDIBody{Size: 8 << 20, BlockShift: 20, Copies: 3}))
	g.snapshot(base, "s")
	clone := g.must(g.ops.Create(t.Context(), "clone", proto.VDIBody{Size: 8 << 20, Base: base.ID, BlockShift: 22}))
	if clone.BlockShift != 20 || clone.Policy != sheep.Replicated(3) {
		t.Errorf("clone has block size shift %d, policy %v", clone.BlockShift, clone.Policy)
	}
}

func TestCreateRefuses(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	base := g.create("base", 1<<20)
	snap := g.snapshot(base, "s")
	long := string(bytes.Repeat([]byte{'n'}, 256))
	for _, c := range []struct {
		what, name string
		b          proto.VDIBody
		want       error
	}{
		{"an empty name", "", proto.VDIBody{}, sheep.ErrInvalid},
		{"a name of 256 bytes", long, proto.VDIBody{}, sheep.ErrInvalid},
		{"a name of 255 bytes", long[1:], proto.VDIBody{}, nil},
		{"a name that exists", "base", proto.VDIBody{}, sheep.ErrVDIExists},
		{"a clone of that name", "base", proto.VDIBody{Base: base.ID}, sheep.ErrVDIExists},
		{"a snapshot of nothing", "none", proto.VDIBody{SnapID: 1}, sheep.ErrNoVDI},
		{"a clone of a head", "clone", proto.VDIBody{Base: snap.ID}, sheep.ErrInvalid},
		{"a clone of nothing", "clone", proto.VDIBody{Base: 77}, proto.ErrBaseVDIRead},
		{"a size beyond the map", "x", proto.VDIBody{Size: 1<<42 + 1}, sheep.ErrInvalid},
		{"the largest size", "y", proto.VDIBody{Size: 1 << 42}, nil},
		{"a block size shift of 19", "x", proto.VDIBody{BlockShift: 19}, sheep.ErrInvalid},
		{"32 copies", "x", proto.VDIBody{Copies: 32}, sheep.ErrInvalid},
		{"a copy policy that does not exist", "x", proto.VDIBody{Copies: 3, CopyPolicy: 0x31}, sheep.ErrInvalid},
		{"no size", "empty", proto.VDIBody{}, nil},
	} {
		if _, err := g.ops.Create(context.Background(), c.name, c.b); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
}

func TestLockedVDIs(t *testing.T) {
	w := newWorld(t, 2)
	g := w.gateways[0]
	for _, c := range []struct {
		what string
		lock sheep.Lock
		want error
	}{
		{"locked by another gateway", sheep.Lock{State: sheep.Exclusive, Owner: w.gateways[1].node}, sheep.ErrVDILocked},
		{"locked by this gateway", sheep.Lock{State: sheep.Exclusive, Owner: g.node}, nil},
		{"shared with another gateway", sheep.Lock{State: sheep.Shared, Participants: []sheep.Participant{{Node: g.node}, {Node: w.gateways[1].node}}}, sheep.ErrVDILocked},
		{"shared by this gateway alone", sheep.Lock{State: sheep.Shared, Participants: []sheep.Participant{{Node: g.node}}}, nil},
		{"unlocked", sheep.Lock{State: sheep.Unlocked, Owner: w.gateways[1].node}, nil},
	} {
		v := g.create("test", 1<<20)
		w.locks[v.ID] = c.lock
		if _, err := g.ops.Delete(t.Context(), "test", "", 0); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
		delete(w.locks, v.ID)
		if c.want != nil {
			g.must(g.ops.Delete(t.Context(), "test", "", 0))
		}
	}
}

// nowhere takes all requests.
type nowhere struct{ vdi.Next }

func (nowhere) Read(context.Context, sheep.Ref, []byte, uint32) error { return nil }
func (nowhere) Write(context.Context, sheep.Ref, *sheep.Write) error  { return nil }
func (nowhere) VDI(id sheep.VDIID) (sheep.VDI, bool) {
	return sheep.VDI{ID: id, Policy: sheep.Replicated(3), BlockShift: 22}, true
}
func (nowhere) VDIs() []sheep.VDI { return nil }

func BenchmarkGuardWrite(b *testing.B) {
	g := vdi.NewGuard(nowhere{}, nowhere{}, vdi.GuardConfig{})
	w := &sheep.Write{Data: make([]byte, 4096)}
	b.ReportAllocs()
	for b.Loop() {
		if err := g.Write(b.Context(), sheep.Ref{ID: sheep.DataObject(1, 1)}, w); err != nil {
			b.Fatal(err)
		}
	}
}
