package tests_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"sheepdog/tests/harness"
)

// TestWhatWaitsForAbsentNodesIsTold has the only nodes with the last writes be
// away: who holds older copies, or may not know of all objects, waits, says so, and
// names whom it waits for.
func TestWhatWaitsForAbsentNodesIsTold(t *testing.T) {
	c := harness.Start(t, harness.Config{Nodes: 4})
	c.Format(2)
	c.Dog("vdi", "create", "-z", "20", "disk", "64M") // so many objects that some lie as they should
	alive, stale := c.Nodes[3], c.Nodes[1]
	c.DogAt(alive, make([]byte, 64<<20), "vdi", "write", "disk")
	stale.Kill()
	newer := bytes.Repeat([]byte("newer..."), 8<<20)
	c.DogAt(alive, newer, "vdi", "write", "disk")
	newest := []*harness.Node{c.Nodes[0], c.Nodes[2]}
	for _, n := range newest {
		n.Kill()
	}
	stale.Start()
	c.WaitJoined()
	c.Until("the objects that wait to be told", func(context.Context) error {
		health := c.RunDog(alive, nil, "cluster", "health")
		list := c.RunDog(alive, nil, "node", "recovery", "waiting")
		ok := health.Code == 1 && strings.HasPrefix(health.Stdout, "degraded\n") && strings.Contains(health.Stdout, "objects current")
		for _, n := range newest { // of the objects, and of those that nobody knows
			ok = ok && strings.Contains(health.Stdout, n.Addr()) && strings.Contains(list.Stdout, n.Addr())
		}
		if !ok {
			return fmt.Errorf("health %d:\n%swaiting:\n%s", health.Code, health.Stdout, list.Stdout)
		}
		return nil
	})
	for _, n := range newest {
		n.Start()
	}
	c.WaitRecovered()
	if r := c.RunDog(alive, nil, "cluster", "health"); r.Code != 0 || !strings.HasPrefix(r.Stdout, "ok\n") {
		t.Errorf("health when all are back: %+v", r)
	}
	if list := c.Dog("node", "recovery", "waiting"); strings.Count(list, "\n") != 1 {
		t.Errorf("what waits when all are back:\n%s", list)
	}
	if got := c.DogAt(stale, nil, "vdi", "read", "disk"); got != string(newer) {
		t.Error("the disk has not what was written last")
	}
	c.Check("disk")
}
