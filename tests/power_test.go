package tests_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/powerfs"
)

// newDisks mounts a disk for each node and returns store directories on them.
func newDisks(t *testing.T, n int) (disks []*powerfs.FS, dirs []string) {
	t.Helper()
	if err := powerfs.Available(); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	base, err := os.MkdirTemp("", "power")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	for i := range n {
		dir := filepath.Join(base, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		disk, err := powerfs.Mount(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := disk.Unmount(); err != nil {
				t.Error(err)
			}
		})
		disks, dirs = append(disks, disk), append(dirs, storeOn(t, disk))
	}
	return disks, dirs
}

// storeOn makes a directory that outlasts a loss of power, as that of an
// operator does who made it long ago.
func storeOn(t *testing.T, disk *powerfs.FS) string {
	t.Helper()
	dir := filepath.Join(disk.Dir(), "store")
	err := os.Mkdir(dir, 0o750)
	if err == nil {
		var d *os.File
		if d, err = os.Open(disk.Dir()); err == nil {
			err = errors.Join(d.Sync(), d.Close())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestLossOfPower takes the power from all machines at a random moment, twenty
// times, while two clients write and a third makes objects anew. What was
// acknowledged as durable is there afterwards, whatever else the disks happened
// to keep.
func TestLossOfPower(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	seed := seed(t)
	rng := rand.New(rand.NewPCG(seed, 2))
	disks, dirs := newDisks(t, 3)
	c := harness.Start(t, harness.Config{Dirs: dirs})
	c.Format(3)
	clients := newClients(t, c, seed, 32<<20)
	remaker := newRemaker(t, c, seed)
	for round := range rounds {
		ctx, stop := context.WithCancel(t.Context())
		remade := remaker.start(ctx, t, c)
		runFor(t, c, clients, time.Duration(100+rng.IntN(900))*time.Millisecond)
		stop()
		remade()
		for _, d := range disks {
			cut := uint64(0) // every fourth time nothing survives but what was synced
			if round%4 != 0 {
				cut = rng.Uint64()
			}
			d.Cut(cut)
		}
		order := rng.Perm(len(c.Nodes))
		for _, i := range order {
			c.Nodes[i].Start()
		}
		c.WaitRecovered()
		for _, cl := range clients {
			cl.verify(t, c, true)
		}
		remaker.verify(t, c)
		if t.Failed() {
			t.Fatalf("round %d, nodes started in the order %v", round, order)
		}
	}
	for _, cl := range clients {
		t.Logf("%s: %s", cl.name, cl.load.Stats())
	}
	t.Logf("%d objects made anew", remaker.made.Load())
}

// runFor loads the disks for d, then kills all sheep in the midst of it.
func runFor(t *testing.T, c *harness.Cluster, clients []*client, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, cl := range clients {
		cl.start(ctx, t, nil)
	}
	time.Sleep(d) // the moment of the failure
	failed(t, clients)
	c.Kill()
	cancel()
	for _, cl := range clients {
		if err := <-cl.done; err != nil {
			t.Fatalf("%s: %v", cl.name, err)
		}
	}
}

// TestOneDiskLosesItsPower cuts the power of one disk under its daemon: the
// daemon must not go on as if nothing had happened, and the cluster must.
func TestOneDiskLosesItsPower(t *testing.T) {
	seed := seed(t)
	disks, dirs := newDisks(t, 3)
	c := harness.Start(t, harness.Config{Dirs: dirs})
	c.Format(3)
	clients := newClients(t, c, seed, 32<<20)
	for _, cl := range clients { // not through the node that will suffer
		cl.cfg.Servers = c.Addrs(0)[:2]
	}
	stop := make(chan struct{})
	for _, cl := range clients {
		cl.start(t.Context(), t, stop)
	}
	more := counter(clients)
	c.Until("some writes", func(context.Context) error { return more(100) })
	disks[2].Cut(seed)
	if code, err := c.Nodes[2].Wait(patience); err != nil || code == 0 {
		t.Fatalf("a sheep that has lost its disk goes on, or ends as if nothing had happened: status %d, %v", code, err)
	}
	more = counter(clients)
	c.Until("writes after the cut", func(context.Context) error {
		failed(t, clients)
		return more(100)
	})
	c.Nodes[2].Start()
	c.WaitRecovered()
	close(stop)
	for _, cl := range clients {
		if err := <-cl.done; err != nil {
			t.Fatalf("%s: %v", cl.name, err)
		}
	}
	for _, cl := range clients {
		cl.verify(t, c, false)
	}
}

// counter returns a function that says whether each client has made n writes
// since.
func counter(clients []*client) func(n int64) error {
	before := make([]int64, len(clients))
	for i, cl := range clients {
		before[i] = cl.load.Writes()
	}
	return func(n int64) error {
		for i, cl := range clients {
			if made := cl.load.Writes() - before[i]; made < n {
				return fmt.Errorf("%s has made %d", cl.name, made)
			}
		}
		return nil
	}
}
