package tests_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sheepdog/tests/harness"
	"sheepdog/tests/nbdclient"
)

// A scattered volume is one too large to compare as a whole: what was written is
// remembered by its offset.
type scattered struct {
	name    string
	size    int64
	rng     *rand.Rand
	content map[int64][]byte
}

const (
	tebibyte  = 1 << 40
	objectLen = 4 << 20
)

func newScattered(t *testing.T, name string, size int64) *scattered {
	return &scattered{name: name, size: size, rng: rand.New(rand.NewPCG(seed(t), 1)), content: make(map[int64][]byte)}
}

// offset returns a place, in a part of an object of which nothing was used before.
func (s *scattered) offset() int64 {
	for {
		off := s.rng.Int64N(s.size/objectLen)*objectLen + s.rng.Int64N(1000)*4096
		if _, used := s.content[off]; !used {
			return off
		}
	}
}

// put writes to n places through an export.
func (s *scattered) put(t *testing.T, dev *nbdclient.Client, n int) {
	t.Helper()
	for range n {
		off := s.offset()
		s.content[off] = put(t, dev, s.rng, off, 512+s.rng.IntN(4000))
	}
}

// putDog writes to a place with dog, through node n.
func (s *scattered) putDog(t *testing.T, c *harness.Cluster, n *harness.Node, off int64) {
	t.Helper()
	p := random(s.rng, 3000)
	c.DogAt(n, p, "vdi", "write", s.name, fmt.Sprint(off), fmt.Sprint(len(p)))
	s.content[off] = p
}

// expect fails unless an export has everything, and nothing beside it.
func (s *scattered) expect(t *testing.T, dev *nbdclient.Client) {
	t.Helper()
	for off, want := range s.content {
		expect(t, dev, off, want)
	}
	expect(t, dev, s.size-8192, make([]byte, 4096))
}

// expectDog fails unless dog reads everything through node n.
func (s *scattered) expectDog(t *testing.T, c *harness.Cluster, n *harness.Node) {
	t.Helper()
	for off, want := range s.content {
		if got := c.DogAt(n, nil, "vdi", "read", s.name, fmt.Sprint(off), fmt.Sprint(len(want))); got != string(want) {
			t.Fatalf("%s through node %d: %d bytes at %d are not what was written", s.name, n.ID, len(want), off)
		}
	}
}

// objects returns how many objects were written to.
func (s *scattered) objects() int {
	seen := make(map[int64]bool)
	for off := range s.content {
		seen[off/objectLen] = true
	}
	return len(seen)
}

// TestHyperVolume uses a volume of 8 TiB through NBD, dog and sheepfs on different
// sheep, kills one of them, and deletes the volume.
func TestHyperVolume(t *testing.T) {
	c := nbdCluster(t, 3, 2)
	c.Dog("vdi", "create", "-y", "big", "8T")
	if got := c.Dog("vdi", "list", "-r", "big"); !strings.HasPrefix(got, "= big 0 8796093022208 0 0 ") || !strings.HasSuffix(got, " 2  22\n") {
		t.Errorf("the new volume is listed as %q", got)
	}
	s := newScattered(t, "big", 8*tebibyte)
	dev := dialNBD(t, c.Nodes[0], "big")
	s.put(t, dev, 60)
	s.putDog(t, c, c.Nodes[1], 7*tebibyte)
	s.putDog(t, c, c.Nodes[2], 0)
	s.expect(t, dialNBD(t, c.Nodes[1], "big"))
	s.expectDog(t, c, c.Nodes[2])
	if got, want := c.Dog("vdi", "list", "-r", "big"), fmt.Sprintf("= big 0 8796093022208 %d 0 ", s.objects()*objectLen); !strings.HasPrefix(got, want) {
		t.Errorf("the volume is listed as %q, want %q", got, want)
	}
	if got := strings.Count(c.Dog("vdi", "object", "map", "big"), "\n"); got != 1+s.objects() {
		t.Errorf("the map has %d lines, want one for each of %d objects and a header", got, s.objects())
	}

	c.Nodes[2].Kill()
	s.put(t, dev, 30)
	if err := dev.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.expect(t, dialNBD(t, c.Nodes[1], "big"))
	c.Nodes[0].Kill() // the owner, once the other is back
	c.Nodes[2].Start()
	c.Nodes[0].Start()
	c.WaitRecovered()
	s.expect(t, dialNBD(t, c.Nodes[2], "big"))
	c.Check("big")
	if got := c.Dog("vdi", "check", "-e", "big"); got != "big is fine, no object is missing.\n" {
		t.Error(got)
	}

	c.Dog("vdi", "resize", "big", "16P")
	s.size = 1 << 54
	s.putDog(t, c, c.Nodes[1], s.size-3000)
	delete(s.content, s.size-3000)
	dev = dialNBD(t, c.Nodes[0], "big")
	if dev.Size() != s.size {
		t.Errorf("after a resize the export has %d bytes", dev.Size())
	}
	s.trim(t, dev)
	s.expect(t, dialNBD(t, c.Nodes[1], "big"))

	for _, args := range []string{"vdi snapshot -s one big", "vdi snapshot big"} {
		r := c.RunDog(c.Nodes[0], nil, strings.Fields(args)...)
		if r.Code != 1 || r.Stderr != "creating a snapshot of hypervolume is not supported\n" {
			t.Errorf("dog %s: status %d, %s", args, r.Code, r.Stderr)
		}
	}
	dev.Close()
	c.Dog("vdi", "delete", "big")
	nothingStored(t, c)
}

