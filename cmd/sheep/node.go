package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"sheepdog/gateway"
	"sheepdog/gateway/fanout"
	"sheepdog/gateway/flight"
	"sheepdog/recovery"
	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/replica"
	"sheepdog/sheep/scrub"
	"sheepdog/sheep/server"
	"sheepdog/sheep/store"
	"sheepdog/sheep/store/journal"
	"sheepdog/sheep/vdi"
)

// errExpelled says that the cluster has gone on without this node, which may
// begin a new life.
var errExpelled = errors.New("expelled from the cluster")

// errVNodesChanged is C's text for a node that was started with -V before and
// not now, or the other way round.
//
//lint:ignore ST1005 people and scripts know the text
var errVNodesChanged = errors.New("Designation of before a restart and a vnodes option is different.")

// joinPatience is how long who starts a node waits to hear whether it is let in.
const joinPatience = 3 * time.Second

// stopPatience bounds the work of a clean stop that needs other nodes.
const stopPatience = 5 * time.Second

// autoVNodes is what a node with automatic weights has on average.
const autoVNodes = 128

// A node is the chain from the sockets to the disk, and what moves it.
type node struct {
	cfg   config
	log   *slog.Logger
	self  sheep.Node
	store *store.Store

	cluster  *cluster.Cluster
	replica  *replica.Replica
	recovery *recovery.Recoverer
	scrub    *scrub.Scrubber
	gateway  *gateway.Gateway
	flights  *flight.Table
	ops      *vdi.Operations
	disks    *diskHost
	server   *server.Server
	pools    pools

	view      *cluster.View // the last installed; of the apply goroutine
	formatted bool          // since the last installed view; of the apply goroutine

	stopped   chan struct{} // closed when the cluster wants this node to stop
	once      sync.Once
	reason    error       // why; set before stopped is closed
	wasMember atomic.Bool // this node has joined
}

// runNode is a node's life: it joins the cluster, calls ready once it is a
// member, and serves until ctx ends or the cluster shuts down. It returns nil
// after a clean stop.
func runNode(ctx context.Context, cfg config, ready func()) (err error) {
	st, err := store.Open(cfg.dir, storeConfig(cfg))
	if err != nil {
		return err
	}
	clean := false
	defer func() {
		if cerr := st.Close(clean && err == nil); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close the store: %w", cerr))
		}
	}()
	n, err := newNode(cfg, st)
	if err != nil {
		return err
	}
	listeners, err := n.listen(ctx)
	if err != nil {
		return err
	}
	nbd, err := n.openNBD(ctx)
	if err != nil {
		closeAll(listeners)
		return err
	}
	err = n.run(ctx, listeners, nbd, ready)
	clean = err == nil
	return err
}

func storeConfig(cfg config) store.Config {
	sc := store.Config{Log: cfg.log, NoSync: cfg.noSync}
	if cfg.journalSize != 0 {
		sc.SegmentSize = cfg.journalSize / journal.DefaultSegments
	}
	return sc
}

// newNode builds the chain over st.
func newNode(cfg config, st *store.Store) (*node, error) {
	n := &node{cfg: cfg, log: cfg.log, store: st, stopped: make(chan struct{})}
	conf := st.Config()
	fixed := cfg.vnodes != 0
	if conf.Ctime != 0 && !cfg.gateway && fixed == (conf.Flags&proto.ClusterAutoVNodes != 0) {
		return nil, errVNodesChanged
	}
	n.self = selfNode(cfg, st)
	history, err := readHistory(st, n.log)
	if err != nil {
		return nil, err
	}
	driver, err := newDriver(cfg)
	if err != nil {
		return nil, err
	}
	n.cluster = cluster.New(cluster.Config{
		Node: n.self, FixedVNodes: fixed, HealDelay: healDelay(cfg), History: history, Driver: driver,
		Hooks: n, Executor: n, Health: st.Err, Log: cfg.log,
	})
	n.build()
	return n, nil
}

