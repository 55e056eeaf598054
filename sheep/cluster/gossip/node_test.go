package gossip_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/cluster/gossip"
)

// patience is how long a test waits for what must happen.
const patience = 40 * time.Second

// A machine remembers the messages it was told, and who is a member.
type machine struct {
	mu       sync.Mutex
	index    uint64
	messages []string
	members  []sheep.Incarnation
	restored int
}

func (m *machine) Restore(index uint64, state []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index, m.messages, m.members = index, nil, nil
	for line := range strings.Lines(string(state)) {
		line = strings.TrimSpace(line)
		if member, ok := strings.CutPrefix(line, "member "); ok {
			var inc uint64
			fmt.Sscanf(member, "%x", &inc)
			m.members = append(m.members, sheep.Incarnation(inc))
		} else {
			m.messages = append(m.messages, line)
		}
	}
	if len(state) > 0 {
		m.restored++
	}
	return nil
}

func (m *machine) Apply(e cluster.Entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.Index <= m.index {
		panic(fmt.Sprintf("index %d after %d", e.Index, m.index))
	}
	m.index = e.Index
	switch e.Kind {
	case cluster.EntryJoin:
		m.members = append(m.members, e.Member)
	case cluster.EntryLeave:
		m.members = slices.DeleteFunc(m.members, func(inc sheep.Incarnation) bool { return inc == e.Member })
	default:
		m.messages = append(m.messages, string(e.Data))
	}
}

func (m *machine) Snapshot() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, inc := range m.members {
		fmt.Fprintf(&b, "member %v\n", inc)
	}
	for _, text := range m.messages {
		fmt.Fprintln(&b, text)
	}
	return []byte(b.String())
}

func (m *machine) state() (members int, messages []string, index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.members), slices.Clone(m.messages), m.index
}

// A node is one node directory and the driver that lives in it.
type node struct {
	t   *testing.T
	cfg gossip.Config
	inc sheep.Incarnation // of the latest life

	*gossip.Driver
	*machine
	cancel context.CancelFunc
	done   chan error
}

var lives struct {
	sync.Mutex
	n uint64
}

// newNode makes a node with a port of its own.
func newNode(t *testing.T, seeds ...string) *node {
	cfg := hasty()
	cfg.Dir, cfg.Seeds = t.TempDir()+"/gossip", seeds
	n := &node{t: t, cfg: cfg}
	n.move()
	return n
}

// move gives the node another address.
func (n *node) move() {
	at := netip.AddrPortFrom(loopback, freePort())
	n.cfg.Bind, n.cfg.Advertise = at, at
}

func (n *node) addr() string { return n.cfg.Advertise.String() }

// start starts a life of the node.
func (n *node) start() *node {
	lives.Lock()
	lives.n++
	n.inc = sheep.Incarnation(uint64(time.Now().UnixNano())<<8 | lives.n&0xff)
	lives.Unlock()
	return n.live()
}

// live starts the driver with the incarnation that the node has.
func (n *node) live() *node {
	ctx, cancel := context.WithCancel(context.Background())
	n.Driver, n.machine = gossip.New(n.cfg), &machine{}
	n.cancel, n.done = cancel, make(chan error, 1)
	d, m, done, inc := n.Driver, n.machine, n.done, n.inc
	go func() {
		done <- d.Run(ctx, cluster.Self{Incarnation: inc, Hello: []byte("hello")}, m)
		close(done)
	}()
	n.t.Cleanup(func() {
		cancel()
		<-done
	})
	return n
}

// stop ends the life.
func (n *node) stop() {
	n.t.Helper()
	n.cancel()
	if err := <-n.done; err != nil {
		n.t.Errorf("Run returned %v", err)
	}
}

// begin starts a cluster of count nodes.
func begin(t *testing.T, count int) []*node {
	t.Helper()
	first := newNode(t).start()
	nodes := []*node{first}
	for range count - 1 {
		nodes = append(nodes, newNode(t, first.addr()).start())
	}
	awaitMembers(t, nodes, count)
	return nodes
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within %v", what, patience)
		}
		time.Sleep(10 * time.Millisecond) // between two looks
	}
}

func awaitMembers(t *testing.T, nodes []*node, count int) {
	t.Helper()
	for i, n := range nodes {
		await(t, fmt.Sprintf("%d members at node %d", count, i), func() bool {
			members, _, _ := n.state()
			return members == count && n.Lease() == nil
		})
	}
}

// propose logs a message at each node and returns what all have been told then.
func propose(t *testing.T, nodes []*node, name string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for i, n := range nodes {
		if err := n.Propose(ctx, fmt.Appendf(nil, "%s-%d", name, i)); err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
	}
	var all []string
	for i, n := range nodes {
		if err := n.Sync(ctx); err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
		_, got, _ := n.state()
		if i == 0 {
			all = got
		}
		if !slices.Equal(got, all) {
			t.Fatalf("node %d was told %v, node 0 %v", i, got, all)
		}
	}
	for i := range nodes {
		if text := fmt.Sprintf("%s-%d", name, i); !slices.Contains(all, text) {
			t.Fatalf("%s is missing in %v", text, all)
		}
	}
	return all
}

// voters returns how many nodes vote and how many follow, as the leader says.
func voters(t *testing.T, n *node) (votes, follow int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	peers, err := n.Peers(ctx)
	if err != nil || !slices.ContainsFunc(peers, func(p cluster.Peer) bool { return p.Leader }) {
		return 0, 0 // no leader at the moment
	}
	for _, p := range peers {
		if p.Voter {
			votes++
		} else {
			follow++
		}
	}
	return votes, follow
}

func awaitVoters(t *testing.T, n *node, votes, follow int) {
	t.Helper()
	await(t, fmt.Sprintf("%d voters and %d followers", votes, follow), func() bool {
		v, f := voters(t, n)
		return v == votes && f == follow
	})
}
