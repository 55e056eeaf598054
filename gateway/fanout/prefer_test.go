package fanout_test

import (
	"errors"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// TestAReadAsksThoseLastThatStandInForAbsentNodes: they would have to fetch the
// object first.
func TestAReadAsksThoseLastThatStandInForAbsentNodes(t *testing.T) {
	f := newFleet(5)
	before := f.holders()
	if err := f.Write(t.Context(), ref, &sheep.Write{Data: []byte("data"), Create: true}); err != nil {
		t.Fatal(err)
	}
	gone := before[0]
	f.leave(gone)
	f.next(func(v *cluster.View) { v.Absences = []cluster.Absence{{Node: gone.node, Patience: 1}} })
	for range 12 {
		if err := f.Fanout.Read(t.Context(), ref, make([]byte, 4), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range f.holders() {
		stays := s == before[1] || s == before[2]
		if stays != (s.reads == 6) {
			t.Errorf("%v, which held the object before: %t, was read %d times of 12", s.node, stays, s.reads)
		}
	}
	for _, s := range before[1:] {
		f.set(s, func(s *storage) { s.fail = errors.New("broken") })
	}
	for _, s := range f.holders() {
		f.set(s, func(s *storage) { s.objects[ref.ID] = "data" })
	}
	if err := f.Fanout.Read(t.Context(), ref, make([]byte, 4), 0); err != nil {
		t.Errorf("read from the one that stands in, as the last: %v", err)
	}
}
