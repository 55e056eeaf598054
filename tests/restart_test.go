package tests_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"

	"sheepdog/tests/harness"
)

// TestRestartInAnyOrder stops a cluster in several ways and starts its nodes in
// several orders.
func TestRestartInAnyOrder(t *testing.T) {
	seed := seed(t)
	rng := rand.New(rand.NewPCG(seed, 3))
	c := harness.Start(t, harness.Config{})
	c.Format(2)
	clients := newClients(t, c, seed, 32<<20)
	for _, tt := range []struct {
		name string
		stop func()
	}{
		{"dog cluster shutdown", c.Shutdown},
		{"SIGTERM one by one", func() {
			for _, i := range rng.Perm(len(c.Nodes)) {
				c.Nodes[i].Stop()
			}
		}},
		{"SIGKILL all at once", c.Kill},
		{"SIGKILL one by one", func() {
			for _, i := range rng.Perm(len(c.Nodes)) {
				c.Nodes[i].Kill()
				if len(c.Alive()) > 0 {
					c.WaitRunning()
				}
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			loadAWhile(t, c, clients)
			tt.stop()
			order := rng.Perm(len(c.Nodes))
			t.Logf("starting in the order %v", order)
			for _, i := range order {
				c.Nodes[i].Start()
				c.WaitJoined()
			}
			c.WaitRecovered()
			for _, cl := range clients {
				cl.verify(t, c, false)
			}
		})
	}
}

// loadAWhile makes each client write a few hundred blocks and flush.
func loadAWhile(t *testing.T, c *harness.Cluster, clients []*client) {
	t.Helper()
	stop := make(chan struct{})
	more := counter(clients)
	for _, cl := range clients {
		cl.start(t.Context(), t, stop)
	}
	c.Until("some writes", func(context.Context) error {
		failed(t, clients)
		return more(300)
	})
	close(stop)
	for _, cl := range clients {
		if err := <-cl.done; err != nil {
			t.Fatalf("%s: %v", cl.name, err)
		}
	}
}

// TestAMissingNodeIsWaitedFor starts all nodes but one after a full stop: the
// cluster must not serve, because the missing node may hold what is newest.
func TestAMissingNodeIsWaitedFor(t *testing.T) {
	c := harness.Start(t, harness.Config{})
	c.Format(3)
	c.Dog("vdi", "create", "a", "16M")
	c.Shutdown()
	c.Nodes[0].Start()
	c.Nodes[1].Start()
	c.WaitJoined()
	const waiting = "Waiting for other nodes to join cluster"
	if got := c.Dog("cluster", "info"); !strings.Contains(got, waiting) {
		t.Errorf("with a node missing dog cluster info says\n%s\nwant %q", got, waiting)
	}
	if r := c.RunDog(c.Nodes[0], nil, "vdi", "create", "b", "16M"); r.Code == 0 {
		t.Error("with a node missing a disk could be created")
	}
	c.Nodes[2].Start()
	c.WaitRecovered()
	if got := c.Dog("vdi", "list", "-r"); !strings.Contains(got, " a ") {
		t.Errorf("dog vdi list says %q", got)
	}
}

// TestForcedRecovery gives up on a missing node.
func TestForcedRecovery(t *testing.T) {
	c := harness.Start(t, harness.Config{})
	c.Format(3)
	clients := newClients(t, c, seed(t), 16<<20)
	loadAWhile(t, c, clients)
	c.Kill()
	c.Nodes[0].Start()
	c.Nodes[2].Start()
	c.WaitJoined()
	c.Dog("cluster", "recover", "force", "-f")
	c.WaitRecovered()
	c.Nodes = []*harness.Node{c.Nodes[0], c.Nodes[2]}
	for _, cl := range clients {
		cl.verify(t, c, false)
	}
}
