package gossip

import (
	"maps"
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
		if string(s.ID) != a.self && !a.joining[string(s.ID)] && (len(ready) > 0 || a.absent[string(s.ID)] >= a.timeout) {
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

// adjustVoters takes a step towards the right voters.
func (d *Driver) adjustVoters(l *leadership) {
	f := d.raft.GetConfiguration()
	if f.Error() != nil {
		return
	}
	servers := f.Configuration().Servers
	step, ok := l.autopilot(servers, d.members(), d.data.id, d.cfg.VoterTimeout, boottime()).next()
	if !ok {
		return
	}
	var done raft.IndexFuture
	switch step.op {
	case "promote":
		done = d.raft.AddVoter(step.id, configuredAddress(servers, step.id), f.Index(), applyTimeout)
	case "demote":
		done = d.raft.DemoteVoter(step.id, f.Index(), applyTimeout)
	default:
		done = d.raft.RemoveServer(step.id, f.Index(), applyTimeout)
	}
	if err := done.Error(); err != nil {
		d.log.Debug("change the voters", "change", step.op, "node", step.id, "err", err)
		return
	}
	d.log.Info("the voters have changed", "change", step.op, "node", step.id)
	d.wake.fire()
}

// configuredAddress returns the address of a server in Raft's configuration.
func configuredAddress(servers []raft.Server, id raft.ServerID) raft.ServerAddress {
	for _, s := range servers {
		if s.ID == id {
			return s.Address
		}
	}
	return ""
}

// autopilot returns what there is to choose voters from.
func (l *leadership) autopilot(servers []raft.Server, members []member, self string, timeout time.Duration, now int64) autopilot {
	a := autopilot{
		servers: servers, members: members, self: self, timeout: timeout,
		absent: map[string]time.Duration{}, joining: map[string]bool{},
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.joining, func(_ string, at int64) bool { return now-at > int64(joinTimeout) })
	for id := range l.joining {
		a.joining[id] = true
	}
	for _, s := range servers {
		id := string(s.ID)
		if a.isMember(s.ID) {
			delete(l.absent, id)
			continue
		}
		if _, ok := l.absent[id]; !ok {
			l.absent[id] = now
		}
		a.absent[id] = time.Duration(now - l.absent[id])
	}
	return a
}
