package cluster

import (
	"context"
	"fmt"
	"time"

	"sheepdog/sheep"
)

// A Peer is a node of the cluster, as its leader sees it.
type Peer struct {
	ID      string            `json:"id"`      // the same in all lives of the node
	Addr    string            `json:"addr"`    // of the cluster's traffic
	Member  sheep.Incarnation `json:"member"`  // 0 if it is not a member now
	Voter   bool              `json:"voter"`   // one of those that decide
	Leader  bool              `json:"leader"`  // who has been asked
	Suspect bool              `json:"suspect"` // not heard of as it should be
	Silent  time.Duration     `json:"silent"`  // since it was heard of last
}

// A Reporter is a driver that has a leader, which knows how the nodes are.
type Reporter interface {
	Peers(ctx context.Context) ([]Peer, error)
}

// Peers returns the nodes as the leader of the cluster sees them, or
// sheep.ErrNotSupported if the driver knows of no leader.
func (c *Cluster) Peers(ctx context.Context) ([]Peer, error) {
	r, ok := c.cfg.Driver.(Reporter)
	if !ok {
		return nil, fmt.Errorf("members of the cluster: %w: the driver has no leader", sheep.ErrNotSupported)
	}
	return r.Peers(ctx)
}