// selfNode returns what this node tells the others of itself.
func selfNode(cfg config, st *store.Store) sheep.Node {
	n := sheep.Node{Addr: netip.AddrPortFrom(cfg.myAddr, cfg.port), IOAddr: cfg.ioAddr, Zone: cfg.zone}
	if cfg.gateway {
		return n
	}
	n.VNodes = autoVNodes
	if cfg.vnodes != 0 {
		n.VNodes = cfg.vnodes
	}
	n.Space = st.Config().Space
	return n
}

// build makes the links and joins them, from the disk to the sockets.
func (n *node) build() {
	inc := n.cluster.Incarnation()
	hello := proto.Hello{Version: proto.PeerVersion, Incarnation: inc, Node: n.self}
	n.pools = newPools(hello)
	n.replica = replica.New(n.store, inc, n.cluster)
	n.recovery = recovery.New(n.self.Addr, n.store, n.replica, client.NewPeers(n.pools.urgent), n.cluster,
		recovery.Config{Failed: n.stop, Log: n.log})
	n.recovery.SetThrottle(recovery.Throttle{Max: n.cfg.recovery.max, Interval: n.cfg.recovery.interval, Rate: n.cfg.recovery.rate})
	n.replica.Serve(n.recovery, n.stop)
	fan := fanout.New(n.cluster, n.replica, client.NewPeers(n.pools.peers), n.log)
	n.gateway = gateway.New(fan, n.cluster, client.NewOwners(n.pools.owners), inc, n.log)
	guard := vdi.NewGuard(n.gateway, n.cluster, vdi.GuardConfig{
		Attributes: n.defaultPolicy, Announce: n.announce, Log: n.log,
	})
	n.ops = vdi.NewOperations(guard, n.gateway, directory{n.cluster}, n.cluster, vdi.OperationsConfig{Self: n.self, Log: n.log})
	n.flights = flight.NewTable(flight.Config{
		Deadline: func(id sheep.VDIID) time.Duration { return n.cluster.View().DeadlineOf(id) }, Log: n.log,
	})
	front := n.newFront(guard)
	n.disks = newDiskHost(front, n.ops, n.cluster)
	d := server.NewDaemon(server.Parts{
		Guard: front, Operations: n.ops, Cluster: n.cluster,
		Store: storeView{n.store}, Replica: n.replica, Copies: copies{n.replica}, Recovery: recoveryView{n.recovery, n.cluster.View},
		Owner:   func(from sheep.Incarnation) server.Owner { return n.flights.NewDoor(n.gateway.Owned(from)) },
		Flights: flightsView{n.flights, n.cluster.VDI},
		Hello:   hello, Dir: n.cfg.dir, FixedVNodes: n.cfg.vnodes != 0, Kill: func() { n.stop(sheep.ErrKilled) },
		Level: logLevel{n.cfg.threshold}, Log: n.log,
	})
	n.scrub = n.newScrub(d)
	d.Scrub = n.scrub
	d.Losses = losses{n}
	n.server = server.New(d, n.log, server.Config{})
}

