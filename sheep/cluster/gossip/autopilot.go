package gossip

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// An autopilot chooses who should vote.
type autopilot struct {
	servers []raft.Server            // of Raft's configuration
	members []member                 // in the order of their joins
	self    string                   // the leader's ID
	absent  map[string]time.Duration // for how long those servers have not been members
	joining map[string]bool          // servers that are about to be members
	timeout time.Duration            // after which an absent voter counts no more
}

// A change is one step to the right voters.
type change struct {
	op string // "promote", "demote" or "remove"
	id raft.ServerID
}

// next returns the next step, or false if all is as it should be.
//
// The aim is an odd number of voters, at most MaxVoters, all of them members.
// An absent voter is removed when there is somebody to replace it, or when it
// has been absent for long; until then it counts, so that a cluster that stops
// and starts as a whole finds its majority. It goes before its successor comes:
// the other way round there would be one more voter to win.
func (a autopilot) next() (change, bool) {
	var absent, present, ready []raft.Server
	for _, s := range a.servers {
		member := a.isMember(s.ID)
		switch {
		case s.Suffrage == raft.Voter && member:
			present = append(present, s)
		case s.Suffrage == raft.Voter:
			absent = append(absent, s)
		case member:
			ready = append(ready, s)
		case !a.joining[string(s.ID)]:
			return change{"remove", s.ID}, true
		}
	}
	a.sort(present)
	a.sort(ready)
	voters, want := len(present)+len(absent), odd(min(len(a.members), MaxVoters))
	if len(present) <= voters/2 {
		return change{}, false // no majority would agree to it
	}
	for _, s := range absent {
		if string(s.ID) != a.self && (len(ready) > 0 || a.absent[string(s.ID)] >= a.timeout) {
			return change{"remove", s.ID}, true
		}
	}
	if len(ready) > 0 && voters < want && voters+len(ready) >= want {
		return change{"promote", ready[0].ID}, true
	}
	if len(absent) == 0 && voters > want {
		for _, s := range slices.Backward(present) {
			if string(s.ID) != a.self {
				return change{"demote", s.ID}, true
			}
		}
	}
	return change{}, false
}

func (a autopilot) isMember(id raft.ServerID) bool { return a.rank(id) >= 0 }

func (a autopilot) rank(id raft.ServerID) int {
	return slices.IndexFunc(a.members, func(m member) bool { return m.id == string(id) })
}

func (a autopilot) sort(servers []raft.Server) {
	slices.SortStableFunc(servers, func(x, y raft.Server) int { return a.rank(x.ID) - a.rank(y.ID) })
}

// odd returns the largest odd number that is not above n, but at least 1.
func odd(n int) int { return max(1, n-(n+1)%2) }
