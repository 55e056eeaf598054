package tests_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"sheepdog/tests/harness"
	"sheepdog/tests/native"
)

const (
	opGetObjList  = 0xA1
	opReadDelVDIs = 0xC9

	kindBits = 0xF8 << 56 // of an object id; none are set in that of a data object
	inodeBit = 1 << 63
	attrBit  = 1 << 61
	maxVDIs  = 1 << 24
)

// ask sends one request to node n and returns the data of the answer.
func ask(t *testing.T, n *harness.Node, r native.Request) []byte {
	t.Helper()
	data, err := native.Ask(t.Context(), n.Addr(), func(ctx context.Context, c *native.Conn) ([]byte, error) {
		resp, err := c.Do(ctx, &r)
		if err == nil {
			err = resp.Err()
		}
		if err != nil {
			return nil, err
		}
		return resp.Data, nil
	})
	if err != nil {
		t.Fatalf("request %#02x to node %d: %v", r.Op, n.ID, err)
	}
	return data
}

// stored returns the objects of node n that are no inodes and no attributes.
func stored(t *testing.T, n *harness.Node) []uint64 {
	t.Helper()
	b := ask(t, n, native.Request{Proto: 10, Op: opGetObjList, Into: make([]byte, 1<<20)})
	var ids []uint64
	for ; len(b) >= 8; b = b[8:] {
		if id := binary.LittleEndian.Uint64(b); id&(inodeBit|attrBit) == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// referenced returns the data objects that the maps of all VDIs name, deleted
// ones left out.
func referenced(t *testing.T, n *harness.Node) map[uint64]bool {
	t.Helper()
	used := ask(t, n, native.Request{Proto: 1, Op: native.OpReadVDIs, Into: make([]byte, maxVDIs/8)})
	deleted := ask(t, n, native.Request{Proto: 10, Op: opReadDelVDIs, Into: make([]byte, maxVDIs/8)})
	refs := make(map[uint64]bool)
	for v := range uint32(maxVDIs) {
		if (used[v/8]&^deleted[v/8])>>(v%8)&1 == 0 {
			continue
		}
		b := ask(t, n, native.Request{
			Op: native.OpRead, Flags: native.FlagDirect, Body: native.ObjectBody(native.InodeID(v), 0, 0, 0),
			Into: make([]byte, native.InodeClientSize),
		})[native.InodeHeaderSize:]
		for i := 0; i < len(b); i += 4 {
			if owner := binary.LittleEndian.Uint32(b[i:]); owner != 0 {
				refs[native.DataID(owner, uint32(i/4))] = true
			}
		}
	}
	return refs
}

// wantNoLeak fails the test if a node has an object that no map names, or if
// all nodes lack one that a map names.
func wantNoLeak(t *testing.T, c *harness.Cluster) {
	t.Helper()
	refs := referenced(t, c.Nodes[0])
	have := make(map[uint64]bool)
	for _, n := range c.Nodes {
		for _, id := range stored(t, n) {
			have[id] = true
			if !refs[id&^kindBits] {
				t.Errorf("node %d has object %016x, which no image refers to", n.ID, id)
			}
		}
	}
	for id := range refs {
		if !have[id] {
			t.Errorf("object %016x is in a map, and no node has it", id)
		}
	}
}

// scatter writes a few bytes into each of the first n objects of a disk.
func scatter(t *testing.T, c *harness.Cluster, name, text string, n int) {
	t.Helper()
	d, err := native.Open(t.Context(), native.Config{Servers: c.Addrs(0)}, name)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for i := range n {
		p := fmt.Appendf(nil, "%-60s%4d", text, i)
		if err := d.WriteAt(t.Context(), p, int64(i)*d.ObjectSize()+512); err != nil {
			t.Fatal(err)
		}
	}
}

// gather returns what scatter has written into the first n objects of a disk, as
// every node shows it.
func gather(t *testing.T, c *harness.Cluster, name string, n int) string {
	t.Helper()
	var b strings.Builder
	for at := range c.Nodes {
		d, err := native.Open(t.Context(), native.Config{Servers: c.Addrs(at)}, name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			p := make([]byte, 4096)
			if err := d.ReadAt(t.Context(), p, int64(i)*d.ObjectSize()); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%q\n", strings.Trim(string(p), "\x00"))
		}
		d.Close()
	}
	return b.String()
}

// TestSweepRemovesOnlyLeaks makes objects that are in no map, as a client does
// that dies before it has entered them.
func TestSweepRemovesOnlyLeaks(t *testing.T) {
	c := harness.Start(t, harness.Config{})
	c.Format(2)
	c.Dog("vdi", "create", "disk", "64M")
	scatter(t, c, "disk", "content", 4)
	vid := vidOf(t, c, "disk")
	content := gather(t, c, "disk", 4)
	clean := c.Dog("cluster", "check")

	leak := native.DataID(vid, 9)
	ask(t, c.Nodes[1], native.Request{
		Op: native.OpCreateAndWrite, Flags: native.FlagWrite | native.FlagDirect, Data: make([]byte, 512),
		Body: native.ObjectBody(leak, 0, 0, 0),
	})
	report := fmt.Sprintf("%sleaked object %016x\nfound 1 leaked object(s), which no image refers to\n", clean, leak)
	if r := c.RunDog(c.Nodes[0], nil, "cluster", "check"); r.Code != 1 || r.Stdout != report {
		t.Errorf("dog cluster check: got %+v, want status 1 and %q", r, report)
	}
	want := report + fmt.Sprintf("removed object %016x\n", leak)
	if got := c.Dog("cluster", "check", "--sweep", "-f"); got != want {
		t.Errorf("dog cluster check --sweep: got %q, want %q", got, want)
	}
	if got := c.Dog("cluster", "check"); got != clean {
		t.Errorf("dog cluster check after the sweep: got %q, want %q", got, clean)
	}
	wantNoLeak(t, c)
	if got := gather(t, c, "disk", 4); got != content {
		t.Errorf("the content of the disk was\n%sand is\n%s", content, got)
	}
}

// vidOf returns the number of a working VDI.
func vidOf(t *testing.T, c *harness.Cluster, name string) uint32 {
	t.Helper()
	b, err := native.Ask(t.Context(), c.Nodes[0].Addr(), func(ctx context.Context, conn *native.Conn) (uint32, error) {
		resp, err := conn.Do(ctx, &native.Request{
			Proto: 1, Op: native.OpGetVDIInfo, Flags: native.FlagWrite, Data: append(native.Name(name), native.Name("")...),
		})
		if err == nil {
			err = resp.Err()
		}
		if err != nil {
			return 0, err
		}
		return binary.LittleEndian.Uint32(resp.Body[4:]), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSweepAfterDeathInDeletion kills all sheep in the middle of a deletion, of
// a disk whose objects a clone shares, again and again. A sweep then leaves no
// object of what was deleted, and nothing that lives has changed.
func TestSweepAfterDeathInDeletion(t *testing.T) {
	rounds, objects := 3, 120
	if testing.Short() {
		rounds, objects = 1, 60
	}
	rng := rand.New(rand.NewPCG(seed(t), 2))
	c := harness.Start(t, harness.Config{})
	c.Format(2)
	for round := range rounds {
		name, clone := fmt.Sprintf("big%d", round), fmt.Sprintf("clone%d", round)
		c.Dog("vdi", "create", name, "512M")
		scatter(t, c, name, "base", objects)
		c.Dog("vdi", "snapshot", "-s", "one", name)
		c.Dog("vdi", "clone", "-s", "one", name, clone)
		scatter(t, c, clone, "clone", objects/3)
		scatter(t, c, name, "head", objects)
		content := gather(t, c, clone, objects)

		killInDeletion(t, c, name, objects, rng.IntN(objects))
		c.Dog("vdi", "delete", name)
		c.Dog("vdi", "delete", "-s", "one", name)
		swept := c.Dog("cluster", "check", "--sweep", "-f")
		t.Logf("round %d: %d objects were swept", round, strings.Count(swept, "removed object"))
		wantNoLeak(t, c)
		if got := gather(t, c, clone, objects); got != content {
			t.Errorf("round %d: the content of the clone was\n%sand is\n%s", round, content, got)
		}
		c.Check(clone)
		c.Dog("vdi", "delete", clone)
		if ids := stored(t, c.Nodes[0]); len(ids) > 0 {
			t.Errorf("round %d: node 0 still has %d objects when all is deleted, among them %016x", round, len(ids), ids[0])
		}
	}
}

// killInDeletion deletes a disk, kills all nodes when so many of its own objects
// are gone, and starts them again.
func killInDeletion(t *testing.T, c *harness.Cluster, name string, objects, after int) {
	t.Helper()
	vid := vidOf(t, c, name)
	left := func() (n int) {
		for _, id := range stored(t, c.Nodes[0]) {
			if id>>32 == uint64(vid) {
				n++
			}
		}
		return n
	}
	before := left()
	done := make(chan harness.Run, 1)
	go func() { done <- c.RunDog(c.Nodes[1], nil, "vdi", "delete", name) }()
	at := left()
	for at > before-before*after/objects-1 && len(done) == 0 {
		at = left()
	}
	c.Kill()
	t.Logf("killed all nodes when %d of %d objects were left; dog vdi delete: %+v", at, before, <-done)
	for _, n := range c.Nodes {
		n.Start()
	}
	c.WaitRecovered()
}
