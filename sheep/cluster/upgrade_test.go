package cluster

import (
	"bytes"
	"os"
	"testing"

	"sheepdog/sheep"
)

// What older daemons have left in their logs and snapshots, see
// testdata/old-state.script, must be read by all that follow.

func TestAStateOfVersion1IsRead(t *testing.T) {
	b, err := os.ReadFile("testdata/state-1.bin")
	if err != nil {
		t.Fatal(err)
	}
	s, err := restoreState(b)
	if err != nil {
		t.Fatal(err)
	}
	p := &player{t: t, state: s}
	want := `[13] running epoch 2{a:128 b:128} members a b own 5=b/12 vdi 5="disk"/3 locked by a vdi 6="other"/3 locked by a vdi 7="third"/3 shared by b(1)`
	if got := p.summary(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	again, err := restoreState(s.marshal())
	if err != nil || !bytes.Equal(again.marshal(), s.marshal()) {
		t.Errorf("it does not survive another snapshot: %v", err)
	}
	if l := again.vdis.all[6].lock; l.Life != 0xa || l.Session != 0 || l.Holder != (sheep.Holder{}) {
		t.Errorf("the lock of VDI 6 is %+v", l)
	}
}

func TestMessagesOfOlderDaemonsAreRead(t *testing.T) {
	b, err := os.ReadFile("testdata/messages-1.bin")
	if err != nil {
		t.Fatal(err)
	}
	want := []message{
		lockMsg{vid: 5}, lockMsg{vid: 6, bound: true}, lockMsg{vid: 7, shared: true}, lockMsg{vid: 7, shared: true}, ownMsg{5},
	}
	d := &decoder{b: b}
	for _, m := range want {
		if _, got, err := decodeMessage(d.bytes()); err != nil || got != m {
			t.Errorf("got %#v, %v; want %#v", got, err, m)
		}
	}
	if err := d.end(); err != nil {
		t.Error(err)
	}
}
