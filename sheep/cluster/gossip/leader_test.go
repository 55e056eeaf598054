package gossip

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sheepdog/sheep"
)

func TestQuorum(t *testing.T) {
	first, second := clusterID{uuid: [16]byte{1}}, clusterID{uuid: [16]byte{1}, forced: 1}
	node := func(id string, cluster clusterID, term, index uint64, voters string) nodeStatus {
		return nodeStatus{ID: id, cluster: cluster, Term: term, Index: index, Voters: strings.Fields(voters)}
	}
	tests := []struct {
		name    string
		all     []nodeStatus
		newest  string
		reached bool
	}{
		{"one of one", []nodeStatus{node("a", first, 1, 1, "a")}, "a", true},
		{"one of three", []nodeStatus{node("a", first, 1, 1, "a b c")}, "a", false},
		{"two of three", []nodeStatus{node("a", first, 1, 2, "a b c"), node("c", first, 1, 1, "a b c")}, "a", true},
		{"followers do not count", []nodeStatus{node("a", first, 1, 1, "a b c"), node("d", first, 1, 9, "a b c"), node("e", first, 1, 1, "a b c")}, "d", false},
		{"half is no majority", []nodeStatus{node("a", first, 1, 2, "a b c d"), node("b", first, 1, 1, "a b c d")}, "a", false},
		{"the later term counts more than the longer log", []nodeStatus{node("a", first, 1, 9, "a b c"), node("d", first, 2, 3, "a b c")}, "d", false},
		{"the newest log knows the voters", []nodeStatus{node("a", first, 1, 9, "a"), node("b", first, 2, 10, "b c d")}, "b", false},
		{"a newer timeline counts more than any log", []nodeStatus{node("a", first, 5, 99, "a"), node("b", second, 2, 3, "c")}, "b", false},
		{"nobody has a log", []nodeStatus{node("a", second, 0, 0, "")}, "a", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, all := range [][]nodeStatus{tt.all, reversed(tt.all)} {
				q := quorumOf(all)
				if q.newest.ID != tt.newest || q.reached != tt.reached {
					t.Errorf("newest is %s, reached %t; want %s, %t", q.newest.ID, q.reached, tt.newest, tt.reached)
				}
			}
		})
	}
}

func reversed(all []nodeStatus) []nodeStatus {
	all = slices.Clone(all)
	slices.Reverse(all)
	return all
}

func TestNodesJoinTogetherAfterAllHaveDied(t *testing.T) {
	l := &leadership{
		lastContact: map[sheep.Incarnation]int64{}, heard: map[sheep.Incarnation]bool{}, hosts: map[string]string{},
		expelling: map[sheep.Incarnation]bool{}, restarting: map[string]restart{},
	}
	members := membersOf("a b c")
	join := func(id string, inc sheep.Incarnation) command { return command{kind: commandJoin, id: id, inc: inc} }
	now := int64(time.Hour)
	if _, ok := l.mayJoin(join("a", 11), members, now); ok {
		t.Error("a node joins before the others have been heard of")
	}
	if _, ok := l.mayJoin(join("b", 12), members, now+1); ok {
		t.Error("two nodes join before the third one has been heard of")
	}
	c, ok := l.mayJoin(join("b", 12), membersOf("a b"), now+2) // the third one was expelled
	if !ok || c.kind != commandJoinAll {
		t.Fatalf("after the expulsion: %+v, %t", c, ok)
	}
	joins, err := decodeJoinAll(c.data)
	if err != nil || len(joins) != 2 || joins[0].inc != 12 || joins[1].inc != 11 {
		t.Errorf("%+v join (%v)", joins, err)
	}
	if _, ok := l.mayJoin(join("b", 12), members[:2], now+int64(time.Minute)); ok {
		t.Error("a node that has not asked for long is taken along")
	}
	l.contact(1, "a", "10.0.0.1:1")
	if c, ok := l.mayJoin(join("b", 12), members[:2], now+int64(time.Minute)); !ok || c.kind != commandJoin {
		t.Errorf("with all heard of: %+v, %t", c, ok)
	}
}
