package gossip_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

func TestVotersAreOddAndReplaced(t *testing.T) {
	t.Parallel()
	first := newNode(t).start()
	nodes := []*node{first}
	for i, want := range [][2]int{{1, 0}, {1, 1}, {3, 0}, {3, 1}, {5, 0}, {5, 1}} {
		if i > 0 {
			nodes = append(nodes, newNode(t, first.addr()).start())
		}
		awaitMembers(t, nodes, i+1)
		awaitVoters(t, first, want[0], want[1])
	}
	nodes[2].stop()
	awaitVoters(t, first, 5, 0)
	first.stop() // the leader; the others remember each other
	rest := append(slices.Clone(nodes[1:2]), nodes[3:]...)
	awaitMembers(t, rest, 4)
	propose(t, rest, "later")
}

func TestEachNodeRestartsInTurn(t *testing.T) {
	t.Parallel()
	nodes := begin(t, 3)
	want := len(propose(t, nodes, "first"))
	for i, n := range nodes {
		n.stop()
		n.cfg.Seeds = nil // its peers are remembered
		n.start()
		awaitMembers(t, nodes, 3)
		want += 3
		got := propose(t, nodes, fmt.Sprintf("round%d", i))
		slices.Sort(got)
		if n := len(slices.Compact(got)); n != want { // one may have been logged twice
			t.Fatalf("%d messages after restart %d, want %d: %v", n, i, want, got)
		}
	}
}

func TestAllNodesRestartInAnyOrder(t *testing.T) {
	t.Parallel()
	nodes := begin(t, 3)
	awaitVoters(t, nodes[0], 3, 0)
	want := propose(t, nodes, "begin")
	for round, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}} {
		var wg sync.WaitGroup
		for _, n := range nodes {
			wg.Go(n.stop)
		}
		wg.Wait()
		_, _, before := nodes[0].state()
		for _, i := range order {
			nodes[i].start()
		}
		awaitMembers(t, nodes, 3)
		got := propose(t, nodes, fmt.Sprintf("round%d", round))
		if !slices.Equal(got[:len(want)], want) {
			t.Fatalf("the log begins with %v after restart %d, it was %v", got, round, want)
		}
		if _, _, after := nodes[0].state(); after <= before {
			t.Fatalf("index %d after %d", after, before)
		}
		want = got
	}
}

func TestNodesMayMove(t *testing.T) {
	t.Parallel()
	nodes := begin(t, 3)
	awaitVoters(t, nodes[0], 3, 0)
	want := propose(t, nodes, "begin")
	nodes[1].stop()
	nodes[1].move()
	nodes[1].start()
	awaitMembers(t, nodes, 3)
	want = append(want, propose(t, nodes, "one")[len(want):]...)

	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(n.stop)
	}
	wg.Wait()
	for _, n := range nodes {
		n.move()
	}
	for _, n := range nodes { // none of the addresses that they remember is right
		n.cfg.Seeds = []string{nodes[0].addr()}
		n.start()
	}
	awaitMembers(t, nodes, 3)
	if got := propose(t, nodes, "all"); !slices.Equal(got[:len(want)], want) {
		t.Fatalf("the log begins with %v, it was %v", got, want)
	}
}

func TestANodeWithANewDiskHasItsOldAddress(t *testing.T) {
	t.Parallel()
	nodes := begin(t, 3)
	awaitVoters(t, nodes[0], 3, 0)
	propose(t, nodes, "begin")
	nodes[2].stop()
	nodes[2].cfg.Dir, nodes[2].cfg.Seeds = t.TempDir(), []string{nodes[0].addr()}
	nodes[2].start()
	awaitMembers(t, nodes, 3)
	awaitVoters(t, nodes[0], 3, 0)
	propose(t, nodes, "end")
}

func TestANodeThatHasLeftBeforeItHeardOfItsJoinBeginsAnew(t *testing.T) {
	t.Parallel()
	nodes := begin(t, 2)
	nodes[1].stop()
	nodes[1].live() // as if it were the same life, whose join was logged already
	nodes[1].beginAnew()
	awaitMembers(t, nodes, 2)
}

func TestSnapshotsShortenTheLog(t *testing.T) {
	t.Parallel()
	first := newNode(t)
	first.cfg.SnapshotAfter, first.cfg.Trailing = 20, 5
	first.start()
	awaitMembers(t, []*node{first}, 1)
	for i := range 60 {
		if err := first.Propose(t.Context(), fmt.Appendf(nil, "message %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Compact(); err != nil {
		t.Fatal(err)
	}
	second := newNode(t, first.addr()).start()
	awaitMembers(t, []*node{first, second}, 2)
	if second.restored == 0 {
		t.Error("the joiner was given no snapshot")
	}
	want := propose(t, []*node{first, second}, "late")
	first.stop()
	first.start()
	awaitMembers(t, []*node{first, second}, 2)
	if first.restored == 0 {
		t.Error("the restarted node was given no snapshot")
	}
	if _, got, _ := first.state(); !slices.Equal(got, want) {
		t.Errorf("after the restart %v, before %v", got, want)
	}
}
