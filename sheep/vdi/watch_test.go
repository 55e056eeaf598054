package vdi_test

import (
	"fmt"
	"slices"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// TestWatchMap checks that the owner's Guard tells of each map write, in order,
// and no other gateway's does.
func TestWatchMap(t *testing.T) {
	w := newWorld(t, 2)
	a, b := w.gateways[0], w.gateways[1]
	v := a.create("test", 64*mib)
	w.owner[v.ID] = a
	var told []string
	stop := a.guard.WatchMap(v.ID, func(first uint32, owners []sheep.VDIID) {
		told = append(told, fmt.Sprint(first, owners))
	})
	b.guard.WatchMap(v.ID, func(uint32, []sheep.VDIID) { t.Error("told a gateway that is not the owner") })
	a.guard.WatchMap(v.ID+1, func(uint32, []sheep.VDIID) { t.Error("told of another VDI") })

	a.try(a.store(v.ID, 3, 7))
	b.try(b.store(v.ID, 4, 7)) // forwarded
	a.try(a.guard.Discard(t.Context(), sheep.DataObject(v.ID, 3)))
	a.try(a.writeInode(v.ID, 256, []byte("tag")))
	a.try(a.writeInode(v.ID, proto.MapOffset-8, make([]byte, 16)))
	w.deny = sheep.InodeObject(v.ID)
	if err := a.setSlot(v.ID, 4, 0); err == nil {
		t.Error("the write that was to fail did not")
	}
	stop()
	a.try(a.setSlot(v.ID, 4, 0))
	want := []string{
		fmt.Sprint(3, []sheep.VDIID{v.ID}), fmt.Sprint(4, []sheep.VDIID{v.ID}), "3 [0]", "0 [0 0]", "4 []",
	}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
