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

// A gossip is hearsay: who is where, and who is suspected to be dead.
type gossip struct {
	d    *Driver
	born int64

	mu    sync.Mutex
	list  *memberlist.Memberlist // guarded by mu; nil before start
	known map[string]whereabouts // guarded by mu; by id
}

// whereabouts are where a node was in the latest of its lives that was heard of.
type whereabouts struct {
	addr string
	born int64 // 0: before this node's own life
}

// A calling is what a node tells of itself by gossip.
type calling struct {
	ID      string `json:"i"`
	Born    int64  `json:"b"` // begin of this life, nanoseconds since 1970: the latest counts
	Kingdom []byte `json:"k"`
}

// newGossip returns gossip that knows what this node remembers of its peers.
func newGossip(d *Driver) (*gossip, error) {
	peers, err := d.home.peers()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of the other nodes: %w", err)
	}
	g := &gossip{d: d, born: time.Now().UnixNano(), known: map[string]whereabouts{}}
	for id, addr := range peers {
		g.known[id] = whereabouts{addr: addr}
	}
	return g, nil
}

// start starts to gossip. It finds nobody before keep runs.
func (g *gossip) start(s secrets, words *complaints) error {
	d := g.d
	conf := memberlist.DefaultLANConfig()
	conf.Name = d.home.id + "." + d.inc.String() // each life is new to gossip
	conf.Transport = gossipTransport{d.port}
	conf.BindPort, conf.AdvertisePort = int(d.port.advertise.Port()), int(d.port.advertise.Port())
	conf.AdvertiseAddr = d.port.advertise.Addr().String()
	conf.TCPTimeout = gossipStream
	conf.SecretKey = s.packets
	conf.Delegate, conf.Events, conf.Alive, conf.Merge = g, g, g, g
	conf.Logger = words.standard()
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
func (g *gossip) members() *memberlist.Memberlist {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.list
}

// keep looks for nodes that this one should gossip with and does not, until ctx
// is done. Gossip itself gives up on a node that was dead for a while, and so
// two halves of a cluster would never find each other again.
func (g *gossip) keep(ctx context.Context) {
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

func (g *gossip) rejoin(ctx context.Context) {
	present := g.addresses()
	for _, addr := range g.d.acquaintances(ctx) {
		if slices.Contains(present, addr) || ctx.Err() != nil {
			continue
		}
		if _, err := g.members().Join([]string{addr}); err != nil {
			g.d.log.Debug("gossip", "node", addr, "err", err)
		}
	}
}

func (g *gossip) close() {
	list := g.members()
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
func (g *gossip) addresses() []string {
	list := g.members()
	if list == nil {
		return nil
	}
	var addrs []string
	for _, n := range list.Members() {
		addrs = append(addrs, addressOf(n))
	}
	return addrs
}

func addressOf(n *memberlist.Node) string {
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}

// addressOf returns where a node was heard of last.
func (g *gossip) addressOf(id string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.known[id].addr
}

// suspects returns the nodes that gossip suspects or does not find.
func (g *gossip) suspects(ids []string) map[string]bool {
	suspect := map[string]bool{}
	for _, id := range ids {
		suspect[id] = true
	}
	for _, n := range g.members().Members() {
		if c, err := decodeCalling(n.Meta); err == nil && n.State == memberlist.StateAlive {
			delete(suspect, c.ID)
		}
	}
	return suspect
}

// update tells the others what has changed about this node.
func (g *gossip) update() {
	list := g.members()
	if list == nil {
		return
	}
	go func() { // it may be called from within gossip; it ends by itself
		if err := list.UpdateNode(farewell); err != nil {
			g.d.log.Debug("gossip", "err", err)
		}
	}()
}

// heard notes what memberlist says of a node.
func (g *gossip) heard(n *memberlist.Node) {
	if c, err := decodeCalling(n.Meta); err == nil {
		g.learn(c.ID, whereabouts{addressOf(n), c.Born})
	}
}

// learn notes where a node is.
func (g *gossip) learn(id string, w whereabouts) {
	if id == g.d.home.id {
		return
	}
	g.mu.Lock()
	old := g.known[id]
	if w.born >= old.born {
		g.known[id] = w
	}
	peers := make(map[string]string, len(g.known))
	for id, w := range g.known {
		peers[id] = w.addr
	}
	same := peers[id] == old.addr
	g.mu.Unlock()
	if same {
		return
	}
	if err := g.d.home.setPeers(peers); err != nil {
		g.d.log.Error("note the addresses of the other nodes", "err", err)
	}
	g.d.wake.fire()
}

func decodeCalling(meta []byte) (calling, error) {
	var c calling
	err := json.Unmarshal(meta, &c)
	return c, err
}

// NodeMeta implements memberlist.Delegate.
func (g *gossip) NodeMeta(int) []byte {
	b, err := json.Marshal(calling{ID: g.d.home.id, Born: g.born, Kingdom: g.d.realm().append(nil)})
	if err != nil {
		return nil // cannot happen: strings and numbers
	}
	return b
}

// NotifyMsg implements memberlist.Delegate.
func (g *gossip) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (g *gossip) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (g *gossip) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (g *gossip) MergeRemoteState([]byte, bool) {}

// NotifyJoin implements memberlist.EventDelegate.
func (g *gossip) NotifyJoin(n *memberlist.Node) { g.heard(n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (g *gossip) NotifyUpdate(n *memberlist.Node) { g.heard(n) }

// NotifyLeave implements memberlist.EventDelegate.
func (g *gossip) NotifyLeave(*memberlist.Node) { g.d.wake.fire() }

// NotifyAlive implements memberlist.AliveDelegate: nodes of other clusters are
// not listened to.
func (g *gossip) NotifyAlive(n *memberlist.Node) error { return g.kin(n) }

// NotifyMerge implements memberlist.MergeDelegate.
func (g *gossip) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		if err := g.kin(n); err != nil {
			return err
		}
	}
	return nil
}

func (g *gossip) kin(n *memberlist.Node) error {
	c, err := decodeCalling(n.Meta)
	if err != nil {
		return fmt.Errorf("what %s tells of itself: %w", n.Name, err)
	}
	k, err := decodeKingdom(c.Kingdom)
	if err != nil {
		return fmt.Errorf("what %s tells of itself: %w", n.Name, err)
	}
	if own := g.d.realm(); own.known() && k.known() && own.cluster != k.cluster {
		return fmt.Errorf("%s %w: %v", addressOf(n), errOtherCluster, k)
	}
	return nil
}
