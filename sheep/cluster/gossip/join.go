package gossip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"sheepdog/sheep/cluster"
)

// searchReport is how often a node says in its log that it finds no cluster.
const searchReport = 10 * time.Second

// join has the leader replicate the log to this node, and logs its join.
func (d *Driver) join(ctx context.Context, hello []byte) {
	defer close(d.joinLogged)
	followed := make(chan error, 1)
	go func() { followed <- d.followNewest(ctx) }()
	err := d.findCluster(ctx)
	if newer := <-followed; err == nil {
		err = newer
	}
	if err == nil {
		go d.stayServer(ctx)
		err = d.logJoin(ctx, hello)
	}
	if errors.Is(err, errDeparted) { // the join was logged, which this node did not hear of until it was over
		err = fmt.Errorf("%w: %w", cluster.ErrRejoin, err)
	}
	if err != nil && ctx.Err() == nil {
		d.fail(fmt.Errorf("join the cluster: %w", err))
	}
}

// stayServer asks again to be a server until the join is delivered: a leader may
// have removed this one as absent since, and Raft does not tell it then who leads.
func (d *Driver) stayServer(ctx context.Context) {
	for {
		select {
		case <-d.stopped:
			return
		case <-ctx.Done():
			return
		case <-time.After(d.cfg.Lease):
		}
		d.mu.Lock()
		delivered := slices.ContainsFunc(d.state.members, func(m member) bool { return m.inc == d.inc })
		d.mu.Unlock()
		if delivered {
			return
		}
		d.addSelf(ctx)
	}
}

// logJoin logs this member's join. That it was logged renews the lease: a
// majority has taken the entry from a leader that was asked later than the lease
// counts from.
func (d *Driver) logJoin(ctx context.Context, hello []byte) error {
	c := command{kind: commandJoin, inc: d.inc, time: time.Now().UnixNano(), id: d.data.id, data: hello}
	body := c.append(nil)
	return d.retry(ctx, func(ctx context.Context) error {
		asked := boottime()
		err := d.askLeader(ctx, pathApply, body, nil, func() error { return d.apply(ctx, body, "") })
		if err == nil {
			d.leaseStart.CompareAndSwap(0, asked)
		}
		return err
	})
}

