package gossip

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// How gossip is kept together.
const (
	rejoinEvery  = 2 * time.Second // between looks for nodes that gossip has lost
	farewell     = 500 * time.Millisecond
	gossipStream = 3 * time.Second // for one exchange over a stream
)

// A discovery is what gossip tells: who is where, and who is suspected to be
// dead. Nothing that must be right depends on it.
type discovery struct {
	d       *Driver
	started int64 // begin of this node's life

	mu    sync.Mutex
	list  *memberlist.Memberlist // guarded by mu; nil before start
	known map[string]nodeAddress // guarded by mu; by ID
	alive map[string]aliveNode   // guarded by mu; by memberlist's name of them
}

// An aliveNode is one that memberlist believes to live. Its own copy changes at
// any time.
type aliveNode struct{ id, addr string }

// A nodeAddress is where a node was in the latest of its lives that was heard of.
type nodeAddress struct {
	addr    string
	started int64 // 0: before this node's own life
}

// A nodeMeta is what a node tells of itself by gossip.
type nodeMeta struct {
	ID      string `json:"i"`
	Started int64  `json:"s"` // begin of this life, nanoseconds since 1970: the latest counts
	Cluster []byte `json:"c"` // see clusterID
}

// newDiscovery returns gossip that knows what this node remembers of its peers.
func newDiscovery(d *Driver) (*discovery, error) {
	peers, err := d.data.peers()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of the other nodes: %w", err)
	}
	g := &discovery{d: d, started: time.Now().UnixNano(), known: map[string]nodeAddress{}, alive: map[string]aliveNode{}}
	for id, addr := range peers {
		g.known[id] = nodeAddress{addr: addr}
	}
	return g, nil
}

