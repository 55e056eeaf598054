package tests_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/load"
	"sheepdog/tests/nbdclient"
)

// A pair is two connections to one export: one writes and reads, the other
// flushes, which must cover what the first has written.
type pair struct {
	*nbdclient.Client
	flusher *nbdclient.Client
}

func (p pair) Flush(ctx context.Context) error { return p.flusher.Flush(ctx) }

// TestNBDLossOfPower takes the power from all machines while NBD clients write:
// one whose writes carry FUA, and one that flushes over a second connection.
func TestNBDLossOfPower(t *testing.T) {
	const size = 32 << 20
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	seed := seed(t)
	rng := rand.New(rand.NewPCG(seed, 3))
	disks, dirs := newDisks(t, 3)
	c := harness.New(t, harness.Config{Dirs: dirs})
	withNBD(c)
	for _, n := range c.Nodes {
		n.Start()
		c.WaitJoined()
	}
	c.Format(3)
	clients := []*client{
		{name: "fua", load: load.New(load.Config{Seed: seed}, size)},
		{name: "pair", load: load.New(load.Config{Seed: seed + 1, FlushEvery: 16}, size)},
	}
	for _, cl := range clients {
		c.Dog("vdi", "create", cl.name, strconv.Itoa(size))
	}
	for round := range rounds {
		fua := dialNBD(t, c.Nodes[0], "fua")
		fua.Durable = true
		two := pair{dialNBD(t, c.Nodes[1], "pair"), dialNBD(t, c.Nodes[1], "pair")}
		if two.Flags()&nbdclient.FlagMultiConn == 0 {
			t.Fatal("the export does not allow several connections")
		}
		ctx, cancel := context.WithCancel(t.Context())
		for i, dev := range []load.Device{fua, two} {
			clients[i].done = make(chan error, 1)
			go func() { clients[i].done <- clients[i].load.Run(ctx, nil, dev) }()
		}
		time.Sleep(time.Duration(300+rng.IntN(900)) * time.Millisecond) // the moment of the failure
		failed(t, clients)
		cancel() // before the connections break, which would be an error
		c.Kill()
		for i, cl := range clients {
			if err := <-cl.done; err != nil {
				t.Fatalf("%s: %v", cl.name, err)
			}
			disks[i].Cut(rng.Uint64() * uint64(round%2)) // every second time only what was synced survives
		}
		disks[2].Cut(rng.Uint64() * uint64(round%2))
		for _, n := range c.Nodes {
			n.Start()
		}
		c.WaitRecovered()
		for _, cl := range clients {
			cl.verify(t, c, true)
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	for _, cl := range clients {
		t.Logf("%s: %s", cl.name, cl.load.Stats())
		if cl.load.Writes() < 100 {
			t.Errorf("%s made %d writes only", cl.name, cl.load.Writes())
		}
	}
}
