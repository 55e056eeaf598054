package main

import (
	"strings"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
)

// TestLoadIsBalancedAndLittleMoves is what the figures of docs/scale.md say, on a
// small scale.
func TestLoadIsBalancedAndLittleMoves(t *testing.T) {
	const nodes, copies = 100, 3
	ids := make([]sheep.ObjectID, 50_000)
	for i := range ids {
		ids[i] = object(i)
	}
	for _, mixed := range []bool{false, true} {
		load, _ := loads(nodesOf(nodes, mixed), ids, copies)
		if d := deviation(load); d > 0.1 {
			t.Errorf("load of nodes of mixed size (%t) deviates by %s of the weight", mixed, percent(d))
		}
	}
	all := nodesOf(nodes, false)
	for name, after := range map[string][]sheep.Node{"leaves": all[1:], "joins": nodesOf(nodes+1, false)} {
		if share := moved(placement.NewRing(all), placement.NewRing(after), ids, copies); share < 0.5/nodes || share > 2.0/nodes {
			t.Errorf("when a node %s %s of the copies are made anew, want about %s", name, percent(share), percent(1.0/nodes))
		}
	}
}

func TestAHundredNodesJoinAndLeave(t *testing.T) {
	var tb table
	if err := measureMembership(&tb, 100); err != nil || strings.Count(tb.String(), "\n") != 4 {
		t.Errorf("%v, figures:\n%s", err, tb.String())
	}
}
