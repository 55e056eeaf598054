// Package fakesheep is a cluster in memory for the tests of dog.
//
// It has several nodes that keep their copies of objects apart, so that copies
// can be damaged, and answers the requests of the client protocol that dog
// sends, over real connections of its wire format. It follows the protocol where
// dog can see it and is naive elsewhere: nothing is concurrent, nothing is
// durable, objects are only released when a VDI is deleted. Its clock advances
// by a second at each request that makes something, so that outputs with times
// are always the same.
package fakesheep

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// FirstPort is the port of the first node.
const FirstPort = 7000

// A Cluster is a cluster of daemons on ports from FirstPort on.
type Cluster struct {
	Defers bool // FLUSH_VDI means something, as with our daemons
	Plain  bool // the operations that C Sheepdog does not have fail

	mu       sync.Mutex
	nodes    []*node
	now      time.Time
	info     proto.ClusterInfo
	epochs   []proto.EpochRecord
	used     map[sheep.VDIID]bool
	deleted  map[sheep.VDIID]bool
	locks    map[sheep.VDIID]sheep.Lock
	throttle proto.Throttle
	healing  healing
	level    uint32
	requests []string
	failing  map[proto.Opcode]proto.Result
	deadline map[sheep.VDIID]time.Duration // of the cluster under 0
}

// A node is one daemon and its copies.
type node struct {
	sheep.Node
	objects map[sheep.ObjectID][]byte
	written map[sheep.ObjectID]sheep.Epoch // of copies, if not 0
	free    uint64                         // of the disk
	down    bool
	recover proto.RecoveryState
	slow    []proto.SlowRequest
}

// Start is the time at which the clock of a Cluster starts.
func Start() time.Time { return time.Date(2026, 11, 21, 0, 7, 11, 0, time.UTC) }

// nodeSpace is the size of a node's store.
const nodeSpace = 100 << 30

// New returns a cluster of n nodes in n zones that has not been formatted.
func New(n int) *Cluster {
	c := &Cluster{now: Start(), level: 6, failing: make(map[proto.Opcode]proto.Result), deadline: make(map[sheep.VDIID]time.Duration)}
	for i := range n {
		c.nodes = append(c.nodes, &node{
			Node: sheep.Node{
				Addr:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(FirstPort+i)),
				VNodes: placement.DefaultVNodes, Zone: sheep.ZoneID(i), Space: nodeSpace,
			},
			free:    nodeSpace,
			objects: make(map[sheep.ObjectID][]byte),
			written: make(map[sheep.ObjectID]sheep.Epoch),
		})
	}
	c.info = proto.ClusterInfo{Version: proto.InternalVersion, Status: proto.StatusWait, Flags: proto.ClusterAutoVNodes}
	return c
}

// Formatted returns a cluster of n nodes, formatted with so many copies.
func Formatted(n int, copies uint8, flags proto.ClusterFlags) *Cluster {
	c := New(n)
	c.format("plain", proto.ClusterBody{
		Ctime: proto.WireTime(c.now), Copies: copies, BlockShift: sheep.DefaultBlockShift, Flags: flags | proto.ClusterAutoVNodes,
	})
	return c
}

// Fail makes every request with the opcode fail; success ends that.
func (c *Cluster) Fail(op proto.Opcode, r proto.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing[op] = r
}

// Kill makes node i unreachable.
func (c *Cluster) Kill(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[i].down = true
}

// Recovering says how far the recovery of node i is.
func (c *Cluster) Recovering(i int, state proto.RecoveryState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[i].recover = state
}

// Slow says which requests have been in flight on node i for long.
func (c *Cluster) Slow(i int, requests ...proto.SlowRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[i].slow = requests
}

// Copy returns node i's copy of an object, nil if it has none. The test may
// change it.
func (c *Cluster) Copy(i int, id sheep.ObjectID) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[i].objects[id]
}

// Written says that node i's copy of an object was written in the epoch.
func (c *Cluster) Written(i int, id sheep.ObjectID, e sheep.Epoch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[i].written[id] = e
}

// Drop removes node i's copy of an object.
func (c *Cluster) Drop(i int, id sheep.ObjectID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.nodes[i].objects, id)
}

// Put gives the nodes that should hold it an object of zeroes, as a client does
// that has not entered it into the map yet.
func (c *Cluster) Put(id sheep.ObjectID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(id, make([]byte, id.Size(c.info.BlockShift)), c.copiesOf(id))
}

// PutAt gives node i a copy of an object, of one byte.
func (c *Cluster) PutAt(i int, id sheep.ObjectID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[i].objects[id] = make([]byte, 1)
}

// Lock locks a VDI for a client of node i.
func (c *Cluster) Lock(i int, id sheep.VDIID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lock(c.nodes[i].Node, id, proto.LockNormal)
}

// Holders returns the nodes that hold the copies of an object.
func (c *Cluster) Holders(id sheep.ObjectID, copies int) []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.place(id, copies)
}

// Requests returns the names of the operations since the last call, in order.
func (c *Cluster) Requests() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.requests
	c.requests = nil
	return r
}

// Dial is a remote.Dialer.
func (c *Cluster) Dial(_ context.Context, addr string) (remote.Conn, error) {
	c.mu.Lock()
	i := slices.IndexFunc(c.nodes, func(n *node) bool { return remote.Address(n.Node) == addr && !n.down })
	c.mu.Unlock()
	if i < 0 {
		return nil, fmt.Errorf("%w: connect to %s: %w", sheep.ErrNetwork, addr, syscall.ECONNREFUSED)
	}
	ours, theirs := net.Pipe()
	go c.serve(theirs, i)
	return client.NewConn(ours), nil
}

// serve answers the requests on one connection to node i until it ends.
func (c *Cluster) serve(conn net.Conn, i int) {
	defer conn.Close()
	head := make([]byte, proto.HeaderSize)
	for {
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		h, err := proto.DecodeHeader(head)
		if err != nil {
			return
		}
		data := make([]byte, h.Payload())
		if _, err := io.ReadFull(conn, data); err != nil {
			return
		}
		body, reply, result := c.handle(i, h, data)
		if room := h.Room(); uint32(len(reply)) > room && h.Op != proto.OpOIDsExist {
			reply = reply[:room]
		}
		c.mu.Lock()
		resp := h.Response(c.info.Epoch, result)
		c.mu.Unlock()
		resp.Body, resp.DataLen = body, uint32(len(reply))
		if _, err := conn.Write(append(resp.Append(nil), reply...)); err != nil {
			return
		}
	}
}
