package tests_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sheepdog/tests/harness"
)

// TestGossipMajorityLostForEver takes three of five machines away with their
// disks, has an operator force the other two to go on, and gives two of the three
// their old directories back: they were a majority of the old voters.
func TestGossipMajorityLostForEver(t *testing.T) {
	t.Parallel()             // most of it is waiting
	h := startHosts(t, 5, 4) // of each object the two that are left have a copy
	h.Until("five voters", func(context.Context) error {
		if got := h.Dog(0, nil, "cluster", "members", "-r"); strings.Count(got, " voter ") != 4 {
			return errors.New(got)
		}
		return nil
	})
	data := noise(9 << 20)
	h.Dog(4, nil, "vdi", "create", "disk", "32M")
	h.Dog(4, data, "vdi", "write", "disk", "0", "9M")
	lost, kept := []int{0, 1, 2}, []int{3, 4}
	for _, i := range lost {
		h.Nodes[i].Kill()
	}
	h.Nodes[4].Kill() // and one of the others starts without a majority
	h.Nodes[4].Start()
	h.Until("the loss", func(context.Context) error {
		r := h.Run(4, nil, "cluster", "members", "-r")
		if strings.Count(r.Stdout, "no answer") != 3 || strings.Count(r.Stdout, " ok\n") != 2 {
			return errors.New(r.Stdout + r.Stderr)
		}
		return nil
	})
	r := h.Run(4, []byte("no\n"), "cluster", "recover", "force")
	if r.Code == 0 || strings.Count(r.Stdout, "  - 10.11.12.") != 5 || !strings.Contains(r.Stdout, "lost the majority of its voters") {
		t.Errorf("the question is, with status %d,\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	begin := time.Now()
	h.Dog(4, nil, "cluster", "recover", "force", "-f")
	t.Logf("forced in %v", time.Since(begin).Round(time.Millisecond))
	h.WaitMembers(kept, kept)
	if got := h.Dog(3, nil, "vdi", "read", "disk", "0", "9M"); got != string(data) {
		t.Fatal("the nodes that are left read other data")
	}
	copy(data, noise(5<<20))
	h.Dog(3, data[:5<<20], "vdi", "write", "disk", "0", "5M")
	if r := h.Run(3, nil, "cluster", "recover", "force", "-f"); r.Code == 0 {
		t.Error("recovery can be forced though there is a majority")
	}

	old := []int{0, 1}
	for _, i := range old {
		h.Nodes[i].Start()
	}
	all := append(old, kept...)
	h.WaitMembers(all, all)
	for _, i := range all {
		if got := h.Dog(i, nil, "vdi", "read", "disk", "0", "9M"); got != string(data) {
			t.Fatalf("node %d reads other data after the return of old copies", i)
		}
	}
	h.Dog(0, nil, "vdi", "check", "disk")
}

// TestGossipForcedWhileTheMajorityLives has an operator force the minority of a
// parted cluster to go on, which nobody should do. Both sides serve until they
// meet. Then what was forced counts.
func TestGossipForcedWhileTheMajorityLives(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := startHosts(t, 3, 3)
	h.Dog(0, nil, "vdi", "create", "disk", "8M")
	h.Dog(0, noise(8<<20), "vdi", "write", "disk", "0", "8M")
	cut(t, h, []int{2}, []int{0, 1})
	h.Dog(0, noise(8<<20), "vdi", "write", "disk", "0", "8M")
	h.Nodes[1].Kill() // so that the epochs of that side grow
	h.Nodes[1].Start()
	h.WaitMembers([]int{0, 1}, []int{0, 1})
	h.Dog(1, noise(4<<20), "vdi", "write", "disk", "0", "4M")

	h.Dog(2, nil, "cluster", "recover", "force", "-f")
	data := noise(8 << 20)
	h.Dog(2, data, "vdi", "write", "disk", "0", "8M")
	heal(t, h)
	for i := range h.Nodes {
		if got := h.Dog(i, nil, "vdi", "read", "disk", "0", "8M"); got != string(data) {
			t.Errorf("node %d does not read what was written where recovery was forced", i)
		}
	}
	h.Dog(0, nil, "vdi", "check", "disk")
}

// TestGossipStartsWithoutALostMember stops a cluster as a whole, cleanly or by a
// power cut, and takes one of its three machines away for ever.
func TestGossipStartsWithoutALostMember(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		stop func(t *testing.T, h *harness.Hosts)
	}{
		{"after a shutdown", func(t *testing.T, h *harness.Hosts) {
			t.Helper()
			h.Dog(1, nil, "cluster", "shutdown")
			for _, n := range h.Nodes {
				if code, err := n.Wait(time.Minute); err != nil || code != 0 {
					t.Fatalf("node %d ended with status %d (%v)", n.ID, code, err)
				}
			}
		}},
		{"after a power cut", func(_ *testing.T, h *harness.Hosts) {
			for _, n := range h.Nodes {
				n.Kill()
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := startHosts(t, 3, 2)
			h.Until("three voters", func(context.Context) error {
				if got := h.Dog(0, nil, "cluster", "members", "-r"); strings.Count(got, " voter ") != 2 {
					return errors.New(got)
				}
				return nil
			})
			data := noise(4 << 20)
			h.Dog(0, nil, "vdi", "create", "disk", "8M")
			h.Dog(0, data, "vdi", "write", "disk", "0", "4M")
			tt.stop(t, h)
			left := []int{2, 1} // the first of the three, the seed, is lost
			for _, i := range left {
				h.Nodes[i].Start()
			}
			begin := time.Now()
			h.WaitMembers(left, left)
			awaitService(h, left)
			t.Logf("service without the lost node after %v", time.Since(begin).Round(time.Millisecond))
			if got := h.Dog(1, nil, "vdi", "read", "disk", "0", "4M"); got != string(data) {
				t.Error("the nodes that are left read other data")
			}
			h.Dog(2, data, "vdi", "write", "disk", "4M", "4M")
			h.Until("recovery", func(context.Context) error {
				if r := h.Run(1, nil, "cluster", "health"); r.Code != 0 {
					return errors.New(r.Stdout)
				}
				return nil
			})
		})
	}
}

// TestGossipNodesMove gives machines other addresses: one while the others go on,
// another one while all are off. Their seed is right no more.
func TestGossipNodesMove(t *testing.T) {
	t.Parallel() // most of it is waiting
	h := startHosts(t, 3, 2)
	h.Until("three voters", func(context.Context) error {
		if got := h.Dog(1, nil, "cluster", "members", "-r"); strings.Count(got, " voter ") != 2 {
			return errors.New(got)
		}
		return nil
	})
	data := noise(8 << 20)
	h.Dog(1, nil, "vdi", "create", "disk", "8M")
	h.Dog(1, data, "vdi", "write", "disk", "0", "8M")
	whole := func(addrs ...string) {
		t.Helper()
		took := h.Until("all members, where they are now", func(context.Context) error {
			got := h.Run(1, nil, "cluster", "members", "-r").Stdout
			for _, addr := range addrs {
				if strings.Count(got, addr) != 1 || strings.Count(got, " ok\n") != len(addrs) {
					return errors.New(got)
				}
			}
			return nil
		})
		t.Logf("whole after %v", took.Round(time.Millisecond))
		if r := h.Run(1, nil, "vdi", "read", "disk", "0", "8M"); r.Stdout != string(data) {
			t.Errorf("the disk has other data (status %d) %s", r.Code, r.Stderr)
		}
	}
	h.Nodes[0].Kill()
	h.WaitMembers([]int{1, 2}, []int{1, 2})
	copy(data, noise(4<<20))
	h.Dog(1, data[:4<<20], "vdi", "write", "disk", "0", "4M")
	h.Nodes[0].Port.Number += 50
	h.Nodes[0].Start()
	whole(harness.HostAddr(0)+":7050", harness.HostAddr(1)+":7000", harness.HostAddr(2)+":7000")

	for _, n := range h.Nodes {
		n.Kill()
	}
	h.Nodes[2].Port.Number += 50
	for _, n := range h.Nodes {
		n.Start()
	}
	whole(harness.HostAddr(0)+":7050", harness.HostAddr(1)+":7000", harness.HostAddr(2)+":7050")
	h.Until("nothing that waits", func(context.Context) error {
		if got := h.Run(1, nil, "node", "recovery", "waiting"); strings.Count(got.Stdout, "\n") != 1 {
			return errors.New(got.Stdout)
		}
		return nil
	})
	h.Dog(1, nil, "vdi", "check", "disk")
}
