package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// servers makes a configuration of words like "a", which votes, and "b-", which
// does not.
func servers(words string) []raft.Server {
	var all []raft.Server
	for w := range strings.FieldsSeq(words) {
		id, follows := strings.CutSuffix(w, "-")
		s := raft.Server{ID: raft.ServerID(id)}
		if follows {
			s.Suffrage = raft.Nonvoter
		}
		all = append(all, s)
	}
	return all
}

func membersOf(words string) []member {
	var all []member
	for i, id := range strings.Fields(words) {
		all = append(all, member{inc: sheep.Incarnation(i + 1), id: id, joined: uint64(i + 1)})
	}
	return all
}

func TestAutopilot(t *testing.T) {
	tests := []struct {
		name             string
		servers, members string
		absent           time.Duration // of voters that are no members
		joining          string
		want             string
	}{
		{"one is enough", "a", "a", 0, "", ""},
		{"two are no better than one", "a b-", "a b", 0, "", ""},
		{"three vote", "a b- c-", "a b c", 0, "", "promote b"},
		{"a step that was taken is followed by the next", "a b c-", "a b c", 0, "", "promote c"},
		{"four have three voters", "a b c d-", "a b c d", 0, "", ""},
		{"five vote", "a b c d- e-", "a b c d e", 0, "", "promote d"},
		{"the sixth follows", "a b c d e f-", "a b c d e f", 0, "", ""},
		{"the first that joined vote first", "a c- b-", "a b c", 0, "", "promote b"},
		{"who is about to join is let be", "a b-", "a", 0, "b", ""},
		{"a follower that left goes", "a b-", "a", 0, "", "remove b"},
		{"an absent voter makes room for a follower", "a b c d-", "a c d", 0, "", "remove b"},
		{"an absent voter that is about to join again is let be", "a b c d-", "a c d", 0, "b", ""},
		{"its successor votes then", "a c d-", "a c d", 0, "", "promote d"},
		{"without a follower it stays", "a b c", "a c", time.Second, "", ""},
		{"but not for ever", "a b c", "a c", time.Hour, "", "remove b"},
		{"the voters that are left become odd", "a c", "a c", 0, "", "demote c"},
		{"nothing is asked of a minority", "a b c d-", "a d", time.Hour, "", ""},
		{"the leader does not depose itself", "b a", "b a", 0, "", "demote b"},
		{"a leader that has left stays until another leads", "a b c d-", "b c d", time.Hour, "", ""},
		{"too many voters", "a b c d e f", "a b c d e f", 0, "", "demote f"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := autopilot{
				servers: servers(test.servers), members: membersOf(test.members), self: "a",
				absent: map[string]time.Duration{}, joining: map[string]bool{}, timeout: time.Minute,
			}
			for _, s := range a.servers {
				if !a.isMember(s.ID) {
					a.absent[string(s.ID)] = test.absent
				}
			}
			for id := range strings.FieldsSeq(test.joining) {
				a.joining[id] = true
			}
			step, ok := a.next()
			got := strings.TrimSpace(fmt.Sprint(step.op, " ", step.id))
			if got != test.want || ok != (test.want != "") {
				t.Errorf("got %q (%t), want %q", got, ok, test.want)
			}
		})
	}
}

