package gossip_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sheepdog/sheep/cluster/gossip"
)

func TestKeyIsNeeded(t *testing.T) {
	t.Parallel()
	key, other := []byte("0123456789abcdef"), []byte("0123456789abcdeF")
	first := newNode(t)
	first.cfg.Key = key
	first.start()
	awaitMembers(t, []*node{first}, 1)
	var strangers []*node
	for _, k := range [][]byte{nil, other} {
		n := newNode(t, first.addr())
		n.cfg.Key = k
		strangers = append(strangers, n.start())
	}
	friend := newNode(t, first.addr())
	friend.cfg.Key = key
	friend.start()
	awaitMembers(t, []*node{first, friend}, 2)
	propose(t, []*node{first, friend}, "secret")
	for _, n := range strangers {
		if members, messages, _ := n.state(); members != 0 || len(messages) != 0 || n.Lease() == nil {
			t.Errorf("a stranger was told of %d members and %v", members, messages)
		}
	}
	peers, err := first.Peers(t.Context())
	if err != nil || len(peers) != 2 {
		t.Errorf("the cluster knows %+v (%v)", peers, err)
	}
}

func TestNodeWithoutKeyIsNotHeardByOneWithKey(t *testing.T) {
	t.Parallel()
	first := newNode(t).start()
	awaitMembers(t, []*node{first}, 1)
	n := newNode(t, first.addr())
	n.cfg.Key = []byte("0123456789abcdef")
	n.start()
	second := newNode(t, first.addr()).start()
	awaitMembers(t, []*node{first, second}, 2)
	if members, _, _ := n.state(); members != 0 {
		t.Errorf("the node with a key was told of %d members", members)
	}
}

func TestNodeOfAnotherClusterIsRefused(t *testing.T) {
	t.Parallel()
	a, b := newNode(t).start(), newNode(t).start()
	awaitMembers(t, []*node{a}, 1)
	awaitMembers(t, []*node{b}, 1)
	c := newNode(t, a.addr()).start()
	awaitMembers(t, []*node{a, c}, 2)
	c.stop()
	a.stop() // nobody of its cluster is left, and then it asks the other
	c.cfg.Seeds = []string{b.addr()}
	c.start()
	select {
	case err := <-c.done:
		if err == nil || !strings.Contains(err.Error(), "another cluster") {
			t.Errorf("Run returned %v", err)
		}
	case <-time.After(patience):
		t.Error("the node of another cluster was not refused")
	}
}

func TestSeedsMayNameTheNodeItself(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.cfg.Seeds = []string{n.addr(), fmt.Sprintf("localhost:%d", n.cfg.Advertise.Port())}
	n.start()
	awaitMembers(t, []*node{n}, 1)
}

func TestConfigThatCannotWorkIsRefused(t *testing.T) {
	tests := []struct {
		name   string
		change func(*gossip.Config)
	}{
		{"expulsion before the end of the lease", func(c *gossip.Config) { c.ExpelAfter = c.Lease }},
		{"a lease that is not renewed in time", func(c *gossip.Config) { c.Heartbeat = c.Lease }},
		{"no address", func(c *gossip.Config) { c.Advertise = netip.AddrPort{} }},
		{"a short key", func(c *gossip.Config) { c.Key = []byte("short") }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := newNode(t)
			test.change(&n.cfg)
			n.start()
			if err := <-n.done; err == nil {
				t.Error("Run returned nil")
			}
		})
	}
}
