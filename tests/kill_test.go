package tests_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/load"
	"sheepdog/tests/native"
)

// seed returns the seed of a random test: from SHEEP_TEST_SEED, or the time.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := uint64(time.Now().UnixNano())
	if v := os.Getenv("SHEEP_TEST_SEED"); v != "" {
		var err error
		if s, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SHEEP_TEST_SEED=%d", s)
	return s
}

// patience bounds waits for things that take no time when all is well.
const patience = time.Minute

// A client is a disk under load.
type client struct {
	name string
	load *load.Load
	cfg  native.Config
	dev  *native.Disk
	done chan error
}

// newClients makes two disks for two kinds of client: one whose writes are
// durable when they are answered, and one that flushes now and then.
func newClients(t *testing.T, c *harness.Cluster, seed uint64, size int64) []*client {
	t.Helper()
	clients := []*client{
		{name: "through", cfg: native.Config{Servers: c.Addrs(0)}, load: load.New(load.Config{Seed: seed}, size)},
		{name: "back", cfg: native.Config{Servers: c.Addrs(1), WriteBack: true}, load: load.New(load.Config{Seed: seed + 1, FlushEvery: 64}, size)},
	}
	for _, cl := range clients {
		c.Dog("vdi", "create", cl.name, strconv.FormatInt(size, 10))
		cl.cfg.Retries = func(server string, err error) { t.Logf("%s: lost %s: %v", cl.name, server, err) }
	}
	return clients
}

// start opens the disk and loads it until stop is closed or ctx is done.
func (cl *client) start(ctx context.Context, t *testing.T, stop <-chan struct{}) {
	t.Helper()
	dev, err := native.Open(ctx, cl.cfg, cl.name)
	if err != nil {
		t.Fatal(err)
	}
	cl.dev, cl.done = dev, make(chan error, 1)
	go func() {
		defer dev.Close()
		cl.done <- cl.load.Run(ctx, stop, dev)
	}()
}

// verify reads the disk through every node and lets dog compare the copies.
func (cl *client) verify(t *testing.T, c *harness.Cluster, lost bool) {
	t.Helper()
	for i, n := range c.Nodes {
		dev, err := native.Open(t.Context(), native.Config{Servers: []string{n.Addr()}}, cl.name)
		if err != nil {
			t.Fatal(err)
		}
		if err := cl.load.Verify(t.Context(), dev, lost && i == 0); err != nil {
			t.Errorf("%s, read through node %d:\n%v", cl.name, i, err)
		}
		dev.Close()
	}
	c.Check(cl.name)
}

// TestKilledSheepLoseNothing kills a random sheep every second, the one that
// was killed before it coming back, while two clients write.
func TestKilledSheepLoseNothing(t *testing.T) {
	d := 60 * time.Second
	if testing.Short() {
		d = 10 * time.Second
	}
	seed := seed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	c := harness.Start(t, harness.Config{Nodes: 4})
	c.Format(3)
	clients := newClients(t, c, seed, 64<<20)
	stop := make(chan struct{})
	for _, cl := range clients {
		cl.start(t.Context(), t, stop)
	}
	kills := 0
	var down *harness.Node
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); kills++ {
		<-tick.C
		alive := c.Alive()
		victim := alive[rng.IntN(len(alive))]
		if down != nil {
			down.Start()
			c.WaitRunning()
		}
		victim.Kill()
		down = victim
		failed(t, clients)
	}
	down.Start()
	c.WaitRecovered()
	close(stop)
	for _, cl := range clients {
		if err := <-cl.done; err != nil {
			t.Fatalf("%s: %v", cl.name, err)
		}
		t.Logf("%s: %d sheep killed; %s", cl.name, kills, cl.load.Stats())
		if cl.load.Writes() == 0 {
			t.Errorf("%s wrote nothing", cl.name)
		}
	}
	c.WaitRecovered()
	for _, cl := range clients {
		cl.verify(t, c, false)
	}
}

// failed ends the test if a load has ended.
func failed(t *testing.T, clients []*client) {
	t.Helper()
	for _, cl := range clients {
		select {
		case err := <-cl.done:
			t.Fatalf("%s: %v", cl.name, errors.Join(err, errors.New("the load ended early")))
		default:
		}
	}
}
