package scrub

import (
	"bytes"
	"testing"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

func FuzzState(f *testing.F) {
	s := state{ctime: 1, since: 2, cursor: 3, last: proto.ScrubPass{Began: 4, Ended: 5}, left: []sheep.ObjectID{6}}
	f.Add(s.append(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := decodeState(in)
		if err != nil {
			return
		}
		if out := s.append(nil); !bytes.Equal(out, in) {
			t.Errorf("got %x, want %x", out, in)
		}
	})
}

func TestDamagedStateIsNotBelieved(t *testing.T) {
	good := (&state{ctime: 1, left: []sheep.ObjectID{2}}).append(nil)
	if _, err := decodeState(good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := decodeState(bad); err == nil {
			t.Errorf("byte %d is wrong, and nobody minds", i)
		}
	}
	if _, err := decodeState(good[:len(good)-1]); err == nil {
		t.Error("the end is missing, and nobody minds")
	}
}

func TestHours(t *testing.T) {
	for _, test := range []struct {
		hours Hours
		hour  int
		want  bool
	}{
		{Hours{}, 5, true},
		{Hours{22, 6}, 23, true},
		{Hours{22, 6}, 5, true},
		{Hours{22, 6}, 6, false},
		{Hours{1, 4}, 1, true},
		{Hours{1, 4}, 4, false},
		{Hours{1, 4}, 0, false},
	} {
		if got := test.hours.Has(time.Date(2026, 1, 2, test.hour, 59, 0, 0, time.Local)); got != test.want {
			t.Errorf("%+v at %d:59: got %v", test.hours, test.hour, got)
		}
	}
}
