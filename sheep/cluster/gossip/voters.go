package gossip

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// An electorate is what decides who should vote.
type electorate struct {
	servers []raft.Server            // of Raft's configuration
	seats   []seat                   // of the members, in the order of their joins
	self    string                   // the leader's id
	absent  map[string]time.Duration // since when those servers have not had a seat
	invited map[string]bool          // servers that are about to join
	forget  time.Duration
}

// A change is one step to the right electorate.
type change struct {
	op string // "promote", "demote" or "remove"
	id raft.ServerID
}

// next returns the next step, or false if all is as it should be.
//
// The aim is an odd number of voters, at most MaxVoters, all of them members.
// An absent voter goes when there is somebody to replace it, or when it has
// been absent for long; until then it counts, so that a cluster that stops and
// starts as a whole finds its majority. It goes before its successor comes: it
// would count as one more voice to win.
func (e electorate) next() (change, bool) {
	var absent, present, ready []raft.Server
	for _, s := range e.servers {
		member := e.member(s.ID)
		switch {
		case s.Suffrage == raft.Voter && member:
			present = append(present, s)
		case s.Suffrage == raft.Voter:
			absent = append(absent, s)
		case member:
			ready = append(ready, s)
		case !e.invited[string(s.ID)]:
			return change{"remove", s.ID}, true
		}
	}
	e.sort(present)
	e.sort(ready)
	voters, want := len(present)+len(absent), odd(min(len(e.seats), MaxVoters))
	if len(present) <= voters/2 {
		return change{}, false // nothing that is asked for would be granted
	}
	for _, s := range absent {
		if string(s.ID) != e.self && (len(ready) > 0 || e.absent[string(s.ID)] >= e.forget) {
			return change{"remove", s.ID}, true
		}
	}
	if len(ready) > 0 && voters < want && voters+len(ready) >= want {
		return change{"promote", ready[0].ID}, true
	}
	if len(absent) == 0 && voters > want {
		for _, s := range slices.Backward(present) {
			if string(s.ID) != e.self {
				return change{"demote", s.ID}, true
			}
		}
	}
	return change{}, false
}

func (e electorate) member(id raft.ServerID) bool { return e.rank(id) >= 0 }

func (e electorate) rank(id raft.ServerID) int {
	return slices.IndexFunc(e.seats, func(s seat) bool { return s.id == string(id) })
}

func (e electorate) sort(servers []raft.Server) {
	slices.SortStableFunc(servers, func(a, b raft.Server) int { return e.rank(a.ID) - e.rank(b.ID) })
}

// odd returns the largest odd number that is not above n, but at least 1.
func odd(n int) int { return max(1, n-(n+1)%2) }