// trim gives up what is at some of the offsets, and their objects.
func (s *scattered) trim(t *testing.T, dev *nbdclient.Client) {
	t.Helper()
	n := 0
	for off := range s.content {
		if n++; n > 20 {
			return
		}
		first := off / objectLen * objectLen
		if err := dev.Trim(t.Context(), first, objectLen); err != nil {
			t.Fatal(err)
		}
		for at := range s.content {
			if at/objectLen == off/objectLen {
				s.content[at] = make([]byte, len(s.content[at]))
			}
		}
	}
}

// nothingStored fails if a node has anything but inodes and attributes.
func nothingStored(t *testing.T, c *harness.Cluster) {
	t.Helper()
	for _, n := range c.Nodes {
		if ids := stored(t, n); len(ids) > 0 {
			t.Errorf("node %d still has %d objects, such as %016x", n.ID, len(ids), ids[0])
		}
	}
}

// TestHyperVolumeGrows makes more objects than a leaf of the tree has room for,
// and has leaves split by clients of two sheep that make objects at the same time.
func TestHyperVolumeGrows(t *testing.T) {
	c := nbdCluster(t, 2, 1)
	const objects = 8600 // more than 8191
	c.Dog("vdi", "create", "-y", "-P", "big", fmt.Sprint(objects*objectLen))
	c.Dog("vdi", "resize", "big", "1P")
	first, each := int64(objects), int64(400)
	var wg sync.WaitGroup
	for k := range int64(2) {
		dev := dialNBD(t, c.Nodes[k], "big")
		for lane := range int64(4) {
			wg.Go(func() {
				for i := range each {
					index := first + (i*8+k*4+lane)*3
					if err := dev.WriteAt(context.Background(), fmt.Appendf(nil, "object %8d", index), index*objectLen); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	rows := strings.Split(strings.TrimSpace(c.Dog("vdi", "object", "map", "big")), "\n")[1:]
	if len(rows) != objects+8*int(each) {
		t.Errorf("the map has %d objects, want %d", len(rows), objects+8*each)
	}
	for i := range int64(8 * each) {
		index := first + i*3
		if row := rows[objects+i]; !strings.HasPrefix(row, fmt.Sprintf("%08d ", index)) {
			t.Fatalf("object %d is not in the map, instead %q", index, row)
		}
	}
	for k := range int64(2) {
		dev := dialNBD(t, c.Nodes[1-k], "big")
		for i := int64(0); i < 8*each; i += 37 {
			expect(t, dev, (first+i*3)*objectLen, fmt.Appendf(nil, "object %8d", first+i*3))
		}
	}
	trees := 0
	for _, n := range c.Nodes {
		for _, id := range stored(t, n) {
			if id>>56 == 0x10 {
				trees++
			}
		}
	}
	if trees < 2 {
		t.Errorf("the tree has %d leaves of its own", trees)
	}
	if got := c.Dog("vdi", "check", "-e", "big"); got != "big is fine, no object is missing.\n" {
		t.Error(got)
	}
	c.Dog("vdi", "delete", "big")
	nothingStored(t, c)
}

// TestHyperVolumeInSheepfs reads and writes a hyper volume as a file.
func TestHyperVolumeInSheepfs(t *testing.T) {
	c := nbdCluster(t, 2, 2)
	m := mountSheepfs(t, c, c.Nodes[0])
	c.Dog("vdi", "create", "-y", "big", "20T")
	m.must("vdi/mount", "big\n")
	f, err := os.OpenFile(filepath.Join(m.dir, "volume", "big"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := newScattered(t, "big", 20*tebibyte)
	for range 20 {
		off := s.offset()
		s.content[off] = random(s.rng, 1+s.rng.IntN(5000))
		if _, err := f.WriteAt(s.content[off], off); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	dev := dialNBD(t, c.Nodes[1], "big")
	s.expect(t, dev)
	for off, want := range s.content {
		got := make([]byte, len(want))
		if _, err := f.ReadAt(got, off); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes at %d are not what was written (%v)", len(want), off, err)
		}
	}
}

// TestHyperVolumeOfTheOriginal has C sheepdog's dog and ours work on one volume, in
// a cluster of ours, and moves the stores of another to C's sheep and back.
func TestHyperVolumeOfTheOriginal(t *testing.T) {
	sheep, dog := harness.FromEnv(t, "C_SHEEP"), harness.FromEnv(t, "C_DOG")
	programs := harness.Build(t)
	ours := harness.New(t, harness.Config{Sheep: programs.Sheep, Dog: programs.Dog})
	theirs := ours.With(t, harness.Programs{Sheep: sheep, Dog: dog})
	mixed := ours.With(t, harness.Programs{Sheep: programs.Sheep, Dog: dog})
	reverse := ours.With(t, harness.Programs{Sheep: sheep, Dog: programs.Dog})

	for _, n := range ours.Nodes {
		n.Start()
		ours.WaitJoined()
	}
	ours.Format(2)
	copyNodes(mixed, ours)
	ours.Dog("vdi", "create", "-y", "one", "8T")
	mixed.Dog("vdi", "create", "-y", "two", "8T")
	one, two := newScattered(t, "one", 8*tebibyte), newScattered(t, "two", 8*tebibyte)
	for i, c := range []*harness.Cluster{ours, mixed, ours, mixed} {
		for _, s := range []*scattered{one, two} {
			s.putDog(t, c, ours.Nodes[i%3], s.offset())
		}
	}
	check := func(clusters ...*harness.Cluster) {
		t.Helper()
		var lists, maps []string
		for _, c := range clusters {
			for _, s := range []*scattered{one, two} {
				s.expectDog(t, c, clusters[0].Nodes[1])
				c.Check(s.name)
			}
			lists = append(lists, c.Dog("vdi", "list"))
			maps = append(maps, c.Dog("vdi", "object", "map", "two"))
		}
		if lists[0] != lists[1] || maps[0] != maps[1] {
			t.Errorf("the programs show %q and %q, and maps %q and %q", lists[0], lists[1], maps[0], maps[1])
		}
	}
	check(ours, mixed)
	ours.Shutdown()
	forgetDriver(t, ours)

	theirs.StartAll()
	copyNodes(reverse, theirs)
	check(theirs, reverse)
	for _, s := range []*scattered{one, two} {
		s.putDog(t, theirs, theirs.Nodes[0], s.offset())
		s.putDog(t, reverse, theirs.Nodes[2], s.offset()) // our dog writes the tree itself
	}
	check(theirs, reverse)
	theirs.Shutdown()
	forgetDriver(t, ours)

	ours = ours.With(t, programs)
	ours.StartAll()
	copyNodes(mixed, ours)
	check(ours, mixed)
	ours.Dog("vdi", "delete", "one")
	mixed.Dog("vdi", "delete", "two")
	nothingStored(t, ours)
}

// forgetDriver removes what the local driver shares between nodes that have all
// ended: the implementations' are not alike.
func forgetDriver(t *testing.T, c *harness.Cluster) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(c.Dir, "cluster")); err != nil {
		t.Fatal(err)
	}
}

// copyNodes lets a cluster run its programs against the nodes of another.
func copyNodes(to, from *harness.Cluster) { to.Nodes = from.Nodes }
