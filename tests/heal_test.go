package tests_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"sheepdog/tests/harness"
)

// objectsOf returns how many objects n has on its disk.
func objectsOf(t *testing.T, n *harness.Node) int {
	t.Helper()
	count := 0
	err := filepath.WalkDir(filepath.Join(n.Dir, "obj"), func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil // it was removed meanwhile
		}
		if err == nil && d.Type().IsRegular() && objectName.MatchString(d.Name()) {
			count++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

var (
	objectName  = regexp.MustCompile(`^[0-9a-f]{16}$`)
	allCurrent  = regexp.MustCompile(`every copy of this node is current.*fetched=(\d+)`)
	waitingText = regexp.MustCompile(`healing waits for [^ ]+ another [0-9ms]+: [0-9]+ copies are missing`)
)

// fetchedAtLast returns how many objects n had fetched when all its copies were
// current the last time.
func fetchedAtLast(t *testing.T, n *harness.Node) int {
	t.Helper()
	all := allCurrent.FindAllStringSubmatch(n.Log(), -1)
	if len(all) == 0 {
		t.Fatalf("node %d has never had all copies:\n%s", n.ID, n.Log())
	}
	count, err := strconv.Atoi(all[len(all)-1][1])
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// TestAShortAbsenceMovesOnlyWhatWasWritten kills a node for a few seconds in a
// cluster that waits for those who leave.
func TestAShortAbsenceMovesOnlyWhatWasWritten(t *testing.T) {
	c := harness.Start(t, harness.Config{Nodes: 5})
	c.Format(3)
	if got := c.Dog("cluster", "recover", "delay"); got != "Cluster recovery delay: off\n" {
		t.Errorf("delay of a new cluster on one machine: %q", got)
	}
	if got := c.Dog("cluster", "recover", "delay", "10m"); got != "Cluster recovery delay: 10m\n" {
		t.Errorf("got %q", got)
	}
	c.Dog("vdi", "create", "disk", "64M")
	alive, gone := c.Nodes[0], c.Nodes[1]
	data := noise(64 << 20)
	c.DogAt(alive, data, "vdi", "write", "disk")
	c.WaitRecovered()
	before := make(map[*harness.Node]int)
	for _, n := range c.Nodes {
		before[n] = objectsOf(t, n)
	}
	gone.Kill()
	c.WaitRunning()
	c.Until("a cluster that waits", func(context.Context) error {
		r := c.RunDog(alive, nil, "cluster", "health")
		if r.Code != 1 || !waitingText.MatchString(r.Stdout) || strings.Contains(r.Stdout, "in recovery") {
			return fmt.Errorf("health: status %d\n%s", r.Code, r.Stdout)
		}
		return nil
	})
	if got := c.Dog("cluster", "info"); !regexp.MustCompile("\n\nNode " + gone.Addr() + " is absent: healing waits another (9m[0-9]+s|10m) for it\n$").MatchString(got) {
		t.Errorf("cluster info:\n%s", got)
	}
	if got := c.Dog("node", "recovery"); !regexp.MustCompile("objects wait for " + gone.Addr() + " for (9m[0-9]+s|10m)\n").MatchString(got) {
		t.Errorf("node recovery:\n%s", got)
	}
	for _, n := range c.Alive() {
		if got := objectsOf(t, n); got > before[n] {
			t.Errorf("node %d had %d objects and has %d, though the cluster waits", n.ID, before[n], got)
		}
	}
	copy(data, noise(4<<20))
	c.DogAt(alive, data[:4<<20], "vdi", "write", "disk", "0", "4M")
	if got := c.DogAt(c.Nodes[3], nil, "vdi", "read", "disk"); got != string(data) {
		t.Error("another node reads other data while the cluster waits")
	}
	gone.Start()
	c.WaitJoined()
	c.WaitRecovered()
	if got := fetchedAtLast(t, gone); got > 3 { // the object, perhaps the inode and what only the kill has made doubtful
		t.Errorf("one object was written while the node was away, and it fetched %d", got)
	}
	if r := c.RunDog(alive, nil, "cluster", "health"); r.Code != 0 {
		t.Errorf("health when it is back: %+v", r)
	}
	if got := c.DogAt(gone, nil, "vdi", "read", "disk"); got != string(data) {
		t.Error("the node that was away reads other data")
	}
	c.Check("disk")

	gone.Kill()
	c.WaitRunning()
	c.Dog("cluster", "recover", "delay", "3s")
	c.WaitRecovered()
	if r := c.RunDog(alive, nil, "cluster", "health"); r.Code != 0 {
		t.Errorf("health when the delay is over: %+v", r)
	}
	c.Check("disk")
}

// TestANodeIsMaintainedAndDrained takes nodes out of a cluster as an operator does.
func TestANodeIsMaintainedAndDrained(t *testing.T) {
	c := harness.Start(t, harness.Config{Nodes: 4})
	c.Format(2)
	c.Dog("vdi", "create", "disk", "64M")
	alive := c.Nodes[0]
	data := noise(64 << 20)
	c.DogAt(alive, data, "vdi", "write", "disk")
	c.WaitRecovered()

	kept := c.Nodes[1]
	c.Dog("node", "maintenance", kept.Addr(), "on", "1h")
	kept.Stop()
	c.WaitRunning()
	c.Until("a cluster that waits for the node that is maintained", func(context.Context) error {
		if got := c.Dog("cluster", "info"); !strings.Contains(got, "Node "+kept.Addr()+" is being maintained: healing waits another") {
			return errors.New(got)
		}
		return nil
	})
	time.Sleep(2 * time.Second) // in which nothing is to happen
	var rows []struct {
		Bytes uint64
		Later uint64 `json:"waiting_objects"`
	}
	if err := json.Unmarshal([]byte(c.Dog("node", "recovery", "--json")), &rows); err != nil || len(rows) == 0 {
		t.Fatalf("%d nodes wait (%v)", len(rows), err)
	}
	for i, r := range rows {
		if r.Later == 0 || r.Bytes > 4<<20 {
			t.Errorf("row %d: %+v", i, r)
		}
	}
	kept.Start()
	c.WaitJoined()
	c.WaitRecovered()
	if got := c.Dog("node", "maintenance"); got != "" {
		t.Errorf("maintenance of a node that is back: %s", got)
	}

	out := c.Nodes[3]
	if objectsOf(t, out) == 0 {
		t.Fatal("the node to be drained has nothing")
	}
	if got, want := c.Dog("node", "drain", out.Addr()), "Nothing depends on node "+out.Addr()+" any more, it may be stopped.\n"; got != want {
		t.Errorf("drain: %q, want %q", got, want)
	}
	c.Until("an empty disk", func(context.Context) error {
		if n := objectsOf(t, out); n > 0 {
			return fmt.Errorf("%d objects", n)
		}
		return nil
	})
	if got := c.Dog("cluster", "health"); !strings.Contains(got, "node "+out.Addr()+" is to hold nothing") {
		t.Errorf("health: %s", got)
	}
	if got := c.DogAt(out, nil, "vdi", "read", "disk"); got != string(data) {
		t.Error("the drained node reads other data")
	}
	out.Kill()
	c.WaitRunning()
	c.WaitRecovered()
	if got := fetchedAtLast(t, alive); got != 0 {
		t.Errorf("%d objects were fetched because of a node that had nothing", got)
	}
	c.Check("disk")

	c.Dog("node", "drain", c.Nodes[2].Addr())
	if r := c.RunDog(alive, nil, "node", "drain", kept.Addr()); r.Code != 1 || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, "in 1 zones") {
		t.Errorf("drain of the last but one: %+v", r)
	}
	c.Dog("node", "drain", c.Nodes[2].Addr(), "--undo")
	out.Start()
	c.WaitJoined()
	c.Dog("node", "drain", out.Addr(), "--undo")
	c.WaitRecovered()
	if n := objectsOf(t, out); n == 0 {
		t.Error("the node holds nothing after its drain was undone")
	}
	if got := c.DogAt(out, nil, "vdi", "read", "disk"); !bytes.Equal([]byte(got), data) {
		t.Error("the node reads other data in the end")
	}
	c.Check("disk")
}

// TestMachinesAreWaitedFor shows that a cluster of machines waits by default, and
// that what is set is known to nodes that come later.
func TestMachinesAreWaitedFor(t *testing.T) {
	h := startHosts(t, 3, 2)
	if got := h.Dog(1, nil, "cluster", "recover", "delay"); got != "Cluster recovery delay: 5m\n" {
		t.Errorf("by default: %q", got)
	}
	h.Dog(1, nil, "cluster", "recover", "delay", "1h30m")
	h.Nodes[2].Kill()
	h.WaitMembers([]int{0, 1}, []int{0, 1})
	h.Nodes[2].Start()
	h.WaitMembers([]int{0, 1, 2}, []int{0, 1, 2})
	h.Until("the delay to be known to a node that has started again", func(context.Context) error {
		if r := h.Run(2, nil, "cluster", "recover", "delay"); r.Stdout != "Cluster recovery delay: 1h30m\n" {
			return errors.New(r.Stdout + r.Stderr)
		}
		return nil
	})
}
