package tests_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/native"
)

// Times that docs/membership.md promises, with room for a busy machine.
const (
	joinBound  = 5 * time.Second  // a cluster of five, from the first start
	deathBound = 15 * time.Second // from a death to the epoch without the dead one
	lease      = 3 * time.Second  // at least: a lease of 4 s may have been renewed up to 500 ms before the cut
)

// gossipArgs makes the hosts a cluster with one seed.
func gossipArgs(more ...string) func(i int) []string {
	return func(i int) []string {
		if i == 0 {
			return append([]string{"-c", "gossip"}, more...)
		}
		return append([]string{"-c", "gossip:" + harness.HostAddr(0)}, more...)
	}
}

// startHosts starts a cluster of hosts and formats it.
func startHosts(t *testing.T, count, copies int, more ...string) *harness.Hosts {
	t.Helper()
	return startHostsWith(t, count, copies, gossipArgs(more...))
}

// startHostsWith does so with the arguments that args returns for each host.
func startHostsWith(t *testing.T, count, copies int, args func(i int) []string) *harness.Hosts {
	t.Helper()
	h, took := formHosts(t, count, copies, args)
	t.Logf("a cluster of %d after %v", count, took.Round(time.Millisecond))
	return h
}

// formHosts returns how long it took, too, until all were members.
func formHosts(t *testing.T, count, copies int, args func(i int) []string) (*harness.Hosts, time.Duration) {
	t.Helper()
	h := harness.NewHosts(t, count, args)
	for _, n := range h.Nodes {
		n.Start()
	}
	all := hostsUpTo(count)
	took := h.WaitMembers(all, all)
	h.Dog(0, nil, "cluster", "format", "-c", string(rune('0'+copies)))
	awaitService(h, all)
	return h, took
}