// listen opens the sockets: nothing is joined before they are there.
func (n *node) listen(ctx context.Context) (listeners []net.Listener, err error) {
	host := ""
	if n.cfg.bind.IsValid() {
		host = n.cfg.bind.String()
	}
	addrs := []string{
		net.JoinHostPort(host, fmt.Sprint(n.cfg.port)),
		"unix:" + filepath.Join(n.cfg.dir, "sock"),
	}
	if io := n.cfg.ioAddr; io.IsValid() && (io.Port() != n.cfg.port || host != "" && io.Addr() != n.cfg.bind) {
		addrs = append(addrs, io.String())
	}
	for _, addr := range addrs {
		l, err := server.Listen(ctx, addr)
		if err != nil {
			closeAll(listeners)
			return nil, err
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// run runs all parts until ctx ends, the cluster wants the node to stop, or
// one of them fails, and stops them in order: the sockets first, then the
// membership, at last what both need.
func (n *node) run(ctx context.Context, listeners []net.Listener, nbd nbdService, ready func()) error {
	serving, stopServing := context.WithCancel(context.Background())
	member, leave := context.WithCancel(context.Background())
	inner, stopInner := context.WithCancelCause(context.Background())
	var front, middle, back sync.WaitGroup
	var frontErr, nbdErr, memberErr error
	front.Go(func() {
		frontErr = n.server.Serve(serving, listeners...)
		n.stop(frontErr)
	})
	front.Go(func() {
		if nbdErr = nbd.serve(serving); nbdErr != nil {
			n.stop(nbdErr)
		}
	})
	middle.Go(func() {
		memberErr = n.cluster.Run(member)
		n.stop(memberErr)
	})
	back.Go(func() { _ = n.gateway.Run(inner) })
	back.Go(func() { _ = n.flights.Run(inner) })
	back.Go(func() { _ = n.recovery.Run(inner) })
	back.Go(func() { _ = n.scrub.Run(inner) })
	back.Go(func() { n.awaitMembership(inner, ready) })

	select {
	case <-ctx.Done():
	case <-n.stopped:
		if n.hasFailed() { // let the others go on without this node at once
			leave()
			n.server.Hurry()
		}
	}
	stopServing()
	front.Wait()
	n.flushOwned()
	leave()
	middle.Wait()
	stopInner(sheep.ErrShutdown)
	back.Wait()
	n.pools.close()
	if errors.Is(memberErr, cluster.ErrRejoin) {
		ready() // the start goes on in the next life
	}
	if memberErr != nil && (n.wasMember.Load() || errors.Is(memberErr, cluster.ErrRejoin)) {
		memberErr = fmt.Errorf("%w: %w", errExpelled, memberErr)
	}
	return n.epilogue(errors.Join(frontErr, nbdErr, memberErr))
}

// awaitMembership calls ready when this node is a member, or has to wait for others
// that are not there: whoever starts nodes one after the other starts the next.
func (n *node) awaitMembership(ctx context.Context, ready func()) {
	joined := func(v *cluster.View) bool { return v.Joined }
	soon, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	err := n.cluster.Wait(soon, joined)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		n.log.Warn("this node waits for others to let it in")
		ready()
		err = n.cluster.Wait(ctx, joined)
	}
	if err == nil {
		n.wasMember.Store(true)
		ready()
	}
}

// hasFailed reports whether the node stops because something of it is broken.
func (n *node) hasFailed() bool {
	return n.reason != nil && !errors.Is(n.reason, sheep.ErrShutdown) && !errors.Is(n.reason, sheep.ErrKilled)
}

// flushOwned makes what this node's clients have written durable everywhere. In
// a shutdown every node does that for itself.
func (n *node) flushOwned() {
	if n.hasFailed() || n.cluster.View().Status != cluster.OK {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	if err := n.gateway.FlushOwned(ctx); err != nil {
		n.log.Warn("not everything is flushed on other nodes yet", "err", err)
	}
}

// epilogue turns the reason of the stop into what runNode returns.
func (n *node) epilogue(err error) error {
	switch {
	case errors.Is(n.reason, sheep.ErrShutdown):
		conf := n.store.Config()
		conf.Clean = true
		return errors.Join(err, n.store.SetConfig(conf))
	case errors.Is(n.reason, sheep.ErrKilled):
		return nil
	case err == nil && n.hasFailed():
		return n.reason
	}
	return err
}

// stop ends the node's life for the given reason. Only the first call counts.
func (n *node) stop(reason error) {
	n.once.Do(func() {
		n.reason = reason
		close(n.stopped)
	})
}

// pools are the connections to the other nodes, one pool for each of the
// classes that may wait for one another: owners for peers, peers for the
// urgent.
type pools struct{ owners, peers, urgent *client.Pool }

func newPools(hello proto.Hello) pools {
	return pools{
		owners: client.NewPool(hello, client.PoolConfig{}),
		peers:  client.NewPool(hello, client.PoolConfig{}),
		urgent: client.NewPool(hello, client.PoolConfig{}),
	}
}

func (p pools) all() []*client.Pool { return []*client.Pool{p.owners, p.peers, p.urgent} }

func (p pools) forget(n sheep.Node) {
	for _, pool := range p.all() {
		pool.Forget(n.Addr)
		if n.IOAddr.IsValid() {
			pool.Forget(n.IOAddr)
		}
	}
}

func (p pools) close() {
	for _, pool := range p.all() {
		pool.Close()
	}
}
