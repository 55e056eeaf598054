package tests_test

import (
	"errors"
	"strconv"
	"testing"

	"sheepdog/tests/harness"
	"sheepdog/tests/load"
	"sheepdog/tests/native"
)

// TestAFullDisk fills the disks of a cluster. The writer is told, nobody dies,
// nothing that was acknowledged is lost, and deleting a disk makes room again.
func TestAFullDisk(t *testing.T) {
	const size = 512 << 20
	disks, dirs := newDisks(t, 3)
	c := harness.Start(t, harness.Config{Dirs: dirs})
	c.Format(3)
	c.Dog("vdi", "create", "small", "32M")
	c.Dog("vdi", "create", "big", strconv.Itoa(size))
	for _, d := range disks {
		d.SetCapacity(d.Used() + 200<<20)
	}
	write(t, c, "small", 32<<20)

	d, err := native.Open(t.Context(), native.Config{Servers: c.Addrs(0)}, "big")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	block := make([]byte, load.BlockSize)
	const step = 64 << 10
	full := int64(-1)
	for off := int64(0); off < size; off += step {
		load.Fill(block, 7, off/load.BlockSize, 1)
		if err := d.WriteAt(t.Context(), block, off); err != nil {
			if !errors.Is(err, native.NoSpace) && !errors.Is(err, native.IOError) {
				t.Fatalf("a write to the full cluster: %v, want %v", err, native.NoSpace)
			}
			full = off
			break
		}
	}
	if full <= 0 {
		t.Fatalf("%d MiB fit onto three disks of 200 MiB, or none", full>>20)
	}
	t.Logf("full after %d MiB", full>>20)
	for i, n := range c.Nodes {
		if !n.Alive() {
			t.Fatalf("node %d died of its full disk", i)
		}
	}
	want, got := make([]byte, load.BlockSize), make([]byte, load.BlockSize)
	for off := int64(0); off < full; off += step {
		load.Fill(want, 7, off/load.BlockSize, 1)
		if err := d.ReadAt(t.Context(), got, off); err != nil {
			t.Fatal(err)
		}
		if err := firstDifference(want, got); err != nil {
			t.Fatalf("what was written at %d before the disks were full: %v", off, err)
		}
	}
	d.Close()

	c.Dog("vdi", "delete", "big")
	if r := c.RunDog(c.Nodes[0], nil, "vdi", "list", "-r", "big"); r.Stdout != "" {
		t.Errorf("after dog vdi delete there is %q", r.Stdout)
	}
	c.Dog("vdi", "create", "again", "64M")
	write(t, c, "again", 64<<20)
	for _, name := range []string{"small", "again"} {
		c.Check(name)
	}

	// A cluster that stopped full starts again.
	for _, d := range disks {
		d.SetCapacity(d.Used())
	}
	c.Kill()
	for _, n := range c.Nodes {
		n.Start()
	}
	c.WaitRecovered()
	c.Check("small")
}

// write fills a disk with bytes that are not zero.
func write(t *testing.T, c *harness.Cluster, name string, size int64) {
	t.Helper()
	d, err := native.Open(t.Context(), native.Config{Servers: c.Addrs(0)}, name)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	chunk := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(chunk)) {
		for b := 0; b < len(chunk); b += load.BlockSize {
			load.Fill(chunk[b:b+load.BlockSize], 9, (off+int64(b))/load.BlockSize, 1)
		}
		if err := d.WriteAt(t.Context(), chunk, off); err != nil {
			t.Fatalf("fill %q: %v", name, err)
		}
	}
}