// awaitService waits until hosts serve.
func awaitService(h *harness.Hosts, hosts []int) {
	h.Until("service", func(ctx context.Context) error {
		for _, i := range hosts {
			s, err := h.Stat(ctx, i)
			if err == nil && s.Result != native.Success {
				err = s.Result
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func hostsUpTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// without returns the hosts up to n but one.
func without(n, gone int) []int {
	var rest []int
	for i := range n {
		if i != gone {
			rest = append(rest, i)
		}
	}
	return rest
}

// TestGossipClusterSurvives kills one of five machines, cuts two off, and has
// them come back.
func TestGossipClusterSurvives(t *testing.T) {
	h, took := formHosts(t, 5, 3, gossipArgs())
	t.Logf("a cluster of 5 after %v", took.Round(time.Millisecond))
	if took > joinBound && !harness.Race() {
		t.Errorf("that took more than %v", joinBound)
	}
	all := hostsUpTo(5)
	h.Until("five voters, one of whom leads", func(context.Context) error {
		got := h.Dog(2, nil, "cluster", "members", "-r")
		if strings.Count(got, " leader ") != 1 || strings.Count(got, " voter ") != 4 || strings.Count(got, " ok\n") != 5 {
			return errors.New(got)
		}
		return nil
	})
	data := noise(9 << 20)
	h.Dog(1, nil, "vdi", "create", "disk", "32M")
	h.Dog(1, data, "vdi", "write", "disk", "0", "9M")
	if got := h.Dog(3, nil, "vdi", "read", "disk", "0", "9M"); got != string(data) {
		t.Fatal("another node reads other data")
	}

	for _, victim := range []int{4, 0} { // the second one leads the cluster, most likely
		begin := time.Now()
		h.Nodes[victim].Kill()
		rest := without(5, victim)
		h.WaitMembers(rest, rest)
		took := time.Since(begin)
		t.Logf("declared dead after %v", took.Round(time.Millisecond))
		if took > deathBound {
			t.Errorf("that took more than %v", deathBound)
		}
		copy(data, noise(5<<20))
		h.Dog(2, data[:5<<20], "vdi", "write", "disk", "0", "5M")
		if got := h.Dog(3, nil, "vdi", "read", "disk", "0", "9M"); got != string(data) {
			t.Fatal("after a death another node reads other data")
		}
		h.Nodes[victim].Start()
		h.WaitMembers(all, all)
	}
	h.Dog(1, nil, "vdi", "check", "disk")
}

// TestGossipMinorityDoesNotServe cuts some of five machines off. Their gateways
// answer no I/O from the end of their leases on, the majority goes on, and when
// the cut heals all are one cluster again without anybody's help.
func TestGossipMinorityDoesNotServe(t *testing.T) {
	t.Run("one machine, which leads", func(t *testing.T) {
		h := startHosts(t, 5, 3)
		data := noise(4 << 20)
		h.Dog(3, nil, "vdi", "create", "disk", "32M")
		h.Dog(3, data, "vdi", "write", "disk", "0", "4M")
		cut(t, h, []int{0}, []int{1, 2, 3, 4})
		data = noise(4 << 20)
		h.Dog(3, data, "vdi", "write", "disk", "0", "4M")
		refuse(t, h, []int{0})
		heal(t, h)
		for i := range h.Nodes {
			if got := h.Dog(i, nil, "vdi", "read", "disk", "0", "4M"); got != string(data) {
				t.Errorf("node %d reads other data after the cut", i)
			}
		}
	})
	t.Run("two machines", func(t *testing.T) {
		h := startHosts(t, 5, 3)
		data := noise(4 << 20)
		h.Dog(3, nil, "vdi", "create", "disk", "32M")
		h.Dog(3, data, "vdi", "write", "disk", "0", "4M")
		cut(t, h, []int{3, 1}, []int{0, 2, 4})
		refuse(t, h, []int{3, 1})
		heal(t, h)
		for i := range h.Nodes {
			if got := h.Dog(i, nil, "vdi", "read", "disk", "0", "4M"); got != string(data) {
				t.Errorf("node %d reads other data after the cut", i)
			}
		}
	})
}

// TestGossipReplacedVoterComesBack cuts a voter off until another node has its
// place, so that Raft sends it nothing when the cut heals, and another node leads
// than the one that it knows.
func TestGossipReplacedVoterComesBack(t *testing.T) {
	h := startHosts(t, 6, 3)
	roles := func(i int) map[string]string {
		var rows []struct{ Node, Role string }
		if err := json.Unmarshal([]byte(h.Dog(i, nil, "cluster", "members", "--json")), &rows); err != nil {
			t.Fatal(err)
		}
		all := make(map[string]string)
		for _, r := range rows {
			all[r.Node] = r.Role
		}
		return all
	}
	voters := func(i int) int {
		n := 0
		for _, role := range roles(i) {
			if role != "follower" {
				n++
			}
		}
		return n
	}
	h.Until("five voters", func(context.Context) error {
		if n := voters(0); n != 5 {
			return fmt.Errorf("%d vote", n)
		}
		return nil
	})
	first := func(role string) int {
		return slices.IndexFunc(h.Nodes, func(n *harness.Node) bool { return roles(0)[harness.HostAddr(n.ID)+":7000"] == role })
	}
	victim, leader := first("voter"), first("leader")
	rest := without(6, victim)
	others := slices.DeleteFunc(slices.Clone(rest), func(i int) bool { return i == leader })
	cut(t, h, []int{victim}, rest)
	h.Until("a successor", func(context.Context) error {
		if all := roles(others[0]); all[harness.HostAddr(victim)+":7000"] != "" || voters(others[0]) != 5 {
			return fmt.Errorf("the members are %v", all)
		}
		return nil
	})
	h.Nodes[leader].Kill()
	h.WaitMembers(others, others)
	h.Nodes[leader].Start()
	h.WaitMembers(rest, rest)
	heal(t, h)
}

// cut parts a minority from a majority, which goes on, but not before the
// leases of the minority are over.
func cut(t *testing.T, h *harness.Hosts, minority, majority []int) {
	t.Helper()
	begin := time.Now()
	h.Part(minority...)
	h.WaitMembers(majority, majority)
	took := time.Since(begin)
	t.Logf("the majority goes on after %v", took.Round(time.Millisecond))
	if took > deathBound {
		t.Errorf("that took more than %v", deathBound)
	}
	if took < lease {
		t.Errorf("that is before the leases of the minority are over")
	}
}

// refuse checks that nodes answer no read.
func refuse(t *testing.T, h *harness.Hosts, nodes []int) {
	t.Helper()
	for _, i := range nodes {
		if _, err := readFirst(t, h, i, 2*time.Second); err == nil {
			t.Errorf("node %d of the minority answers a read", i)
		}
	}
}

// heal ends all cuts, and waits until the cluster is whole.
func heal(t *testing.T, h *harness.Hosts) {
	t.Helper()
	h.Heal()
	all := hostsUpTo(len(h.Nodes))
	took := h.WaitMembers(all, all)
	t.Logf("whole again %v after the cut has healed", took.Round(time.Millisecond))
	if took > deathBound {
		t.Errorf("that took more than %v", deathBound)
	}
}

// readFirst reads the begin of the disk through node i, over its UNIX socket.
// An error says that no answer came in time, or none with data.
func readFirst(t *testing.T, h *harness.Hosts, i int, patience time.Duration) ([]byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dev, err := native.Open(ctx, native.Config{Servers: []string{h.Nodes[i].Sock()}}, "disk")
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	b := make([]byte, 4096)
	return b, dev.ReadAt(ctx, b, 0)
}

// TestGossipGatewayMakesTheMajority has two storage nodes and a gateway: either
// storage node may die.
func TestGossipGatewayMakesTheMajority(t *testing.T) {
	args := gossipArgs()
	h := harness.NewHosts(t, 3, func(i int) []string {
		if i == 2 {
			return append(args(i), "-g")
		}
		return args(i)
	})
	for _, n := range h.Nodes {
		n.Start()
	}
	h.WaitMembers(hostsUpTo(3), hostsUpTo(3))
	h.Dog(0, nil, "cluster", "format", "-c", "2")
	data := noise(1 << 20)
	h.Until("service", func(context.Context) error {
		if h.Run(2, nil, "vdi", "create", "disk", "8M").Code != 0 {
			return errors.New("not yet")
		}
		return nil
	})
	h.Dog(2, data, "vdi", "write", "disk", "0", "1M")
	h.Nodes[0].Kill()
	h.WaitMembers([]int{1, 2}, []int{1, 2})
	if got := h.Dog(2, nil, "vdi", "read", "disk", "0", "1M"); got != string(data) {
		t.Error("the gateway reads other data")
	}
	h.Dog(2, data, "vdi", "write", "disk", "1M", "1M")
}

// TestGossipStartsAgain stops a cluster as a whole, cleanly and by a power cut,
// and starts its machines in another order.
func TestGossipStartsAgain(t *testing.T) {
	h := startHosts(t, 3, 2)
	data := noise(1 << 20)
	h.Dog(0, nil, "vdi", "create", "disk", "8M")
	h.Dog(0, data, "vdi", "write", "disk", "0", "1M")
	for round, order := range [][]int{{2, 1, 0}, {1, 0, 2}} {
		if round == 0 {
			h.Dog(1, nil, "cluster", "shutdown")
			for _, n := range h.Nodes {
				if code, err := n.Wait(time.Minute); err != nil || code != 0 {
					t.Fatalf("node %d ended with status %d (%v)", n.ID, code, err)
				}
			}
		} else {
			for _, n := range h.Nodes {
				n.Kill()
			}
		}
		for _, i := range order {
			h.Nodes[i].Start()
		}
		begin := time.Now()
		h.WaitMembers(order, order)
		awaitService(h, order)
		t.Logf("service after %v", time.Since(begin).Round(time.Millisecond))
		if got := h.Dog(order[0], nil, "vdi", "read", "disk", "0", "1M"); got != string(data) {
			t.Fatalf("other data after start %d", round)
		}
	}
}

// TestGossipKeyIsNeeded keeps a machine without the key out.
func TestGossipKeyIsNeeded(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("a key that nobody else has\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := gossipArgs("--cluster-key", key)
	h := harness.NewHosts(t, 3, func(i int) []string {
		if i == 2 {
			return gossipArgs()(i)
		}
		return args(i)
	})
	for _, n := range h.Nodes {
		n.Start()
	}
	h.WaitMembers([]int{0, 1}, []int{0, 1})
	h.Until("the complaint of the node without the key", func(context.Context) error {
		if !strings.Contains(h.Nodes[2].Log(), "found no cluster that lets this node in") {
			return errors.New("not yet")
		}
		return nil
	})
	h.WaitMembers([]int{0, 1}, []int{0, 1})
}
