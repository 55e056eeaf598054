package tests_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"sheepdog/tests/harness"
	"sheepdog/tests/native"
)

// TestAFlushTellsOfWritesThatDiedWithTheirOwner kills the gateway of a client
// that has not flushed, and all nodes that have copies. The client lives on: the
// first flush that it sends elsewhere fails, and it alone.
func TestAFlushTellsOfWritesThatDiedWithTheirOwner(t *testing.T) {
	c := harness.Start(t, harness.Config{Nodes: 4})
	c.Format(3)
	owner, alive := c.Nodes[0], c.Nodes[3]
	for _, tt := range []struct {
		name    string
		deaths  []*harness.Node
		reopens bool // a client that begins anew takes the disk over
		lost    bool
	}{
		{"all holders and the owner have died", c.Nodes[:3], false, true},
		{"they have died and the disk was opened anew", c.Nodes[:3], true, false},
		{"the owner has died", []*harness.Node{owner}, false, false},
		{"the owner and another have died", []*harness.Node{owner, c.Nodes[1]}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, name := t.Context(), fmt.Sprintf("disk%d", len(tt.name))
			c.Dog("vdi", "create", name, "16M")
			dev, err := native.Open(ctx, native.Config{Servers: []string{owner.Addr(), alive.Addr()}, WriteBack: true}, name)
			if err != nil {
				t.Fatal(err)
			}
			defer dev.Close()
			change(t, dev)
			flush(t, dev, false)
			change(t, dev)
			for _, n := range tt.deaths {
				n.Kill()
			}
			for _, n := range tt.deaths {
				n.Start()
			}
			c.WaitRecovered()
			if tt.reopens {
				lock(t, alive, name)
			}
			flush(t, dev, tt.lost)
			c.Until("the flush to be taken note of", dev.Flush)
			change(t, dev)
			flush(t, dev, false)
		})
	}
}

// change writes to the disk without a flush.
func change(t *testing.T, dev *native.Disk) {
	t.Helper()
	if err := dev.WriteAt(t.Context(), bytes.Repeat([]byte("data"), 1024), 0); err != nil {
		t.Fatal(err)
	}
}

// flush flushes the disk, and expects to be told of a loss or not.
func flush(t *testing.T, dev *native.Disk, lost bool) {
	t.Helper()
	var want error
	if lost {
		want = native.IOError
	}
	if err := dev.Flush(t.Context()); !errors.Is(err, want) {
		t.Errorf("flush: %v, want %v", err, want)
	}
}

// lock sends what QEMU sends when it opens a disk.
func lock(t *testing.T, n *harness.Node, name string) {
	t.Helper()
	conn, err := native.Dial(t.Context(), n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resp, err := conn.Do(t.Context(), &native.Request{Proto: 1, Op: native.OpLockVDI, Flags: native.FlagWrite, Data: append(native.Name(name), native.Name("")...)})
	if err == nil {
		err = resp.Err()
	}
	if err != nil {
		t.Fatalf("lock %s: %v", name, err)
	}
}