func TestFSMState(t *testing.T) {
	s := fsmState{}
	var raftIndex uint64
	apply := func(c command) ([]cluster.Entry, error) {
		raftIndex++
		return s.apply(raftIndex, c)
	}
	must := func(c command, want ...string) {
		t.Helper()
		entries, err := apply(c)
		var got []string
		for _, e := range entries {
			got = append(got, fmt.Sprintf("%d %d %d %t", e.Index, e.Kind, e.Member, e.More))
		}
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%+v: got %q (%v), want %q", c, got, err, want)
		}
	}
	first, second := clusterID{uuid: [16]byte{1}}, clusterID{uuid: [16]byte{1}, forced: 1}
	must(command{kind: commandLeadership, leadership: 7, time: 1000, data: first.append(nil)})
	must(command{kind: commandJoin, inc: 1, id: "a"}, "1001 1 1 false")
	must(command{kind: commandJoin, inc: 1, id: "a"})
	must(command{kind: commandMessage, inc: 1, data: []byte("x")}, "1002 3 1 false")
	must(command{kind: commandJoin, inc: 2, id: "b"}, "1003 1 2 false")
	must(command{kind: commandJoin, inc: 3, id: "a"}, "1004 2 1 true", "1005 1 3 false")
	if _, err := apply(command{kind: commandMessage, inc: 1}); !errors.Is(err, errDeparted) {
		t.Errorf("a message of a departed member: %v", err)
	}
	if _, err := apply(command{kind: commandJoin, inc: 1, id: "a"}); !errors.Is(err, errDeparted) {
		t.Errorf("a second join of a departed member: %v", err)
	}
	must(command{kind: commandExpel, leadership: 6, data: expulsion{members: []sheep.Incarnation{2}}.append(nil)}) // its author leads no more
	must(command{kind: commandExpel, leadership: 7, data: expulsion{members: []sheep.Incarnation{2, 99}}.append(nil)}, "1006 2 2 false")
	must(command{kind: commandLeadership, leadership: 8, time: 9000, data: first.append(nil)})
	must(command{kind: commandLeadership, leadership: 9, time: 9000, data: clusterID{uuid: [16]byte{2}}.append(nil)})
	must(command{kind: commandExpel, leadership: 8, data: expulsion{members: []sheep.Incarnation{3}}.append(nil)})
	must(command{kind: commandJoin, inc: 4, id: "d"}, "1007 1 4 false")
	must(command{kind: commandJoin, inc: 5, id: "e"}, "1008 1 5 false")
	must(command{kind: commandJoin, inc: 6, id: "f"}, "1009 1 6 false")
	must(command{kind: commandExpel, leadership: 9, data: expulsion{members: []sheep.Incarnation{5, 6}}.append(nil)}, "1010 2 5 true", "1011 2 6 false")
	must(command{kind: commandLeadership, leadership: 10, time: 9000, data: second.append(nil)}, "9001 2 3 false", "9002 2 4 false")
	must(command{kind: commandLeadership, leadership: 11, time: 9900, data: first.append(nil)})
	if s.cluster != second {
		t.Errorf("cluster %v", s.cluster)
	}

	both := joinAll([]command{{kind: commandJoin, inc: 7, id: "g"}, {kind: commandJoin, inc: 8, id: "h"}})
	must(both, "9003 1 7 true", "9004 1 8 false")
	again := joinAll([]command{{kind: commandJoin, inc: 17, id: "g"}, {kind: commandJoin, inc: 8, id: "h"}, {kind: commandJoin, inc: 7, id: "g"}})
	must(again, "9005 2 7 true", "9006 1 17 false")
	must(command{kind: commandJoin, inc: 9, id: "node"}, "9007 1 9 false")
	b := s.append(nil)
	got, state, err := decodeFSMState(append(b, "state"...))
	if err != nil || !reflect.DeepEqual(got, s) || string(state) != "state" {
		t.Errorf("decoded %+v %q (%v), want %+v", got, state, err, s)
	}
	for n := range b {
		if _, _, err := decodeFSMState(b[:n]); err == nil {
			t.Errorf("%d of %d bytes are a state", n, len(b))
		}
	}
}

func TestLeaderCountsFromWhatItHeard(t *testing.T) {
	const second = int64(time.Second)
	cfg := Config{Heartbeat: time.Second / 2, Lease: 4 * time.Second, ExpelAfter: 6 * time.Second, LeaderLease: time.Second / 2}
	l := &leadership{lastContact: map[sheep.Incarnation]int64{}, expelling: map[sheep.Incarnation]bool{}}
	members := membersOf("a b")
	gone := func(now int64) []sheep.Incarnation {
		var all []sheep.Incarnation
		for inc := range l.overdue(members, cfg, now) {
			all = append(all, inc)
		}
		return all
	}
	l.lastCheck = 100 * second
	for now := 100 * second; now < 100*second+6*second+second/2; now += second / 2 {
		if g := gone(now); len(g) != 0 {
			t.Fatalf("%v are gone %v after the election", g, time.Duration(now-100*second))
		}
		l.lastContact[1] = now
	}
	now := 106*second + second/2
	if g := gone(now); len(g) != 1 || g[0] != 2 {
		t.Errorf("%v are gone, want the one that was never heard of", g)
	}
	l.hosts, l.heard = map[string]string{}, map[sheep.Incarnation]bool{}
	if l.contact(2, "b", "10.0.0.2:1") {
		t.Error("a expelling member is heard")
	}
	if !l.contact(1, "a", "10.0.0.1:1") || l.hosts["a"] != "10.0.0.1" {
		t.Error("a living member is not heard")
	}
	l.expelling, l.lastContact = map[sheep.Incarnation]bool{}, map[sheep.Incarnation]int64{1: now, 2: now}
	if g := gone(now + 3600*second); len(g) != 0 {
		t.Errorf("%v are gone because the leader slept", g)
	}
}

func FuzzDecodeCommand(f *testing.F) {
	f.Add(command{kind: commandJoin, inc: 1, time: 2, id: "abc", data: []byte("hello")}.append(nil))
	f.Add(command{kind: commandLeadership, leadership: 5}.append(nil))
	f.Add(joinAll([]command{{kind: commandJoin, inc: 1, id: "a"}}).append(nil))
	f.Add(command{kind: commandExpel, data: expulsion{true, []sheep.Incarnation{1}, "gone"}.append(nil)}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCommand(b)
		if err == nil && !bytes.Equal(c.append(nil), b) {
			t.Errorf("%x decodes to %+v, which is %x", b, c, c.append(nil))
		}
	})
}

func FuzzDecodeFSMState(f *testing.F) {
	l := fsmState{raftIndex: 1, index: 2, cluster: clusterID{[16]byte{3}, 4, 5}, members: []member{{5, "a", 6}}, departed: []sheep.Incarnation{7}}
	f.Add(append(l.append(nil), "state"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, state, err := decodeFSMState(b)
		if err == nil && !bytes.Equal(append(l.append(nil), state...), b) {
			t.Errorf("%x decodes to another state", b)
		}
	})
}