// findCluster returns when a leader replicates its log to this node.
func (d *Driver) findCluster(ctx context.Context) error {
	pause := firstRetry
	var reported time.Time
	began := time.Now()
	for {
		if err := d.ended(); err != nil {
			return err
		}
		changed := d.wake.wait()
		err := d.addSelf(ctx)
		if err == nil || errors.Is(err, errOtherCluster) {
			return err
		}
		if now := time.Now(); now.Sub(began) > searchReport/2 && now.Sub(reported) > searchReport {
			reported = now
			d.log.Warn("found no cluster that lets this node in yet, and goes on asking",
				"asked", strings.Join(d.knownAddresses(ctx), " "), "err", err)
		}
		select {
		case <-changed:
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		pause = min(2*pause, lastRetry)
	}
}

// addSelf asks the leader to add this node to its servers: the leader that Raft
// knows of, else the one that any other node knows of.
func (d *Driver) addSelf(ctx context.Context) error {
	l, err := d.leader()
	if err == nil && l.ID != "" {
		if err = d.addSelfAt(ctx, l); err == nil || errors.Is(err, errOtherCluster) {
			return err
		}
	}
	all := err
	for _, addr := range d.knownAddresses(ctx) {
		once, cancel := context.WithTimeout(ctx, d.cfg.Lease/4)
		var l leaderAnswer
		err := d.post(once, addr, pathLeader, struct{}{}, &l)
		if err == nil && l.ID == "" {
			err = fmt.Errorf("%s: %w, and knows of none that does", addr, errNotLeader)
		}
		if err == nil && l.ID != d.data.id {
			err = d.addSelfAt(once, l)
		}
		cancel()
		if err == nil || errors.Is(err, errOtherCluster) {
			return err
		}
		all = errors.Join(all, err)
	}
	if all == nil {
		all = errNotLeader
	}
	return all
}

func (d *Driver) addSelfAt(ctx context.Context, l leaderAnswer) error {
	q := addServerRequest{ID: d.data.id, Addr: d.mux.advertise.String(), Started: d.discovery.started, Cluster: d.clusterID().append(nil)}
	var a addServerAnswer
	err := d.askAt(ctx, l, pathAddServer, q, &a, func() (err error) {
		a, err = d.addServer(ctx, q)
		return err
	})
	if err != nil {
		return err
	}
	id, err := decodeClusterID(a.Cluster)
	if err != nil {
		return err
	}
	if d.clusterID().known() {
		return d.followTimeline(id)
	}
	d.setClusterID(id)
	return nil
}

// followNewest looks for a timeline that supersedes that of this node, which may
// have been away while recovery was forced: before it joins, so that those that
// were given up do nothing for themselves.
func (d *Driver) followNewest(ctx context.Context) error {
	if !d.clusterID().known() {
		return nil
	}
	for _, s := range d.survey(ctx) {
		if err := d.followTimeline(s.cluster); err != nil {
			return err
		}
	}
	return nil
}

// followTimeline ends this life if the timeline id supersedes that of this node:
// its next life forgets its log, and follows the other one.
func (d *Driver) followTimeline(id clusterID) error {
	if !id.supersedes(d.clusterID()) {
		return nil
	}
	if err := d.data.rejoin(id); err != nil {
		return err
	}
	err := rejoining("recovery was forced on other nodes, which this one follows from now on")
	d.fail(err)
	return err
}

// addServer adds a node to Raft's servers; only the leader does.
func (d *Driver) addServer(_ context.Context, q addServerRequest) (addServerAnswer, error) {
	l, err := d.leading()
	if err != nil {
		return addServerAnswer{}, err
	}
	theirs, err := decodeClusterID(q.Cluster)
	if err != nil {
		return addServerAnswer{}, err
	}
	own := d.clusterID()
	a := addServerAnswer{Cluster: own.append(nil)}
	switch {
	case q.ID == "" || len(q.ID) > 64 || q.Addr == "":
		return a, errBadCommand
	case theirs.known() && theirs.uuid != own.uuid:
		return a, fmt.Errorf("%w: the log of %s tells of cluster %v, this is %v; "+
			"remove the directory \"gossip\" of its store if it is to forget the other one", errOtherCluster, q.Addr, theirs, own)
	case theirs.supersedes(own):
		return a, d.followTimeline(theirs)
	case theirs.known() && theirs != own:
		return a, nil // it learns from the answer what it has to do
	}
	d.discovery.setAddress(q.ID, nodeAddress{q.Addr, q.Started})
	l.mu.Lock()
	l.joining[q.ID] = boottime()
	l.mu.Unlock()
	if d.configuredAddress(q.ID) == q.Addr {
		return a, nil
	}
	if err := d.vacate(q.Addr, q.ID); err != nil {
		return a, fmt.Errorf("%w: %w", errNotLeader, err)
	}
	done := d.raft.AddNonvoter(raft.ServerID(q.ID), raft.ServerAddress(q.Addr), 0, applyTimeout)
	if err := done.Error(); err != nil {
		return a, fmt.Errorf("%w: %w", errNotLeader, err)
	}
	d.log.Info("a node follows the log", "node", q.ID, "address", q.Addr)
	d.wake.fire()
	return a, nil
}

// vacate takes a node that has left out of Raft's servers if its address is now
// that of the node id, as after a machine got a new disk. Raft has an address once.
func (d *Driver) vacate(addr, id string) error {
	for _, s := range d.servers() {
		if string(s.Address) != addr || string(s.ID) == id {
			continue
		}
		if slices.ContainsFunc(d.members(), func(m member) bool { return m.id == string(s.ID) }) {
			return fmt.Errorf("node %s has the address %s and has not left yet", s.ID, addr)
		}
		if err := d.raft.RemoveServer(s.ID, 0, applyTimeout).Error(); err != nil {
			return fmt.Errorf("remove node %s, whose address %s node %s has now: %w", s.ID, addr, id, err)
		}
		d.log.Info("a node has left for good, another one has its address", "node", s.ID, "address", addr)
	}
	return nil
}

// knownAddresses returns the addresses of nodes that this one has ever heard of,
// its seeds first.
func (d *Driver) knownAddresses(ctx context.Context) []string {
	addrs := append(d.seeds(ctx), d.discovery.addresses()...)
	for _, s := range d.servers() {
		if string(s.ID) != d.data.id && d.addressOf(string(s.ID)) == "" {
			addrs = append(addrs, string(s.Address))
		}
	}
	if peers, err := d.data.peers(); err == nil {
		for _, addr := range peers {
			addrs = append(addrs, addr)
		}
	}
	var known []string
	for _, addr := range addrs {
		if addr != d.mux.advertise.String() && !slices.Contains(known, addr) {
			known = append(known, addr)
		}
	}
	return known
}