// start starts to gossip. It finds nobody before run runs.
func (g *discovery) start(s secrets, log *libraryLog) error {
	d := g.d
	conf := memberlist.DefaultLANConfig()
	conf.Name = d.data.id + "." + d.inc.String() // each life is new to memberlist
	conf.Transport = gossipTransport{d.mux}
	conf.BindPort, conf.AdvertisePort = int(d.mux.advertise.Port()), int(d.mux.advertise.Port())
	conf.AdvertiseAddr = d.mux.advertise.Addr().String()
	conf.TCPTimeout = gossipStream
	conf.SecretKey = s.packets
	conf.Delegate, conf.Events, conf.Alive, conf.Merge = g, g, g, g
	conf.Logger = log.standard()
	list, err := memberlist.Create(conf)
	if err != nil {
		return fmt.Errorf("start gossip: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list = list
	return nil
}

// members returns memberlist, or nil before start.
func (g *discovery) memberlist() *memberlist.Memberlist {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.list
}

// run looks for nodes that this one should gossip with and does not, until ctx
// is done. Memberlist gives up on a node that was dead for a while, and so two
// halves of a cluster would never find each other again.
func (g *discovery) run(ctx context.Context) {
	tick := time.NewTicker(rejoinEvery)
	defer tick.Stop()
	for {
		g.rejoin(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (g *discovery) rejoin(ctx context.Context) {
	present := g.addresses()
	for _, addr := range g.d.knownAddresses(ctx) {
		if slices.Contains(present, addr) || ctx.Err() != nil {
			continue
		}
		if _, err := g.memberlist().Join([]string{addr}); err != nil {
			g.d.log.Debug("gossip", "node", addr, "err", err)
		}
	}
}

func (g *discovery) close() {
	list := g.memberlist()
	if list == nil {
		return
	}
	if err := list.Leave(farewell); err != nil {
		g.d.log.Debug("leave gossip", "err", err)
	}
	if err := list.Shutdown(); err != nil {
		g.d.log.Debug("stop gossip", "err", err)
	}
}

// addresses returns the addresses of the nodes that are believed to live.
func (g *discovery) addresses() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var addrs []string
	for _, n := range g.alive {
		addrs = append(addrs, n.addr)
	}
	return addrs
}

func addressOf(n *memberlist.Node) string {
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}

// addressOf returns where a node was heard of last.
func (g *discovery) addressOf(id string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.known[id].addr
}

// missing returns the nodes that gossip does not find.
func (g *discovery) missing(ids []string) map[string]bool {
	missing := map[string]bool{}
	for _, id := range ids {
		missing[id] = true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range g.alive {
		delete(missing, n.id)
	}
	return missing
}

// update tells the others what has changed about this node.
func (g *discovery) update() {
	list := g.memberlist()
	if list == nil {
		return
	}
	go func() { // it may be called from within gossip; it ends by itself
		if err := list.UpdateNode(farewell); err != nil {
			g.d.log.Debug("gossip", "err", err)
		}
	}()
}

// observe notes what memberlist says of a node.
func (g *discovery) observe(n *memberlist.Node) {
	m, err := decodeNodeMeta(n.Meta)
	if err != nil {
		return
	}
	g.mu.Lock()
	g.alive[n.Name] = aliveNode{m.ID, addressOf(n)}
	g.mu.Unlock()
	g.setAddress(m.ID, nodeAddress{addressOf(n), m.Started})
	if id, err := decodeClusterID(m.Cluster); err == nil {
		_ = g.d.followTimeline(id) // what came of it Run returns
	}
}

// setAddress notes where a node is.
func (g *discovery) setAddress(id string, a nodeAddress) {
	if id == g.d.data.id {
		return
	}
	g.mu.Lock()
	old := g.known[id]
	if a.started >= old.started {
		g.known[id] = a
	}
	peers := make(map[string]string, len(g.known))
	for id, a := range g.known {
		peers[id] = a.addr
	}
	same := peers[id] == old.addr
	g.mu.Unlock()
	if same {
		return
	}
	if err := g.d.data.setPeers(peers); err != nil {
		g.d.log.Error("note the addresses of the other nodes", "err", err)
	}
	g.d.wake.fire()
}

func decodeNodeMeta(meta []byte) (nodeMeta, error) {
	var m nodeMeta
	err := json.Unmarshal(meta, &m)
	return m, err
}

// NodeMeta implements memberlist.Delegate.
func (g *discovery) NodeMeta(int) []byte {
	b, err := json.Marshal(nodeMeta{ID: g.d.data.id, Started: g.started, Cluster: g.d.clusterID().append(nil)})
	if err != nil {
		return nil // cannot happen: strings and numbers
	}
	return b
}

// NotifyMsg implements memberlist.Delegate.
func (g *discovery) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (g *discovery) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (g *discovery) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (g *discovery) MergeRemoteState([]byte, bool) {}

// NotifyJoin implements memberlist.EventDelegate.
func (g *discovery) NotifyJoin(n *memberlist.Node) { g.observe(n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (g *discovery) NotifyUpdate(n *memberlist.Node) { g.observe(n) }

// NotifyLeave implements memberlist.EventDelegate.
func (g *discovery) NotifyLeave(n *memberlist.Node) {
	g.mu.Lock()
	delete(g.alive, n.Name)
	g.mu.Unlock()
	g.d.wake.fire()
}

// NotifyAlive implements memberlist.AliveDelegate: nodes of other clusters are
// not listened to.
func (g *discovery) NotifyAlive(n *memberlist.Node) error { return g.checkCluster(n) }

// NotifyMerge implements memberlist.MergeDelegate.
func (g *discovery) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		if err := g.checkCluster(n); err != nil {
			return err
		}
	}
	return nil
}

func (g *discovery) checkCluster(n *memberlist.Node) error {
	m, err := decodeNodeMeta(n.Meta)
	if err != nil {
		return fmt.Errorf("what %s tells of itself: %w", n.Name, err)
	}
	id, err := decodeClusterID(m.Cluster)
	if err != nil {
		return fmt.Errorf("what %s tells of itself: %w", n.Name, err)
	}
	if own := g.d.clusterID(); own.known() && id.known() && own.uuid != id.uuid {
		return fmt.Errorf("%s %w: %v", addressOf(n), errOtherCluster, id)
	}
	return nil
}
