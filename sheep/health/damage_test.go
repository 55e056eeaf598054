package health

import (
	"strings"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

func TestObjectsAreCountedOnceWithTheWorst(t *testing.T) {
	var d damage
	d.add(proto.DamageReport{Total: 3, Objects: []proto.Damaged{
		{ID: sheep.DataObject(7, 1), Class: proto.Unreadable}, {ID: sheep.DataObject(7, 2), Class: proto.Degraded},
		{ID: sheep.InodeObject(8), Class: proto.Degraded}}})
	d.add(proto.DamageReport{Total: 7, Plans: 1, Objects: []proto.Damaged{
		{ID: sheep.DataObject(7, 1), Class: proto.Degraded}, {ID: sheep.DataObject(7, 2), Class: proto.Unrepaired}}})
	var r Report
	r.damage(d, func(id sheep.VDIID) string { return map[sheep.VDIID]string{7: "seven", 8: "eight"}[id] })
	got := strings.Join(r.Reasons, "\n")
	want := `VDI seven: 1 unreadable, 1 unrepaired objects
VDI eight: 1 degraded objects
and up to 5 more objects
1 objects cannot be read at present: 0000000700000001
1 operations on disks are under way`
	if r.Level != Degraded || got != want || r.Plans != 1 || len(r.Unreadable) != 1 {
		t.Errorf("got %v, %d plans, %v and\n%s\nwant\n%s", r.Level, r.Plans, r.Unreadable, got, want)
	}

	var well Report
	well.damage(damage{}, nil)
	if well.Level != OK || well.Reasons != nil {
		t.Errorf("nothing is damaged, and the report is %+v", well)
	}
}
