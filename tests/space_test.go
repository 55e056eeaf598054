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

	full := fillUp(t, c, "big", size)
	for i, n := range c.Nodes {
		if !n.Alive() {
			t.Fatalf("node %d died of its full disk", i)
		}
	}
	holds(t, c, "big", full)

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
	c.Dog("vdi", "create", "more", strconv.Itoa(size))
	full = fillUp(t, c, "more", size)
	c.Kill()
	for _, n := range c.Nodes {
		n.Start()
	}
	c.WaitRecovered()
	holds(t, c, "more", full)
	c.Check("small")
}

const chunkSize = 256 << 10

// fillUp writes to a disk until there is no more room, and returns how much was
// acknowledged.
func fillUp(t *testing.T, c *harness.Cluster, name string, size int64) int64 {
	t.Helper()
	d := open(t, c, name)
	chunk := make([]byte, chunkSize)
	for off := int64(0); off < size; off += chunkSize {
		pattern(chunk, 7, off)
		if err := d.WriteAt(t.Context(), chunk, off); err != nil {
			if !errors.Is(err, native.NoSpace) && !errors.Is(err, native.IOError) {
				t.Fatalf("a write to the full cluster: %v, want %v", err, native.NoSpace)
			}
			t.Logf("full after %d MiB: %v", off>>20, err)
			if off == 0 {
				t.Fatal("there was no room at all")
			}
			return off
		}
	}
	t.Fatal("the cluster does not get full")
	return 0
}

// holds fails the test unless a disk begins with n bytes that fillUp wrote.
func holds(t *testing.T, c *harness.Cluster, name string, n int64) {
	t.Helper()
	d := open(t, c, name)
	want, got := make([]byte, chunkSize), make([]byte, chunkSize)
	for off := int64(0); off < n; off += chunkSize {
		pattern(want, 7, off)
		if err := d.ReadAt(t.Context(), got, off); err != nil {
			t.Fatal(err)
		}
		if err := firstDifference(want, got); err != nil {
			t.Fatalf("what was written at %d before the disks were full: %v", off, err)
		}
	}
}

func open(t *testing.T, c *harness.Cluster, name string) *native.Disk {
	t.Helper()
	d, err := native.Open(t.Context(), native.Config{Servers: c.Addrs(0)}, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// write fills a disk with bytes that are not zero.
func write(t *testing.T, c *harness.Cluster, name string, size int64) {
	t.Helper()
	d := open(t, c, name)
	chunk := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(chunk)) {
		pattern(chunk, 9, off)
		if err := d.WriteAt(t.Context(), chunk, off); err != nil {
			t.Fatalf("fill %q: %v", name, err)
		}
	}
}

// pattern fills p with what belongs at off of a disk.
func pattern(p []byte, seed uint64, off int64) {
	for b := 0; b < len(p); b += load.BlockSize {
		load.Fill(p[b:b+load.BlockSize], seed, (off+int64(b))/load.BlockSize, 1)
	}
}
