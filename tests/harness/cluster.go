package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sheepdog/tests/native"
)

// A Config says what cluster to start. The zero value is three nodes of the
// programs that Build builds.
type Config struct {
	Nodes      int
	Dirs       []string // store directories; the rest are made
	Args       []string // further arguments of every sheep
	Sheep, Dog string   // other programs than those under test
	ShortPorts bool     // of four digits: tgt cuts longer ones

	Delay time.Duration // of everything that one node sends to another
}

// A Cluster is some sheep on this machine.
type Cluster struct {
	Nodes []*Node
	Dir   string // private, removed in the end

	t          TB
	sheep, dog string
	extras     int
}

// patience bounds every wait. It is long because a test machine may be busy;
// nothing waits that long when all is well.
const patience = 90 * time.Second

// New makes a cluster without starting its nodes. The test's cleanup ends what
// was started, shows the logs if the test failed, and removes the files.
func New(t TB, cfg Config) *Cluster {
	t.Helper()
	if cfg.Sheep == "" || cfg.Dog == "" {
		p := Build(t)
		cfg.Sheep, cfg.Dog = p.Sheep, p.Dog
	}
	if cfg.Nodes == 0 {
		cfg.Nodes = 3
	}
	dir, err := os.MkdirTemp("", "sheep") // short, for the sake of socket paths
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{Dir: dir, t: t, sheep: cfg.Sheep, dog: cfg.Dog}
	t.Cleanup(c.cleanup)
	for i := range cfg.Nodes {
		n := c.node(t, i, fmt.Sprintf("n%d", i))
		n.Args = cfg.Args
		if cfg.ShortPorts {
			n.Port = freePort(t, firstShortPort, lastShortPort)
		}
		if i < len(cfg.Dirs) {
			n.Dir = cfg.Dirs[i]
		}
		c.Nodes = append(c.Nodes, n)
	}
	c.sortPorts()
	if cfg.Delay > 0 {
		for _, n := range c.Nodes {
			delay(t, n.Port, cfg.Delay)
			n.host = delayed
		}
	}
	return c
}

// sortPorts gives the nodes their ports in order, so that the index of a node
// is the number that dog calls it by.
func (c *Cluster) sortPorts() {
	var ports []Port
	for _, n := range c.Nodes {
		ports = append(ports, n.Port)
	}
	slices.SortFunc(ports, func(a, b Port) int { return a.Number - b.Number })
	for i, n := range c.Nodes {
		n.Port = ports[i]
	}
}

func (c *Cluster) node(t TB, id int, name string) *Node {
	return &Node{
		ID: id, Port: FreePort(t), Dir: filepath.Join(c.Dir, name),
		t: t, sheep: c.sheep, host: "127.0.0.1", cluster: "local:" + filepath.Join(c.Dir, "cluster"),
		log: filepath.Join(c.Dir, name+".log"),
	}
}

// Extra makes a node that the cluster is not expected to have, for the test t,
// which may be a part of the cluster's.
func (c *Cluster) Extra(t TB, id int) *Node {
	t.Helper()
	c.extras++
	n := c.node(t, id, fmt.Sprintf("x%d", c.extras))
	t.Cleanup(n.Kill)
	return n
}

// With returns the same nodes under other programs. None of them may be running.
func (c *Cluster) With(t TB, p Programs) *Cluster {
	t.Helper()
	other := &Cluster{Dir: c.Dir, t: t, sheep: p.Sheep, dog: p.Dog, extras: c.extras}
	for _, n := range c.Nodes {
		m := *n
		m.sheep, m.cmd, m.exited = p.Sheep, nil, nil
		other.Nodes = append(other.Nodes, &m)
	}
	t.Cleanup(other.Kill)
	return other
}

// StartAll starts all nodes and waits until the cluster runs and has recovered.
func (c *Cluster) StartAll() {
	c.t.Helper()
	for _, n := range c.Nodes {
		n.Start()
		c.WaitJoined()
	}
	c.WaitRecovered()
}

// Shutdown lets dog stop the cluster and waits until all nodes have ended.
func (c *Cluster) Shutdown() {
	c.t.Helper()
	c.Dog("cluster", "shutdown")
	for _, n := range c.Nodes {
		if code, err := n.Wait(patience); err != nil || code != 0 {
			c.t.Fatalf("node %d ended with status %d after dog cluster shutdown (%v)", n.ID, code, err)
		}
	}
}

// Start makes a cluster, starts its nodes and waits until they know each other.
func Start(t TB, cfg Config) *Cluster {
	t.Helper()
	c := New(t, cfg)
	for _, n := range c.Nodes {
		n.Start()
		c.WaitJoined()
	}
	return c
}

