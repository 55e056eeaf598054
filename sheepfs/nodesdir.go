package sheepfs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"sheepdog/sheep"
	"sheepdog/sheep/listing"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/size"
)

// askWidth is how many nodes are asked at once.
const askWidth = 16

// nodesDir is the nodes: all in two tables, and each in a directory.
func (t *FS) nodesDir() *dir {
	return t.dir("node", []fixed{
		t.reader("node", "list", t.nodeList),
		t.reader("node", "info", t.nodeInfo),
	}, ways{find: t.findNode, list: t.nodeNames})
}

func (t *FS) members(ctx context.Context) ([]sheep.Node, error) {
	c := t.remote()
	defer c.Close()
	m, err := c.Membership(ctx)
	if err == nil {
		t.door.learn(m.Nodes)
	}
	return m.Nodes, err
}

// nodeNames returns the nodes as host:port.
func (t *FS) nodeNames(ctx context.Context) ([]string, error) {
	nodes, err := t.members(ctx)
	var names []string
	for _, n := range nodes {
		names = append(names, n.String())
	}
	return names, err
}

// nodeCalled returns the node with the name and its number.
func (t *FS) nodeCalled(ctx context.Context, name string) (int, sheep.Node, error) {
	nodes, err := t.members(ctx)
	if err != nil {
		return 0, sheep.Node{}, err
	}
	i := slices.IndexFunc(nodes, func(n sheep.Node) bool { return n.String() == name })
	if i < 0 {
		return 0, sheep.Node{}, refuse(syscall.ENOENT, "no node %q", name)
	}
	return i, nodes[i], nil
}

// findNode returns the directory of a node.
func (t *FS) findNode(ctx context.Context, name string) (*dir, error) {
	if _, _, err := t.nodeCalled(ctx, name); err != nil {
		return nil, err
	}
	path := "node/" + name
	about := func(file string, show func(context.Context, *remote.Cluster, int, sheep.Node) (string, error)) fixed {
		return t.reader(path, file, func(ctx context.Context) (content, error) {
			i, n, err := t.nodeCalled(ctx, name)
			if err != nil {
				return nil, err
			}
			c := t.remoteAt(remote.Address(n))
			defer c.Close()
			s, err := show(ctx, c, i, n)
			return text(s), err
		})
	}
	return t.dir(path, []fixed{
		about("info", oneNodeInfo),
		about("stat", oneNodeStat),
		about("recovery", oneNodeRecovery),
		about("md", oneNodeDisks),
	}, ways{}), nil
}

// nodeList is what dog node list prints.
func (t *FS) nodeList(ctx context.Context) (content, error) {
	nodes, err := t.members(ctx)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString(listing.Nodes)
	for i, n := range nodes {
		b.WriteString(listing.Node(i, n))
	}
	return text(b.String()), nil
}

// nodeInfo is what dog node info prints. Nodes that do not answer are left out.
func (t *FS) nodeInfo(ctx context.Context) (content, error) {
	nodes, err := t.members(ctx)
	if err != nil {
		return nil, err
	}
	c := t.remote()
	defer c.Close()
	var b strings.Builder
	b.WriteString(listing.Spaces)
	var total listing.Space
	i, answers := 0, 0
	ask := func(n sheep.Node) func() (listing.Space, error) {
		s, err := spaceOf(ctx, c, n)
		return func() (listing.Space, error) { return s, err }
	}
	for answer := range remote.Ordered(slices.Values(nodes), askWidth, ask) {
		if s, err := answer(); err == nil {
			b.WriteString(listing.NodeSpace(i, s))
			total = listing.Space{Size: total.Size + s.Size, Used: total.Used + s.Used, Free: total.Free + s.Free}
			answers++
		}
		i++
	}
	if answers == 0 {
		return nil, fmt.Errorf("%w: no node answers", sheep.ErrNetwork)
	}
	b.WriteString(listing.TotalSpace(total, virtualSize(ctx, c)))
	return text(b.String()), nil
}

// virtualSize returns the sum of the sizes of the working VDIs.
func virtualSize(ctx context.Context, c *remote.Cluster) (sum uint64) {
	vdis, err := c.VDIs(ctx, remote.Query{})
	if err != nil {
		return 0
	}
	for v := range vdis {
		if v.Err == nil && !v.Header.Snapshot() {
			sum += v.Header.Size
		}
	}
	return sum
}

// spaceOf returns how full a node is.
func spaceOf(ctx context.Context, c *remote.Cluster, n sheep.Node) (listing.Space, error) {
	size, free, err := c.Space(ctx, n)
	s := listing.SpaceOf(size, free)
	if room, err := c.Room(ctx, remote.Address(n)); err == nil {
		s.Full = room.Full()
	}
	return s, err
}

func oneNodeInfo(ctx context.Context, c *remote.Cluster, i int, n sheep.Node) (string, error) {
	s, err := spaceOf(ctx, c, n)
	if err != nil {
		return "", err
	}
	second := "none"
	if n.IOAddr.IsValid() {
		second = sheep.FormatAddr(n.IOAddr)
	}
	return fmt.Sprintf("Id: %d\nAddress: %v\nI/O address: %s\nV-Nodes: %d\nZone: %d\nSize: %s\nUsed: %s\nAvail: %s\nUse%%: %d%%\n",
		i, n, second, n.VNodes, uint32(n.Zone), size.Human(s.Size), size.Human(s.Used), size.Human(s.Free), listing.Percent(s.Used, s.Size)), nil
}

func oneNodeStat(ctx context.Context, c *remote.Cluster, _ int, _ sheep.Node) (string, error) {
	st, err := c.Stat(ctx)
	s := listing.NewStats(st)
	return listing.StatHead + s.Client.Line("Client") + s.Peer.Line("Peer"), err
}

func oneNodeRecovery(ctx context.Context, c *remote.Cluster, i int, n sheep.Node) (string, error) {
	state, err := c.Recovery(ctx, "")
	if err != nil || !state.Active {
		return listing.Recoveries, err
	}
	return listing.Recoveries + listing.Recovery(i, n, state), nil
}

func oneNodeDisks(ctx context.Context, c *remote.Cluster, _ int, _ sheep.Node) (string, error) {
	disks, err := c.Disks(ctx, "")
	var b strings.Builder
	b.WriteString(listing.Disks)
	for _, d := range disks {
		b.WriteString(listing.Disk(d))
	}
	return b.String(), err
}
