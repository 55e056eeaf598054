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
	inc := sheep.Incarnation(uint64(time.Now().UnixNano())<<8 | lives.n&0xff)
	lives.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	n.Driver, n.machine = gossip.New(n.cfg), &machine{}
	n.cancel, n.done = cancel, make(chan error, 1)
	d, m, done := n.Driver, n.machine, n.done
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

func TestVotersAreOddAndReplaced(t *testing.T) {
	t.Parallel()
	first := newNode(t).start()
	nodes := []*node{first}
	for i, want := range [][2]int{{1, 0}, {1, 1}, {3, 0}, {3, 1}, {5, 0}, {5, 1}} {
		if i > 0 {
			nodes = append(nodes, newNode(t, first.addr()).start())
		}
		awaitMembers(t, nodes, i+1)
		awaitVoters(t, first, want[0], want[1])
	}
	nodes[2].stop()
	awaitVoters(t, first, 5, 0)
	first.stop() // the leader; the others remember each other
	rest := append(slices.Clone(nodes[1:2]), nodes[3:]...)
	awaitMembers(t, rest, 4)
	propose(t, rest, "later")
}

func TestEachNodeRestartsInTurn(t *testing.T) {
	t.Parallel()
	nodes := begin(t, 3)
	want := len(propose(t, nodes, "first"))
	for i, n := range nodes {
		n.stop()
		n.cfg.Seeds = nil // its peers are remembered
		n.start()
		awaitMembers(t, nodes, 3)
		want += 3
		got := propose(t, nodes, fmt.Sprintf("round%d", i))
		slices.Sort(got)
		if n := len(slices.Compact(got)); n != want { // one may have been logged twice
			t.Fatalf("%d messages after restart %d, want %d: %v", n, i, want, got)
		}
	}
}

func TestAllNodesRestartInAnyOrder(t *testing.T) {
	t.Parallel()
	nodes := begin(t, 3)
	awaitVoters(t, nodes[0], 3, 0)
	want := propose(t, nodes, "begin")
	for round, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 0, 2}} {
		var wg sync.WaitGroup
		for _, n := range nodes {
			wg.Go(n.stop)
		}
		wg.Wait()
		_, _, before := nodes[0].state()
		for _, i := range order {
			nodes[i].start()
		}
		awaitMembers(t, nodes, 3)
		got := propose(t, nodes, fmt.Sprintf("round%d", round))
		if !slices.Equal(got[:len(want)], want) {
			t.Fatalf("the log begins with %v after restart %d, it was %v", got, round, want)
		}
		if _, _, after := nodes[0].state(); after <= before {
			t.Fatalf("index %d after %d", after, before)
		}
		want = got
	}
}

func TestNodesMayMove(t *testing.T) {
	t.Parallel()
	nodes := begin(t, 3)
	awaitVoters(t, nodes[0], 3, 0)
	want := propose(t, nodes, "begin")
	nodes[1].stop()
	nodes[1].move()
	nodes[1].start()
	awaitMembers(t, nodes, 3)
	want = append(want, propose(t, nodes, "one")[len(want):]...)

	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(n.stop)
	}
	wg.Wait()
	for _, n := range nodes {
		n.move()
	}
	for _, n := range nodes { // none of the addresses that they remember is right
		n.cfg.Seeds = []string{nodes[0].addr()}
		n.start()
	}
	awaitMembers(t, nodes, 3)
	if got := propose(t, nodes, "all"); !slices.Equal(got[:len(want)], want) {
		t.Fatalf("the log begins with %v, it was %v", got, want)
	}
}

func TestSnapshotsShortenTheLog(t *testing.T) {
	t.Parallel()
	first := newNode(t)
	first.cfg.SnapshotAfter, first.cfg.Trailing = 20, 5
	first.start()
	awaitMembers(t, []*node{first}, 1)
	for i := range 60 {
		if err := first.Propose(t.Context(), fmt.Appendf(nil, "message %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Compact(); err != nil {
		t.Fatal(err)
	}
	second := newNode(t, first.addr()).start()
	awaitMembers(t, []*node{first, second}, 2)
	if second.restored == 0 {
		t.Error("the joiner was given no snapshot")
	}
	want := propose(t, []*node{first, second}, "late")
	first.stop()
	first.start()
	awaitMembers(t, []*node{first, second}, 2)
	if first.restored == 0 {
		t.Error("the restarted node was given no snapshot")
	}
	if _, got, _ := first.state(); !slices.Equal(got, want) {
		t.Errorf("after the restart %v, before %v", got, want)
	}
}

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