func (c *Cluster) cleanup() {
	for _, n := range c.Nodes {
		n.Kill()
		for _, cry := range []string{"WARNING: DATA RACE", "\npanic: ", "\nfatal error: "} {
			if _, after, found := strings.Cut(n.Log(), cry); found {
				c.t.Errorf("node %d:%s%s", n.ID, cry, after[:min(len(after), 4000)])
			}
		}
	}
	if c.t.Failed() {
		for _, n := range c.Nodes {
			c.t.Logf("the end of node %d's log:\n%s", n.ID, tail(n.Log(), 40))
		}
	}
	if c.t.Failed() && os.Getenv("SHEEP_TEST_KEEP") == "1" {
		c.t.Logf("keeping %s", c.Dir)
		return
	}
	if err := os.RemoveAll(c.Dir); err != nil {
		c.t.Error(err)
	}
}

func tail(s string, lines int) string {
	all := strings.SplitAfter(s, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "")
}

// Alive returns the nodes whose processes run.
func (c *Cluster) Alive() []*Node {
	var alive []*Node
	for _, n := range c.Nodes {
		if n.Alive() {
			alive = append(alive, n)
		}
	}
	return alive
}

// Addrs returns the addresses of all nodes, starting with node first.
func (c *Cluster) Addrs(first int) []string {
	var addrs []string
	for i := range c.Nodes {
		addrs = append(addrs, c.Nodes[(first+i)%len(c.Nodes)].Addr())
	}
	return addrs
}

// Format formats the cluster and waits until every node serves.
func (c *Cluster) Format(copies int, args ...string) {
	c.t.Helper()
	c.Dog(append([]string{"cluster", "format", "-c", fmt.Sprint(copies)}, args...)...)
	c.WaitRunning()
}

// Kill ends all nodes at once with SIGKILL.
func (c *Cluster) Kill() {
	for _, n := range c.Alive() {
		KillGroup(n.cmd)
	}
	for _, n := range c.Nodes {
		n.Kill()
	}
}

// WaitJoined waits until each living node lists all living nodes and no other.
func (c *Cluster) WaitJoined() {
	c.t.Helper()
	c.wait("the nodes to know each other", func(s native.Status, alive int) error { return nil })
}

// WaitRunning waits until the living nodes form a running cluster of one epoch.
func (c *Cluster) WaitRunning() {
	c.t.Helper()
	epoch := uint32(0)
	c.wait("a running cluster", func(s native.Status, i int) error {
		if i == 0 {
			epoch = s.Epoch
		}
		switch {
		case s.Result != native.Success:
			return fmt.Errorf("status is %w", s.Result)
		case s.Epoch != epoch:
			return fmt.Errorf("epoch %d, while another node is at %d", s.Epoch, epoch)
		}
		return nil
	})
}

// WaitRecovered waits for a running cluster in which no node is recovering.
func (c *Cluster) WaitRecovered() {
	c.t.Helper()
	c.WaitRunning()
	c.Until("the end of recovery", func(ctx context.Context) error {
		for _, n := range c.Alive() {
			busy, err := native.Ask(ctx, n.Addr(), native.Recovering)
			if err == nil && busy {
				err = errors.New("recovering")
			}
			if err != nil {
				return fmt.Errorf("node %d: %w", n.ID, err)
			}
		}
		return nil
	})
}

// wait waits until every living node lists exactly the living nodes and ok
// agrees; ok is called for the living nodes in order.
func (c *Cluster) wait(what string, ok func(s native.Status, i int) error) {
	c.t.Helper()
	c.Until(what, func(ctx context.Context) error {
		alive := c.Alive()
		want := make(map[string]bool)
		for _, n := range alive {
			want[n.told()] = true
		}
		for i, n := range alive {
			s, err := native.Ask(ctx, n.Addr(), native.Stat)
			if err == nil {
				err = sameNodes(s.Nodes, want)
			}
			if err == nil {
				err = ok(s, i)
			}
			if err != nil {
				return fmt.Errorf("node %d: %w", n.ID, err)
			}
		}
		return nil
	})
}

func sameNodes(got []native.Node, want map[string]bool) error {
	if len(got) != len(want) {
		return fmt.Errorf("it lists %d nodes, and %d are alive", len(got), len(want))
	}
	for _, n := range got {
		if !want[n.Addr.String()] {
			return fmt.Errorf("it lists %v, which is not alive", n.Addr)
		}
	}
	return nil
}

// Until asks again and again until fn returns nil, and ends the test if that
// takes too long or a node that should run has died.
func (c *Cluster) Until(what string, fn func(context.Context) error) {
	c.t.Helper()
	alive := c.Alive()
	deadline := time.Now().Add(patience)
	for {
		err := fn(c.t.Context())
		if err == nil {
			return
		}
		for _, n := range alive {
			if !n.Alive() && !n.Doomed {
				c.t.Fatalf("waiting for %s: node %d died: %v", what, n.ID, err)
			}
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("waited %v for %s: %v", patience, what, err)
		}
		time.Sleep(20 * time.Millisecond) // between two questions to the daemons
	}
}
