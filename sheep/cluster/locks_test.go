package cluster

import (
	"testing"

	"sheepdog/sheep"
)

func TestLocksFollowTheHead(t *testing.T) {
	head := sheep.VDI{ID: 5, Name: "disk", Policy: sheep.Replicated(3), BlockShift: 22}
	frozen, next := head, head
	frozen.Snapshot = true
	next.ID, next.Parent = 6, 5
	gone := sheep.VDI{ID: 5, Policy: head.Policy, BlockShift: 22, Deleted: true}
	exclusive := sheep.Lock{State: sheep.Exclusive, Owner: testNode("a")}
	shared := sheep.Lock{State: sheep.Shared, Participants: []sheep.Participant{{Node: testNode("a"), State: sheep.ShareShared}}}
	tests := []struct {
		name    string
		lock    sheep.Lock
		changes []VDIChange
		want    map[sheep.VDIID]sheep.LockState
	}{
		{"a snapshot leaves the exclusive lock to the new head", exclusive, []VDIChange{{VDI: frozen}, {VDI: next}},
			map[sheep.VDIID]sheep.LockState{5: sheep.Unlocked, 6: sheep.Exclusive}},
		{"in whatever order the changes come", exclusive, []VDIChange{{VDI: next}, {VDI: frozen}},
			map[sheep.VDIID]sheep.LockState{5: sheep.Unlocked, 6: sheep.Exclusive}},
		{"those who share a lock keep it and share the new head anew", shared, []VDIChange{{VDI: frozen}, {VDI: next}},
			map[sheep.VDIID]sheep.LockState{5: sheep.Shared, 6: sheep.Unlocked}},
		{"nothing that is deleted is locked", exclusive, []VDIChange{{VDI: gone}},
			map[sheep.VDIID]sheep.LockState{5: sheep.Unlocked}},
		{"a clone does not take the lock of its base", exclusive, []VDIChange{{VDI: frozen}, {VDI: sheep.VDI{ID: 7, Name: "clone", Parent: 5, Policy: head.Policy, BlockShift: 22}}},
			map[sheep.VDIID]sheep.LockState{5: sheep.Exclusive, 7: sheep.Unlocked}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := newVDITable()
			table.put(head, true).lock = tt.lock
			for _, c := range tt.changes {
				table.put(c.VDI, true)
			}
			limits := deadlines{vdis: map[sheep.VDIID]int64{5: 7e9}}
			doubt := Doubt{Since: 9, Blind: true}
			table.all[5].doubt = doubt
			table.moveLocks(tt.changes)
			table.moveDoubts(tt.changes)
			limits.follow(&table, tt.changes)
			for id, st := range table.all {
				if _, ok := limits.vdis[id]; ok != (st.vdi.Name == "disk") {
					t.Errorf("VDI %v has a deadline: %v", id, ok)
				}
			}
			if head := table.all[6]; head != nil && (head.doubt != doubt || table.all[5].doubt.Since != 0) {
				t.Errorf("doubt: got %+v at the head, %+v at its snapshot; want it moved", head.doubt, table.all[5].doubt)
			}
			for id, want := range tt.want {
				if got := table.all[id].lock.State; got != want {
					t.Errorf("lock of VDI %v: got state %d, want %d", id, got, want)
				}
			}
		})
	}
}
