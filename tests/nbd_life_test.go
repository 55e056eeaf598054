package tests_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"sheepdog/tests/harness"
	"sheepdog/tests/nbdclient"
)

// put writes n bytes of noise at off and returns them.
func put(t *testing.T, dev *nbdclient.Client, rng *rand.Rand, off int64, n int) []byte {
	t.Helper()
	p := random(rng, n)
	if err := dev.WriteAt(t.Context(), p, off); err != nil {
		t.Fatalf("write %d bytes at %d: %v", n, off, err)
	}
	return p
}

// expect fails the test unless the export has want at off.
func expect(t *testing.T, dev *nbdclient.Client, off int64, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if err := dev.ReadAt(t.Context(), got, off); err != nil {
		t.Fatalf("read %d bytes at %d: %v", len(want), off, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%d bytes at %d are not what was written", len(want), off)
	}
}

// TestNBDLocks opens disks of a cluster that locks them: one sheep at a time,
// any number of connections to it.
func TestNBDLocks(t *testing.T) {
	harness.Need(t, "qemu-img")
	c := harness.New(t, harness.Config{Nodes: 3})
	withNBD(c)
	for _, n := range c.Nodes {
		n.Start()
		c.WaitJoined()
	}
	c.Format(2, "-l")
	rng := rand.New(rand.NewPCG(seed(t), 1))
	c.Dog("vdi", "create", "vol", "64M")
	first, err := nbdclient.Dial(t.Context(), "unix:"+nbdSocket(c.Nodes[0]), "vol")
	if err != nil {
		t.Fatal(err)
	}
	one := put(t, first, rng, 5<<20, 8192)
	expect(t, dialNBD(t, c.Nodes[0], "vol"), 5<<20, one)
	c.Dog("vdi", "snapshot", "-s", "one", "vol") // the lock goes on with the new head
	two := put(t, first, rng, 6<<20, 8192)
	expect(t, dialNBD(t, c.Nodes[1], "vol@one"), 5<<20, one)

	refused := func() string {
		t.Helper()
		out, err := exec.Command("qemu-img", "info", "-f", "raw", nbdURI(c.Nodes[1], "vol")).CombinedOutput()
		if err == nil {
			t.Fatalf("a disk that another sheep has locked was opened:\n%s", out)
		}
		return string(out)
	}
	if out := refused(); !strings.Contains(out, c.Nodes[0].Addr()) {
		t.Errorf("the refusal does not say who holds the lock:\n%s", out)
	}
	if list := c.Dog("vdi", "lock", "list"); !strings.Contains(list, "vol") || !strings.Contains(list, fmt.Sprint("port:", c.Nodes[0].Port.Number)) {
		t.Errorf("dog vdi lock list: %s", list)
	}
	c.Nodes[0].Kill()
	c.WaitRunning()
	dev := dialNBD(t, c.Nodes[1], "vol")
	expect(t, dev, 5<<20, one)
	expect(t, dev, 6<<20, two)
	put(t, dev, rng, 7<<20, 4096)
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	c.Nodes[0].Start()
	c.WaitRecovered()
	c.Until("the lock to be free", func(ctx context.Context) error {
		dev, err := nbdclient.Dial(ctx, "unix:"+nbdSocket(c.Nodes[2]), "vol")
		if err == nil {
			err = dev.Close()
		}
		return err
	})
}

// TestNBDDisksChange resizes, deletes and makes anew a disk that is open.
func TestNBDDisksChange(t *testing.T) {
	c := nbdCluster(t, 3, 3)
	rng := rand.New(rand.NewPCG(seed(t), 1))
	c.Dog("vdi", "create", "vol", "64M")
	old := dialNBD(t, c.Nodes[0], "vol")
	data := put(t, old, rng, 3<<20, 2<<20)

	c.DogAt(c.Nodes[1], nil, "vdi", "resize", "vol", "128M")
	bigger := dialNBD(t, c.Nodes[0], "vol")
	if bigger.Size() != 128<<20 {
		t.Errorf("after a resize a new client sees %d bytes", bigger.Size())
	}
	tail := put(t, bigger, rng, 100<<20, 4096)
	expect(t, bigger, 3<<20, data)
	expect(t, old, 3<<20, data)
	data = put(t, old, rng, 3<<20, 1<<20)
	if err := old.ReadAt(t.Context(), make([]byte, 512), 64<<20); err == nil {
		t.Error("a client reads beyond the size that it was told")
	}
	expect(t, dialNBD(t, c.Nodes[2], "vol"), 100<<20, tail)

	c.DogAt(c.Nodes[1], nil, "vdi", "delete", "vol")
	if err := old.WriteAt(t.Context(), data, 3<<20); err == nil {
		t.Error("a disk that was deleted was written to")
	}
	c.Dog("vdi", "create", "vol", "32M")
	fresh := dialNBD(t, c.Nodes[0], "vol")
	if fresh.Size() != 32<<20 {
		t.Errorf("a disk that was made anew has %d bytes", fresh.Size())
	}
	expect(t, fresh, 3<<20, make([]byte, 1<<20))
	data = put(t, fresh, rng, 3<<20, 1<<20)
	if err := old.WriteAt(t.Context(), make([]byte, 512), 3<<20); err == nil {
		t.Error("a client of the disk before writes to the new one")
	}
	expect(t, fresh, 3<<20, data)
	c.Check("vol")
}

// TestNBDMoves hands a disk from sheep to sheep, as the migration of a machine
// does: the target connects and reads while the source still writes, and goes
// on when that has flushed.
func TestNBDMoves(t *testing.T) {
	const size = 48 << 20
	c := nbdCluster(t, 3, 2)
	rng := rand.New(rand.NewPCG(seed(t), 1))
	c.Dog("vdi", "create", "vol", strconv.Itoa(size))
	model := make([]byte, size)
	source := dialNBD(t, c.Nodes[0], "vol")
	for round := range 12 {
		target := dialNBD(t, c.Nodes[(round+1)%3], "vol")
		for i := range 20 {
			off := rng.Int64N(size - 100_000)
			copy(model[off:], put(t, source, rng, off, 1+rng.IntN(100_000)))
			if i%4 == 0 {
				off := rng.Int64N(size - 100_000)
				expect(t, target, off, model[off:off+100_000])
			}
		}
		if round%3 == 2 {
			c.Dog("vdi", "snapshot", "-s", fmt.Sprint("s", round), "vol")
		}
		if err := source.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		source = target
	}
	for _, n := range c.Nodes {
		expect(t, dialNBD(t, n, "vol"), 0, model[:24<<20])
		expect(t, dialNBD(t, n, "vol"), 24<<20, model[24<<20:])
	}
	c.Check("vol")
}

// TestNBDExports chooses what is exported, and how.
func TestNBDExports(t *testing.T) {
	harness.Need(t, "nbdinfo")
	c := nbdCluster(t, 1, 1, "--nbd-exports", "vm-*,alice", "--nbd-read-only", "--nbd-default-export", "alice")
	for _, name := range []string{"vm-1", "vm-2", "alice", "bob"} {
		c.Dog("vdi", "create", name, "16M")
	}
	n := c.Nodes[0]
	list := tool(t, "nbdinfo", "--list", nbdURI(n, ""))
	for name, want := range map[string]bool{"vm-1": true, "vm-2": true, "alice": true, "bob": false} {
		if got := strings.Contains(list, fmt.Sprintf("export=%q", name)); got != want {
			t.Errorf("%s is in the list: %v, want %v\n%s", name, got, want, list)
		}
	}
	dev := dialNBD(t, n, "")
	if dev.Flags()&nbdclient.FlagReadOnly == 0 {
		t.Error("an export is not read-only")
	}
	if err := dev.WriteAt(t.Context(), make([]byte, 512), 0); err == nil {
		t.Error("a read-only export was written to")
	}
	expect(t, dev, 0, make([]byte, 512))
	if dev, err := nbdclient.Dial(t.Context(), "unix:"+nbdSocket(n), "bob"); err == nil {
		dev.Close()
		t.Error("a disk that is not exported was opened")
	}
}
