package gossip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

var _ cluster.QuorumRecoverer = (*Driver)(nil)

// statusTimeout bounds the wait for the status of one node.
const statusTimeout = time.Second

// A nodeStatus is what a node tells of itself when there may be no leader.
type nodeStatus struct {
	ID      string   `json:"id"`
	Cluster []byte   `json:"cluster"`
	Term    uint64   `json:"term"`  // of the last entry of its log
	Index   uint64   `json:"index"` // of that entry
	Voters  []string `json:"voters"`
	Leased  bool     `json:"leased"` // it has a lease: there was a leader just now

	addr    string    // where it was asked
	cluster clusterID // decoded
}

// status returns this node's own.
func (d *Driver) status() nodeStatus {
	id := d.clusterID()
	s := nodeStatus{ID: d.data.id, Cluster: id.append(nil), Leased: d.Lease() == nil, cluster: id}
	s.Index = d.raft.LastIndex()
	s.Term = d.lastTerm(s.Index)
	for _, server := range d.servers() {
		if server.Suffrage == raft.Voter {
			s.Voters = append(s.Voters, string(server.ID))
		}
	}
	return s
}

// lastTerm returns the term of the last entry, also if only a snapshot has it.
func (d *Driver) lastTerm(index uint64) uint64 {
	var last raft.Log
	if err := d.data.GetLog(index, &last); err == nil {
		return last.Term
	}
	list, err := d.snapshots.List()
	if err != nil || len(list) == 0 {
		return 0
	}
	return list[0].Term // the newest
}

