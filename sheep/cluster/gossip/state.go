package gossip

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"sheepdog/sheep"
)

// A Peer is a node of the cluster, as its leader sees it.
type Peer struct {
	ID      string            `json:"id"`
	Addr    string            `json:"addr"`   // of the cluster's traffic
	Member  sheep.Incarnation `json:"member"` // 0 if it is not a member now
	Voter   bool              `json:"voter"`
	Leader  bool              `json:"leader"`
	Suspect bool              `json:"suspect"` // gossip does not find it, or it has not been heard of for two beats
	Silent  time.Duration     `json:"silent"`  // since it was heard of last
}

// state returns who is who; only the leader knows.
func (d *Driver) state(ctx context.Context) ([]Peer, error) {
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
	var peers []Peer
	for _, s := range servers {
		p := Peer{
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
func (d *Driver) Peers(ctx context.Context) ([]Peer, error) {
	var peers []Peer
	err := d.ask(ctx, pathState, struct{}{}, &peers, func() (err error) {
		peers, err = d.state(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ask the leader for the members: %w: %w", sheep.ErrCluster, err)
	}
	return peers, nil
}
