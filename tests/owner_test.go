package tests_test

import (
	"encoding/json"
	"testing"

	"sheepdog/tests/harness"
)

// An owned is what the tests look at of who owns a disk.
type owned struct {
	Owner      string `json:"owner"`
	Generation uint64 `json:"generation"`
}

// ownerOf returns who owns a disk as node n sees it, after dog vdi object location
// and dog vdi list have said the same. Whoever looks reads the inode, and a disk goes
// to the gateway through which it is read when its owner's clients are idle: n is
// the owner, or there is none.
func ownerOf(t *testing.T, c *harness.Cluster, n *harness.Node, disk string) owned {
	t.Helper()
	var one owned
	var list []owned
	for args, into := range map[[3]string]any{{"object", "location", disk}: &one, {"list", disk, "-r"}: &list} {
		out := c.DogAt(n, nil, "vdi", args[0], args[1], args[2], "--json")
		if err := json.Unmarshal([]byte(out), into); err != nil {
			t.Fatalf("%v: %v in\n%s", args, err, out)
		}
	}
	if len(list) != 1 || list[0] != one {
		t.Errorf("location says %+v, list %+v", one, list)
	}
	return one
}

func TestWhoOwnsADiskIsTold(t *testing.T) {
	c := harness.Start(t, harness.Config{Nodes: 3})
	c.Format(2)
	first, second := c.Nodes[0], c.Nodes[1]
	c.DogAt(first, nil, "vdi", "create", "disk", "8M")
	if got := ownerOf(t, c, second, "disk"); got != (owned{}) {
		t.Errorf("before the first write: %+v", got)
	}
	c.DogAt(first, make([]byte, 4096), "vdi", "write", "disk")
	before := ownerOf(t, c, first, "disk")
	if before.Owner != first.Addr() || before.Generation == 0 {
		t.Errorf("after the first write: %+v", before)
	}
	first.Kill()
	c.WaitRecovered()
	c.DogAt(second, make([]byte, 4096), "vdi", "write", "disk")
	if got := ownerOf(t, c, second, "disk"); got.Owner != second.Addr() || got.Generation <= before.Generation {
		t.Errorf("after the death of the owner and another write: %+v, before %+v", got, before)
	}
}
