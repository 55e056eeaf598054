package gossip

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"sheepdog/sheep/cluster"
)

// open starts everything that a member needs before it can ask to be one.
func (d *Driver) open(ctx context.Context, wg *sync.WaitGroup, m cluster.Machine) error {
	s, err := newSecrets(d.cfg.Key)
	if err != nil {
		return fmt.Errorf("gossip cluster: %w", err)
	}
	if d.data, err = openDataDir(d.cfg.Dir); err != nil {
		return err
	}
	id, err := d.data.clusterID()
	if err != nil {
		return fmt.Errorf("open the cluster's log: %w", err)
	}
	d.mu.Lock()
	d.cluster = id
	d.mu.Unlock()
	if d.discovery, err = newDiscovery(d); err != nil {
		return err
	}
	if d.mux, err = listen(d.cfg, s, d.clusterID); err != nil {
		return err
	}
	d.client = d.newClient()
	libLog := newLibraryLog(d.log)
	if err := d.startRaft(ctx, libLog, m); err != nil {
		return err
	}
	if err := d.discovery.start(s, libLog); err != nil {
		return err
	}
	d.mu.Lock()
	d.running = true
	d.mu.Unlock()
	server := d.newServer()
	wg.Go(func() { _ = server.Serve(d.mux.control) }) // until the port is closed
	context.AfterFunc(ctx, func() { server.Close() })
	return nil
}

// startRaft starts Raft with the log of this node's directory, or with that of
// the cluster or timeline that this node has to begin.
func (d *Driver) startRaft(ctx context.Context, libLog *libraryLog, m cluster.Machine) error {
	conf := d.raftConfig(libLog)
	var err error
	if d.snapshots, err = raft.NewFileSnapshotStoreWithLogger(d.cfg.Dir, 2, conf.Logger); err != nil {
		return fmt.Errorf("open the cluster's snapshots: %w", err)
	}
	d.trans = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: addresses{d},
		Stream:                raftStreams{d.mux.raft},
		MaxPool:               3,
		Timeout:               max(2*d.cfg.ElectionTimeout, 2*time.Second),
		Logger:                conf.Logger,
	})
	if err := d.prepareLog(ctx, conf, m); err != nil {
		return err
	}
	cache, err := raft.NewLogCache(512, d.data)
	if err != nil {
		return err
	}
	if d.raft, err = raft.NewRaft(conf, fsm{d}, cache, d.data, d.snapshots, d.trans); err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	return nil
}

func (d *Driver) raftConfig(libLog *libraryLog) *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(d.data.id)
	conf.HeartbeatTimeout, conf.ElectionTimeout = d.cfg.ElectionTimeout, d.cfg.ElectionTimeout
	conf.LeaderLeaseTimeout = d.cfg.LeaderLease
	conf.SnapshotThreshold, conf.TrailingLogs = d.cfg.SnapshotAfter, d.cfg.Trailing
	conf.SnapshotInterval = 30 * time.Second
	conf.ShutdownOnRemove = false // it would keep this node from coming back
	conf.NoLegacyTelemetry = true
	conf.NotifyCh = d.leaderCh
	conf.Logger = libLog.hclog()
	return conf
}

// prepareLog begins a timeline or a cluster, if that is for this node to do. A
// node without a log that knows of others waits for them instead.
func (d *Driver) prepareLog(ctx context.Context, conf *raft.Config, m cluster.Machine) error {
	next, err := d.data.recovery()
	if err == nil && next.known() {
		err = d.recover(next, conf, m)
	}
	if err != nil {
		return fmt.Errorf("recover without a majority: %w", err)
	}
	old, err := raft.HasExistingState(d.data, d.data, d.snapshots)
	if err != nil {
		return fmt.Errorf("open the cluster's log: %w", err)
	}
	if old || len(d.seeds(ctx)) > 0 || len(d.discovery.known) > 0 {
		return nil
	}
	id, err := d.data.bootstrap(conf, d.snapshots, d.trans, d.mux.advertise.String())
	if err != nil {
		return fmt.Errorf("begin a new cluster: %w", err)
	}
	d.setClusterID(id)
	d.log.Info("this node begins a new cluster", "address", d.mux.advertise)
	return nil
}

func (d *Driver) newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return d.mux.dial(ctx, streamControl, addr)
		},
		MaxIdleConnsPerHost: 2,
		IdleConnTimeout:     30 * time.Second,
		DisableCompression:  true,
	}}
}
