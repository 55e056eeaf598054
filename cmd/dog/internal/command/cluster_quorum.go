package command

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// A lostMajority is a cluster whose voters can decide nothing.
type lostMajority struct {
	kept, gone []sheep.Node // that answered, and that did not
}

// lostMajority returns what is left of the cluster if it has lost the majority of
// its voters, or nil if it has not, or needs none.
func (s *session) lostMajority(ctx context.Context) *lostMajority {
	peers, err := s.Members(ctx)
	if err != nil {
		return nil
	}
	return judgeMajority(peers)
}

// judgeMajority does so with what a node knows of its peers.
func judgeMajority(peers []proto.PeerState) *lostMajority {
	lost := &lostMajority{}
	voters, present := 0, 0
	for _, p := range peers {
		if p.Bits&proto.PeerLeader != 0 {
			return nil
		}
		vote := int(p.Bits & proto.PeerVoter / proto.PeerVoter)
		voters += vote
		if p.Bits&proto.PeerSuspect != 0 {
			lost.gone = append(lost.gone, p.Node)
			continue
		}
		present += vote
		lost.kept = append(lost.kept, p.Node)
	}
	if present > voters/2 {
		return nil // they are about to elect a leader
	}
	return lost
}

// warning says what recovery without a majority means.
func (l *lostMajority) warning() string {
	if l == nil {
		return ""
	}
	return fmt.Sprintf("This cluster has lost the majority of its voters. It would go on with\n%s"+
		"and give up for ever\n%s"+
		"Lost are objects that only those have, what clients wrote and did not flush, and\n"+
		"what was changed while the others could not be heard of. Make sure that the nodes\n"+
		"that are given up do not run: where they cannot be reached from here, they might be\n"+
		"a cluster of their own. They may be started again later; they join as new nodes.\n\n",
		listed(l.kept), listed(l.gone))
}

func listed(nodes []sheep.Node) string {
	var b strings.Builder
	for _, n := range nodes {
		fmt.Fprintf(&b, "  - %v\n", n.Addr)
	}
	return b.String()
}

// How long the nodes that are left may take to begin anew.
const (
	survivorsPatience = time.Minute
	survivorsPause    = 250 * time.Millisecond
)

// awaitSurvivors waits until the nodes that are left have begun anew, and makes
// them go on without the others. Meanwhile they cannot always be reached.
func (s *session) awaitSurvivors(ctx context.Context, lost *lostMajority) error {
	s.print("The nodes that are left begin anew ...\n")
	s.out.Show()
	over := time.After(survivorsPatience)
	for {
		done, err := s.reviveOnce(ctx, len(lost.kept))
		if done {
			return err
		}
		select {
		case <-time.After(survivorsPause):
		case <-over:
			return fail(ExitFailure, "not all of the %d nodes have come back: %v", len(lost.kept), err).
				and("Start them, or give them up, too, and then force recovery again.")
		case <-ctx.Done():
			return interrupted()
		}
	}
}

// reviveOnce makes the members go on if there are so many, or returns why it is
// too early for that.
func (s *session) reviveOnce(ctx context.Context, want int) (done bool, err error) {
	c := remote.New(s.app.env.Dial, s.entry(), func(*remote.ConnectError) {})
	defer c.Close()
	peers, err := c.Members(ctx)
	if err != nil {
		return false, err
	}
	leads, members := false, 0
	for _, p := range peers {
		leads = leads || p.Bits&proto.PeerLeader != 0
		if p.Bits&proto.PeerMember != 0 {
			members++
		}
	}
	if !leads || members < want {
		return false, fmt.Errorf("%d have", members)
	}
	err = c.ForceRecover(ctx)
	switch remote.Result(err) {
	case proto.ResultForceRecover, proto.ResultWaitForFormat:
		return true, nil // there is nothing to wait for
	}
	if unreachable(err) {
		return false, err
	}
	return true, s.forceResult(err)
}
