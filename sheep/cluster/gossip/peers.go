package gossip

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"sheepdog/sheep/cluster"
)

var _ cluster.Reporter = (*Driver)(nil)

// peers returns the nodes and how they are; only the leader knows.
func (d *Driver) peers(ctx context.Context) ([]cluster.Peer, error) {
	l, err := d.leading()
	if err != nil {
		return nil, err
	}
	if err := d.verifyLeader(ctx, l); err != nil {
		return nil, err
	}
	servers, members, now := d.servers(), d.members(), boottime()
	var ids []string
	for _, s := range servers {
		ids = append(ids, string(s.ID))
	}
	missing := d.discovery.missing(ids)
	l.mu.Lock()
	defer l.mu.Unlock()
	var peers []cluster.Peer
	for _, s := range servers {
		p := cluster.Peer{
			ID: string(s.ID), Addr: string(s.Address),
			Voter: s.Suffrage == raft.Voter, Leader: string(s.ID) == d.data.id,
			Suspect: missing[string(s.ID)],
		}
		for _, m := range members {
			if m.id != p.ID {
				continue
			}
			p.Member = m.inc
			if last, ok := l.lastContact[m.inc]; ok {
				p.Silent = max(0, time.Duration(now-last))
			}
			p.Suspect = p.Suspect || p.Silent > 3*d.cfg.Heartbeat
		}
		peers = append(peers, p)
	}
	return peers, nil
}

// Peers implements cluster.Reporter. Without a leader it returns what this node
// finds out by itself.
func (d *Driver) Peers(ctx context.Context) ([]cluster.Peer, error) {
	if err := d.ended(); err != nil {
		return nil, fmt.Errorf("the members of the cluster: %w", err)
	}
	var peers []cluster.Peer
	once, cancel := context.WithTimeout(ctx, d.attempt()/2)
	defer cancel()
	err := d.askLeader(once, pathPeers, struct{}{}, &peers, func() (err error) {
		peers, err = d.peers(once)
		return err
	})
	if err != nil {
		d.log.Debug("ask the leader for the members", "err", err)
		peers = d.orphans(ctx)
	}
	return peers, nil
}

// orphans returns the nodes of a cluster without a leader: the servers that this
// node knows, and those that answer though it did not. Those that do not answer
// are suspects.
func (d *Driver) orphans(ctx context.Context) []cluster.Peer {
	all := d.survey(ctx)
	answered := map[string]string{}
	for _, s := range all {
		answered[s.ID] = cmp.Or(s.addr, d.mux.advertise.String())
	}
	voters := quorumOf(all).newest.Voters
	members := d.members()
	var peers []cluster.Peer
	add := func(id, addr string) {
		_, there := answered[id]
		p := cluster.Peer{ID: id, Addr: addr, Voter: slices.Contains(voters, id), Suspect: !there}
		if i := slices.IndexFunc(members, func(m member) bool { return m.id == id }); i >= 0 {
			p.Member = members[i].inc
		}
		peers = append(peers, p)
	}
	for _, s := range d.servers() {
		id := string(s.ID)
		add(id, cmp.Or(answered[id], d.addressOf(id), string(s.Address)))
		delete(answered, id)
	}
	for _, id := range slices.Sorted(maps.Keys(answered)) {
		add(id, answered[id])
	}
	return peers
}
