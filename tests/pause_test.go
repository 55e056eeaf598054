package tests_test

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/native"
)

// TestStoppedSheep stops a sheep with SIGSTOP under load: for a moment, which the
// clients only feel, and until the others have expelled it. Then it goes on, and
// must not disturb the cluster that has gone on without it, but join anew.
func TestStoppedSheep(t *testing.T) {
	seed := seed(t)
	c := harness.Start(t, harness.Config{})
	c.Format(3)
	clients := newClients(t, c, seed, 32<<20)
	stop := make(chan struct{})
	for _, cl := range clients { // not through the node that will suffer
		cl.cfg.Servers = c.Addrs(0)[:2]
		cl.start(t.Context(), t, stop)
	}
	writes := func(n int64) {
		t.Helper()
		more := counter(clients)
		c.Until("some writes", func(context.Context) error {
			failed(t, clients)
			return more(n)
		})
	}
	writes(100)
	victim := c.Nodes[2]
	signal := func(s syscall.Signal) {
		t.Helper()
		if err := victim.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	time.Sleep(2 * time.Second) // how long it is stopped
	signal(syscall.SIGCONT)
	writes(100)
	c.WaitRunning()

	signal(syscall.SIGSTOP)
	untilListed(c, 2)
	writes(100)
	signal(syscall.SIGCONT)
	c.WaitJoined()
	c.WaitRecovered()
	writes(100)
	close(stop)
	for _, cl := range clients {
		if err := <-cl.done; err != nil {
			t.Fatalf("%s: %v", cl.name, err)
		}
		t.Logf("%s: %s", cl.name, cl.load.Stats())
	}
	for _, cl := range clients {
		cl.verify(t, c, false)
	}
}

// untilListed waits until the first sheep lists so many, because the others have
// gone on without one that is stopped.
func untilListed(c *harness.Cluster, nodes int) {
	c.Until(fmt.Sprintf("a list of %d sheep", nodes), func(ctx context.Context) error {
		s, err := native.Ask(ctx, c.Nodes[0].Addr(), native.Stat)
		if err == nil && len(s.Nodes) != nodes {
			err = fmt.Errorf("it lists %d", len(s.Nodes))
		}
		return err
	})
}