// survey returns the status of this node and of all others of its cluster that
// answer.
func (d *Driver) survey(ctx context.Context) []nodeStatus {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	own := d.status()
	var mu sync.Mutex
	found := map[string]nodeStatus{own.ID: own} // guarded by mu; by ID
	var wg sync.WaitGroup
	for _, addr := range d.knownAddresses(ctx) {
		wg.Go(func() {
			var s nodeStatus
			err := d.post(ctx, addr, pathStatus, struct{}{}, &s)
			if err == nil {
				s.cluster, err = decodeClusterID(s.Cluster)
			}
			if err != nil || s.cluster.uuid != own.cluster.uuid || s.ID == own.ID {
				return
			}
			s.addr = addr
			mu.Lock()
			defer mu.Unlock()
			found[s.ID] = s
		})
	}
	wg.Wait()
	all := make([]nodeStatus, 0, len(found))
	for _, s := range found {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b nodeStatus) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// A quorum is what nodes that reach each other can do.
type quorum struct {
	newest  nodeStatus // has the log that tells most
	reached bool       // a majority of the voters that this log knows is there
	leased  bool       // somebody has a lease
}

// quorumOf judges the nodes that have answered, at least one.
func quorumOf(all []nodeStatus) quorum {
	q := quorum{newest: all[0]}
	for _, s := range all {
		q.leased = q.leased || s.Leased
		newer := s.cluster.supersedes(q.newest.cluster)
		if s.cluster == q.newest.cluster {
			newer = cmp.Or(cmp.Compare(s.Term, q.newest.Term), cmp.Compare(s.Index, q.newest.Index)) > 0
		}
		if newer {
			q.newest = s
		}
	}
	present := 0
	for _, s := range all {
		if s.cluster == q.newest.cluster && slices.Contains(q.newest.Voters, s.ID) {
			present++
		}
	}
	q.reached = present > len(q.newest.Voters)/2
	return q
}

// RecoverQuorum implements cluster.QuorumRecoverer.
func (d *Driver) RecoverQuorum(ctx context.Context) (restart func(), err error) {
	if err := d.ended(); err != nil {
		return nil, err
	}
	if !d.clusterID().known() {
		return nil, fmt.Errorf("%w: this node has never been in a cluster", errNotMember)
	}
	q, err := d.awaitLeases(ctx)
	if err != nil {
		return nil, fmt.Errorf("recover without a majority: %w", err)
	}
	id := q.newest.cluster.next()
	d.log.Warn("recovery without a majority is forced", "cluster", id, "node", q.newest.ID, "term", q.newest.Term, "index", q.newest.Index)
	if q.newest.ID == d.data.id {
		return d.beginTimeline(id)
	}
	ctx, cancel := context.WithTimeout(ctx, d.attempt())
	defer cancel()
	if err := d.post(ctx, q.newest.addr, pathRecover, recoverRequest{ID: q.newest.ID, Cluster: id.append(nil)}, nil); err != nil {
		return nil, fmt.Errorf("recover without a majority: %w: %w", sheep.ErrCluster, err)
	}
	return func() {
		if err := d.followTimeline(id); err != nil && !errors.Is(err, cluster.ErrRejoin) {
			d.log.Error("follow the recovered cluster", "err", err)
		}
	}, nil
}

// awaitLeases returns when no node that can be reached has a lease any more: until
// then it may serve. It returns cluster.ErrQuorum if a majority can be reached.
func (d *Driver) awaitLeases(ctx context.Context) (quorum, error) {
	over := time.After(2 * d.cfg.Lease)
	for {
		q := quorumOf(d.survey(ctx))
		switch {
		case q.reached:
			return q, cluster.ErrQuorum
		case !q.leased:
			return q, nil
		}
		select {
		case <-time.After(d.cfg.Heartbeat):
		case <-over:
			return q, fmt.Errorf("%w: a leader is still heard of", cluster.ErrQuorum)
		case <-ctx.Done():
			return q, context.Cause(ctx)
		}
	}
}

// beginTimeline has the next life of this node begin the timeline id. It ends
// this one when the function that it returns is called.
func (d *Driver) beginTimeline(id clusterID) (restart func(), err error) {
	switch {
	case !id.supersedes(d.clusterID()):
		return nil, fmt.Errorf("%w: recovery was forced by somebody else", sheep.ErrAgain)
	case d.Lease() == nil:
		return nil, cluster.ErrQuorum
	case !d.recovering.CompareAndSwap(false, true):
		return nil, fmt.Errorf("%w: recovery is being forced already", sheep.ErrAgain)
	}
	if err := d.data.askRecovery(id); err != nil {
		d.recovering.Store(false)
		return nil, err
	}
	return func() { d.fail(rejoining("recovery was forced: this node begins a new log")) }, nil
}

func rejoining(reason string) error {
	return fmt.Errorf("%w: %w: %s", sheep.ErrCluster, cluster.ErrRejoin, reason)
}

// recover begins the timeline id with what Raft's log of this node tells: this
// node is its only voter, and what was not committed counts as committed. A
// crash in the middle leaves the request, and it is done again.
func (d *Driver) recover(id clusterID, conf *raft.Config, m cluster.Machine) error {
	d.setClusterID(id)
	old, err := raft.HasExistingState(d.data, d.data, d.snapshots)
	if err != nil {
		return err
	}
	servers := onlyVoter(conf.LocalID, d.mux.advertise.String())
	if old {
		err = d.replay(m, func() error {
			return raft.RecoverCluster(conf, fsm{d}, d.data, d.data, d.snapshots, d.trans, servers)
		})
	} else { // it had forgotten its log to follow another node, which was lost, too
		err = raft.BootstrapCluster(conf, d.data, d.data, d.snapshots, d.trans, servers)
	}
	if err != nil {
		return err
	}
	d.log.Warn("this node goes on without those that are lost", "cluster", id)
	return d.data.endRecovery()
}

// replay gives the machine what f makes Raft's FSM apply.
func (d *Driver) replay(m cluster.Machine, f func() error) error {
	if err := m.Restore(0, nil); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- f() }() // ends, because all that it waits for happens below
	var failed error
	for {
		select {
		case v := <-d.deliveries:
			if err := d.deliver(v, m); err != nil && failed == nil {
				failed = err
			}
		case err := <-done:
			return cmp.Or(failed, err)
		}
	}
}
