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

// state returns who is who; only the leader knows.
func (d *Driver) state(ctx context.Context) ([]cluster.Peer, error) {
	r, err := d.reigning()
	if err != nil {
		return nil, err
	}
	if err := d.confirm(ctx, r); err != nil {
		return nil, err
	}
	servers, seats, now := d.servers(), d.seats(), boottime()
	var ids []string
	for _, s := range servers {
		ids = append(ids, string(s.ID))
	}
	suspects := d.gossip.suspects(ids)
	r.mu.Lock()
	defer r.mu.Unlock()
	var peers []cluster.Peer
	for _, s := range servers {
		p := cluster.Peer{
			ID: string(s.ID), Addr: string(s.Address),
			Voter: s.Suffrage == raft.Voter, Leader: string(s.ID) == d.home.id,
			Suspect: suspects[string(s.ID)],
		}
		for _, seat := range seats {
			if seat.id != p.ID {
				continue
			}
			p.Member = seat.who
			if seen, ok := r.seen[seat.who]; ok {
				p.Silent = max(0, time.Duration(now-seen))
			}
			p.Suspect = p.Suspect || p.Silent > 3*d.cfg.Beat
		}
		peers = append(peers, p)
	}
	return peers, nil
}

// Peers returns the nodes of the cluster, as its leader sees them.
func (d *Driver) Peers(ctx context.Context) ([]cluster.Peer, error) {
	var peers []cluster.Peer
	err := d.ask(ctx, pathState, struct{}{}, &peers, func() (err error) {
		peers, err = d.state(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ask the leader for the members: %w: %w", sheep.ErrCluster, err)
	}
	return peers, nil
}
