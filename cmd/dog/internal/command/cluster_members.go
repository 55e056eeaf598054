package command

import (
	"cmp"
	"context"
	"slices"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// A memberRow is the JSON form of a member.
type memberRow struct {
	Node    string  `json:"node"`
	Role    string  `json:"role"`
	Present bool    `json:"present"`
	Suspect bool    `json:"suspect"`
	Contact float64 `json:"last_contact_seconds"` // before now
}

// clusterMembers shows who decides in a cluster of several machines, and who of
// its nodes has not been heard of.
func clusterMembers(ctx context.Context, s *session) error {
	peers, err := s.Members(ctx)
	if err != nil {
		return failed(err, "Failed to get the members of the cluster: %s", remote.Text(err))
	}
	slices.SortFunc(peers, func(a, b proto.PeerState) int {
		return cmp.Or(int(b.Bits&proto.PeerMember)-int(a.Bits&proto.PeerMember), sheep.CompareAddr(a.Node.Addr, b.Node.Addr))
	})
	if s.opts.json {
		rows := []memberRow{}
		for _, p := range peers {
			rows = append(rows, memberRow{
				Node: p.Node.Addr.String(), Role: roleOf(p), Present: p.Bits&proto.PeerMember != 0,
				Suspect: p.Bits&proto.PeerSuspect != 0, Contact: p.Silent.Seconds(),
			})
		}
		return s.writeJSON(rows)
	}
	leads := slices.ContainsFunc(peers, func(p proto.PeerState) bool { return p.Bits&proto.PeerLeader != 0 })
	if !leads {
		s.warn("The cluster has no leader. The node that was asked has looked for the others itself.")
	}
	if !s.opts.raw {
		s.print("  Node                    Role      Last contact  State\n")
	}
	for _, p := range peers {
		s.print("  %-22v  %-8s  %12s  %s\n", p.Node.Addr, roleOf(p), contactOf(p, leads), stateOf(p, leads))
	}
	return nil
}

func roleOf(p proto.PeerState) string {
	switch {
	case p.Bits&proto.PeerLeader != 0:
		return "leader"
	case p.Bits&proto.PeerVoter != 0:
		return "voter"
	}
	return "follower"
}

func contactOf(p proto.PeerState, leads bool) string {
	if p.Bits&proto.PeerMember == 0 || !leads {
		return "-"
	}
	return p.Silent.Round(10 * time.Millisecond).String()
}

func stateOf(p proto.PeerState, leads bool) string {
	switch {
	case !leads && p.Bits&proto.PeerSuspect != 0:
		return "no answer"
	case !leads:
		return "ok"
	case p.Bits&proto.PeerMember == 0:
		return "absent"
	case p.Bits&proto.PeerSuspect != 0:
		return "suspect"
	}
	return "ok"
}
