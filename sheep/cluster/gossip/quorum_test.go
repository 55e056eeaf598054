package gossip_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"sheepdog/sheep/cluster"
)

// beginAnew waits until a node wants another life, and starts it.
func (n *node) beginAnew() {
	n.t.Helper()
	select {
	case err := <-n.done:
		if !errors.Is(err, cluster.ErrRejoin) {
			n.t.Fatalf("Run returned %v, want %v", err, cluster.ErrRejoin)
		}
	case <-time.After(patience):
		n.t.Fatalf("%s goes on after %v", n.addr(), patience)
	}
	n.start()
}

// force recovers without a majority at node n.
func (n *node) force() {
	n.t.Helper()
	var restart func()
	var err error
	await(n.t, "recovery", func() bool {
		restart, err = n.RecoverQuorum(n.t.Context())
		return err == nil
	})
	restart()
}

func TestRecoveryWithoutAMajority(t *testing.T) {
	t.Parallel()
	nodes := begin(t, 5)
	awaitVoters(t, nodes[0], 5, 0)
	want := propose(t, nodes, "begin")
	if _, err := nodes[3].RecoverQuorum(t.Context()); !errors.Is(err, cluster.ErrQuorum) {
		t.Errorf("with a majority: %v, want %v", err, cluster.ErrQuorum)
	}
	_, _, before := nodes[0].state()
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(n.stop)
	}
	wg.Wait()

	lost, kept := nodes[:3], nodes[3:]
	for _, n := range kept {
		n.start()
	}
	kept[0].force()
	for _, n := range kept {
		n.beginAnew()
	}
	awaitMembers(t, kept, 2)
	got := propose(t, kept, "alone")
	if !slices.Equal(got[:len(want)], want) {
		t.Fatalf("the log begins with %v, it was %v", got, want)
	}
	if _, _, after := kept[0].state(); after <= before {
		t.Errorf("index %d after %d", after, before)
	}
	want = got

	for _, n := range lost { // a majority, if they were asked
		n.start()
	}
	for _, n := range lost {
		n.beginAnew()
	}
	awaitMembers(t, nodes, 5)
	if got := propose(t, nodes, "whole"); !slices.Equal(got[:len(want)], want) {
		t.Fatalf("the log begins with %v, it was %v", got, want)
	}
}
