package tests_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"sheepdog/tests/harness"
)

// TestRecoveryDoesNotFillADisk adds a node whose disk has no room for all copies
// that should move there. Recovery stops in time and says so, clients go on, and
// with more room it ends.
func TestRecoveryDoesNotFillADisk(t *testing.T) {
	disks, dirs := newDisks(t, 4)
	c := harness.New(t, harness.Config{Nodes: 4, Dirs: dirs, Args: []string{"-V", "64", "--journal-size", "16M"}})
	for _, n := range c.Nodes[:3] {
		n.Start()
		c.WaitJoined()
	}
	c.Format(2, "-V")
	c.Dog("vdi", "create", "disk", "256M")
	content := bytes.Repeat([]byte("sixteen bytes..."), 16<<20)
	c.DogAt(c.Nodes[0], content, "vdi", "write", "disk")

	const mark = 128 << 20 // twice the reserve
	const capacity = mark + 16<<20 + 24<<20
	small := disks[3]
	small.SetCapacity(capacity)
	late := c.Nodes[3]
	late.Start()
	c.WaitJoined()
	c.Until("recovery to stop", func(context.Context) error {
		waiting := c.RunDog(late, nil, "node", "recovery", "waiting")
		health := c.RunDog(c.Nodes[0], nil, "cluster", "health")
		info := c.RunDog(c.Nodes[0], nil, "node", "info")
		if !strings.Contains(waiting.Stdout, "nearly full") || health.Code != 1 || !strings.Contains(health.Stdout, "nearly full") {
			return fmt.Errorf("waiting:\n%shealth:\n%sinfo:\n%s", waiting.Stdout, health.Stdout, info.Stdout)
		}
		return nil
	})
	if free := capacity - small.Used(); free < mark-8<<20 {
		t.Errorf("recovery has left %d MiB free of the disk, %d are to stay", free>>20, mark>>20)
	}
	// What clients ask for at this node is another matter: that may use all but the reserve.
	if got := c.DogAt(late, nil, "vdi", "read", "disk"); got != string(content) {
		t.Error("the disk cannot be read right while recovery waits for room")
	}
	newer := bytes.Repeat([]byte("with other bytes"), 1<<20)
	c.DogAt(c.Nodes[1], newer, "vdi", "write", "disk")
	copy(content, newer)

	small.SetCapacity(1 << 30)
	c.WaitRecovered()
	if got := c.DogAt(late, nil, "vdi", "read", "disk"); got != string(content) {
		t.Error("the disk has not what was written")
	}
	c.Check("disk")
	if r := c.RunDog(c.Nodes[0], nil, "cluster", "health"); r.Code != 0 {
		t.Errorf("health with more room: %s", r.Stdout)
	}
}
