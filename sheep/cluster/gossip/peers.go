package gossip

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"sheepdog/sheep"
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
	suspects := d.discovery.suspects(ids)
	l.mu.Lock()
	defer l.mu.Unlock()
	var peers []cluster.Peer
	for _, s := range servers {
		p := cluster.Peer{
			ID: string(s.ID), Addr: string(s.Address),
			Voter: s.Suffrage == raft.Voter, Leader: string(s.ID) == d.data.id,
			Suspect: suspects[string(s.ID)],
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

// Peers returns the nodes of the cluster, as its leader sees them.
func (d *Driver) Peers(ctx context.Context) ([]cluster.Peer, error) {
	var peers []cluster.Peer
	err := d.askLeader(ctx, pathPeers, struct{}{}, &peers, func() (err error) {
		peers, err = d.peers(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ask the leader for the members: %w: %w", sheep.ErrCluster, err)
	}
	return peers, nil
}
