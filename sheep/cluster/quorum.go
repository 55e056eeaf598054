package cluster

import (
	"context"
	"errors"
	"fmt"

	"sheepdog/sheep"
)

// ErrRejoin is wrapped by what a driver's Run returns when the membership is
// over, or cannot begin, but that of a new life of the process can.
var ErrRejoin = errors.New("this process has to begin again as a new member")

// ErrQuorum says that recovery without a majority is refused: a majority can be
// reached, or will be.
var ErrQuorum = fmt.Errorf("%w: a majority of the cluster's voters can be reached", sheep.ErrInvalid)

// A QuorumRecoverer is a driver that stands still when a majority of its voters
// is lost.
type QuorumRecoverer interface {
	// RecoverQuorum makes the nodes that this one can reach a cluster without
	// the others, which are given up for ever: it has the node that knows most
	// begin a new log, which has no members. All nodes have to begin a new life
	// to join it, and do so by themselves; this one when the caller, which may
	// have something to say before, calls restart. With a majority it does
	// nothing and returns ErrQuorum.
	RecoverQuorum(ctx context.Context) (restart func(), err error)
}

// maxSkip is how many epochs a forced recovery leaves out where nodes that are
// given up may live: if they should be a cluster of their own, its epochs are not
// those of this one, and never newer.
const maxSkip = 1000

func (c *Cluster) skippedEpochs() uint32 {
	if _, ok := c.cfg.Driver.(QuorumRecoverer); ok {
		return maxSkip
	}
	return 0
}

// RecoverQuorum has the driver go on without a lost majority, see
// QuorumRecoverer. The members then wait for those that are missing until
// ForceRecover. It returns sheep.ErrNotSupported if the driver needs no
// majority.
func (c *Cluster) RecoverQuorum(ctx context.Context) (restart func(), err error) {
	r, ok := c.cfg.Driver.(QuorumRecoverer)
	if !ok {
		return nil, fmt.Errorf("recover without a majority: %w: the driver needs none", sheep.ErrNotSupported)
	}
	return r.RecoverQuorum(ctx)
}
