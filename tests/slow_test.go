package tests_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"sheepdog/tests/harness"
)

// A slow is what the tests look at of dog node slow --json.
type slow struct {
	Age    float64  `json:"age_seconds"`
	Op     string   `json:"op"`
	Object string   `json:"object"`
	Name   string   `json:"name"`
	State  string   `json:"state"`
	Waits  []string `json:"waits_for"`
	Epoch  uint32   `json:"epoch"`
	Client string   `json:"client"`
}

// slowAt returns the slow requests on node n.
func slowAt(t *testing.T, c *harness.Cluster, n *harness.Node) []slow {
	t.Helper()
	var rows []slow
	if err := json.Unmarshal([]byte(c.DogAt(n, nil, "node", "slow", n.Addr(), "--json")), &rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestARequestThatHangsIsTold stops a node, and with it writes that have to reach it:
// one of a client of the disk's owner, and one that another gateway forwards to that.
func TestARequestThatHangsIsTold(t *testing.T) {
	c := nbdCluster(t, 3, 3)
	c.Dog("vdi", "create", "disk", "64M")
	front, through, victim := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	dev, far := dialNBD(t, front, "disk"), dialNBD(t, through, "disk")
	block := make([]byte, 4096)
	if err := dev.WriteAt(t.Context(), block, 0); err != nil {
		t.Fatal(err)
	}
	if got := c.Dog("node", "slow"); !strings.HasPrefix(got, "No request") {
		t.Errorf("while nothing hangs:\n%s", got)
	}
	if err := victim.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	victim.Doomed = true
	written := make(chan error, 2)
	go func() { written <- dev.WriteAt(t.Context(), block, 0) }()
	go func() { written <- far.WriteAt(t.Context(), block, 4096) }()
	c.Until("the write to be slow", func(context.Context) error {
		rows, forwarded := slowAt(t, c, front), slowAt(t, c, through)
		if len(rows) < 2 || len(forwarded) < 1 {
			return fmt.Errorf("slow are %+v and %+v", rows, forwarded)
		}
		clients := map[string]bool{rows[0].Client: true, rows[1].Client: true}
		for _, r := range rows {
			if r.Op != "write" || r.Name != "disk" || r.State != "peer" || fmt.Sprint(r.Waits) != "["+victim.Addr()+"]" ||
				r.Epoch == 0 || r.Age < 1 || !strings.HasSuffix(r.Object, "00000000") {
				t.Fatalf("got %+v", r)
			}
		}
		if !clients["nbd unix"] || !clients["node "+through.Addr()] {
			t.Errorf("the clients are %v", clients)
		}
		if r := forwarded[0]; r.State != "owner" || fmt.Sprint(r.Waits) != "["+front.Addr()+"]" || r.Client != "nbd unix" {
			t.Errorf("where it was forwarded: %+v", r)
		}
		return nil
	})
	if r := c.RunDog(front, nil, "node", "slow"); r.Code == 0 || !strings.Contains(r.Stderr, "slow requests of node 2: ") || !strings.Contains(r.Stderr, "no answer in 3s") || !strings.Contains(r.Stdout, "peer "+victim.Addr()) {
		t.Errorf("of all nodes: %+v", r)
	}
	select {
	case err := <-written:
		t.Errorf("the write has ended: %v", err)
	default:
	}
	if err := victim.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-written; err != nil {
			t.Error(err)
		}
	}
	c.WaitRecovered()
	if got := c.Dog("node", "slow"); !strings.HasPrefix(got, "No request") {
		t.Errorf("when it goes on:\n%s", got)
	}
}
