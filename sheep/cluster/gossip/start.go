package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// open starts everything that a member needs before it can ask to be one.
func (d *Driver) open(ctx context.Context, wg *sync.WaitGroup) error {
	s, err := newSecrets(d.cfg.Key)
	if err != nil {
		return fmt.Errorf("gossip cluster: %w", err)
	}
	if d.home, err = openHome(d.cfg.Dir); err != nil {
		return err
	}
	k, err := d.home.kingdom()
	if err != nil {
		return fmt.Errorf("open the cluster's log: %w", err)
	}
	d.mu.Lock()
	d.kingdom = k
	d.mu.Unlock()
	if d.gossip, err = newGossip(d); err != nil {
		return err
	}
	if d.port, err = listen(d.cfg, s, d.realm); err != nil {
		return err
	}
	d.client = d.newClient()
	words := newComplaints(d.log)
	if err := d.startRaft(ctx, words); err != nil {
		return err
	}
	if err := d.gossip.start(s, words); err != nil {
		return err
	}
	d.mu.Lock()
	d.running = true
	d.mu.Unlock()
	server := d.newServer()
	wg.Go(func() { _ = server.Serve(d.port.control) }) // until the port is closed
	context.AfterFunc(ctx, func() { server.Close() })
	return nil
}

// startRaft starts Raft with the log of this node's home.
func (d *Driver) startRaft(ctx context.Context, words *complaints) error {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(d.home.id)
	conf.HeartbeatTimeout, conf.ElectionTimeout = d.cfg.Election, d.cfg.Election
	conf.LeaderLeaseTimeout = d.cfg.LeaderLease
	conf.SnapshotThreshold, conf.TrailingLogs = d.cfg.SnapshotAfter, d.cfg.Trailing
	conf.SnapshotInterval = 30 * time.Second
	conf.ShutdownOnRemove = false // it would keep this node from coming back
	conf.NoLegacyTelemetry = true
	conf.NotifyCh = d.lordship
	conf.Logger = words.hclog()
	snaps, err := raft.NewFileSnapshotStoreWithLogger(d.cfg.Dir, 2, conf.Logger)
	if err != nil {
		return fmt.Errorf("open the cluster's snapshots: %w", err)
	}
	d.trans = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: addresses{d},
		Stream:                raftStreams{d.port.raft},
		MaxPool:               3,
		Timeout:               max(2*d.cfg.Election, 2*time.Second),
		Logger:                conf.Logger,
	})
	old, err := raft.HasExistingState(d.home, d.home, snaps)
	if err != nil {
		return fmt.Errorf("open the cluster's log: %w", err)
	}
	if !old && len(d.seeds(ctx)) == 0 {
		k, err := d.home.newCluster(conf, snaps, d.trans, d.port.advertise.String())
		if err != nil {
			return fmt.Errorf("begin a new cluster: %w", err)
		}
		d.belong(k)
		d.log.Info("this node begins a new cluster", "address", d.port.advertise)
	}
	cache, err := raft.NewLogCache(512, d.home)
	if err != nil {
		return err
	}
	if d.raft, err = raft.NewRaft(conf, fsm{d}, cache, d.home, snaps, d.trans); err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	return nil
}

// hurry has a node that votes alone elect itself at once: it has nobody to wait
// for.
func (d *Driver) hurry() {
	votes := map[raft.ServerID]bool{}
	for _, s := range d.servers() {
		if s.Suffrage == raft.Voter {
			votes[s.ID] = true
		}
	}
	if len(votes) != 1 || !votes[raft.ServerID(d.home.id)] {
		return
	}
	self := raft.ServerAddress(d.port.advertise.String())
	q := raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
	if err := d.trans.TimeoutNow(raft.ServerID(d.home.id), self, &q, new(raft.TimeoutNowResponse)); err != nil {
		d.log.Debug("elect this node", "err", err)
	}
}

// seeds returns the seeds that are not this node itself.
func (d *Driver) seeds(ctx context.Context) []string {
	var others []string
	for _, seed := range d.cfg.Seeds {
		if !d.isSelf(ctx, seed) {
			others = append(others, seed)
		}
	}
	return others
}

// resolvePatience bounds the look-up of a seed's name.
const resolvePatience = 5 * time.Second

func (d *Driver) isSelf(ctx context.Context, seed string) bool {
	own := d.port.advertise
	if seed == own.String() {
		return true
	}
	host, number, err := net.SplitHostPort(seed)
	if err != nil || number != fmt.Sprint(own.Port()) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, resolvePatience)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return false
	}
	locals, err := net.InterfaceAddrs()
	for _, a := range addrs {
		if a.Unmap() == own.Addr() || err == nil && isLocal(a.Unmap(), locals) {
			return true
		}
	}
	return false
}

func isLocal(a netip.Addr, locals []net.Addr) bool {
	for _, l := range locals {
		if p, err := netip.ParsePrefix(l.String()); err == nil && p.Addr().Unmap() == a {
			return true
		}
	}
	return false
}

// addresses tells Raft where a node is now: what gossip says, because a node
// that has moved cannot tell Raft before it is found.
type addresses struct{ d *Driver }

var errUnknownAddress = errors.New("address unknown")

// ServerAddr implements raft.ServerAddressProvider. With an error Raft takes
// the address of its configuration.
func (a addresses) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if addr := a.d.addressOf(string(id)); addr != "" {
		return raft.ServerAddress(addr), nil
	}
	return "", errUnknownAddress
}

// addressOf returns where gossip finds a node, or an empty string.
func (d *Driver) addressOf(id string) string {
	if id == d.home.id {
		return d.port.advertise.String()
	}
	return d.gossip.addressOf(id)
}

// servers returns the servers of Raft's configuration.
func (d *Driver) servers() []raft.Server {
	f := d.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}

// follow keeps track of who leads, and leads when it is this node's turn.
func (d *Driver) follow(ctx context.Context) {
	news := make(chan raft.Observation, 16)
	o := raft.NewObserver(news, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	d.raft.RegisterObserver(o)
	defer d.raft.DeregisterObserver(o)
	stop := func() {}
	for {
		select {
		case leads := <-d.lordship:
			stop()
			stop = func() {}
			if leads {
				stop = d.startLead(ctx)
			}
			d.wake.fire()
		case <-news:
			d.wake.fire()
		case <-ctx.Done():
			stop()
			for { // Raft waits for this to be read
				select {
				case <-d.lordship:
				default:
					return
				}
			}
		}
	}
}

// startLead leads in another goroutine until the function that it returns is
// called, which waits for the end.
func (d *Driver) startLead(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { d.lead(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}

func (d *Driver) newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return d.port.dial(ctx, forControl, addr)
		},
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     30 * time.Second,
		DisableCompression:  true,
	}}
}
