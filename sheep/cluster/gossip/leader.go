package gossip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"sheepdog/sheep"
)

// errNotLeader is what a node that does not lead answers to what only the
// leader does.
var errNotLeader = errors.New("this node does not lead the cluster")

// applyTimeout bounds the wait for room in Raft's queue.
const applyTimeout = 5 * time.Second

// A leadership is this node's time as the leader.
type leadership struct {
	id   uint64 // as the log has it
	term uint64 // of Raft

	mu          sync.Mutex
	lastContact map[sheep.Incarnation]int64 // guarded by mu; when members were heard of last
	hosts       map[string]string           // guarded by mu; by ID: from where its member was heard of
	heard       map[sheep.Incarnation]bool  // guarded by mu; in this leadership
	expelling   map[sheep.Incarnation]bool  // guarded by mu; their leaves are being logged
	restarting  map[string]restart          // guarded by mu; by ID: nodes that want to join
	joining     map[string]int64            // guarded by mu; when nodes became servers that are no members yet
	absent      map[string]int64            // guarded by mu; since when voters have not been members
	lastCheck   int64                       // guarded by mu; when the members were looked after last

	verifier verifier
}

// joinTimeout is how long a server may take to become a member.
const joinTimeout = time.Minute

// leaderLoop leads until ctx is done. It is called when Raft has elected this
// node.
func (d *Driver) leaderLoop(ctx context.Context) {
	l, err := d.establishLeadership()
	if err != nil {
		d.log.Debug("begin to lead the cluster", "err", err)
		return
	}
	defer func() {
		d.mu.Lock()
		d.leadership = nil
		d.mu.Unlock()
	}()
	d.mu.Lock()
	d.leadership = l
	d.mu.Unlock()
	d.log.Info("this node leads the cluster", "term", l.term)
	d.wake.fire()
	tick := time.NewTicker(d.cfg.Heartbeat)
	defer tick.Stop()
	for {
		changed := d.wake.wait()
		d.expelOverdue(l)
		d.adjustVoters(l)
		select {
		case <-tick.C:
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// establishLeadership logs the begin of a leadership. When it returns, this
// node has applied all that leaders before it have logged.
func (d *Driver) establishLeadership() (*leadership, error) {
	l := &leadership{
		id:          randomNumber(),
		lastContact: map[sheep.Incarnation]int64{}, hosts: map[string]string{}, heard: map[sheep.Incarnation]bool{},
		expelling: map[sheep.Incarnation]bool{}, restarting: map[string]restart{},
		joining: map[string]int64{}, absent: map[string]int64{},
	}
	c := command{
		kind: commandLeadership, inc: d.inc, time: time.Now().UnixNano(), leadership: l.id, id: d.data.id,
		data: d.clusterID().append(nil),
	}
	if err := d.raft.Apply(c.append(nil), applyTimeout).Error(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	latest := d.latest
	d.mu.Unlock()
	if latest.leadership != l.id {
		return nil, errNotLeader // already somebody else's turn
	}
	l.term = latest.term
	l.lastCheck = boottime()
	return l, nil
}

// leading returns this node's leadership, or an error.
func (d *Driver) leading() (*leadership, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leadership == nil || d.raft.State() != raft.Leader {
		return nil, errNotLeader
	}
	return d.leadership, nil
}

func (d *Driver) members() []member {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state.members // never changed in place, but appended to
}

// expelOverdue logs the leaves of members whose leases are over for certain. They
// leave in one step, and if nobody else lives together with the next join: no
// epoch has only some of the dead, or nobody who takes note of it. Else the dead
// would be waited for because of what they may have written in that epoch.
func (d *Driver) expelOverdue(l *leadership) {
	members := d.members()
	gone := l.overdue(members, d.cfg, boottime())
	if len(gone) == 0 {
		return
	}
	x := expulsion{
		alone:   l.hasNone(members, gone),
		members: slices.Sorted(maps.Keys(gone)),
		reason:  fmt.Sprintf("not heard of for %v", d.cfg.ExpelAfter),
	}
	c := command{kind: commandExpel, time: time.Now().UnixNano(), leadership: l.id, data: x.append(nil)}
	if err := d.raft.Apply(c.append(nil), applyTimeout).Error(); err != nil {
		d.log.Debug("expel members", "err", err)
		return // Raft has another leader, or will elect this one anew
	}
	for inc, silent := range gone {
		d.log.Warn("a member is gone", "member", inc, "silent", silent.Round(time.Millisecond))
	}
}

// hasNone reports whether no member but those that are gone was heard of.
func (l *leadership) hasNone(members []member, gone map[sheep.Incarnation]time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !slices.ContainsFunc(members, func(m member) bool {
		_, left := gone[m.inc]
		return !left && l.heard[m.inc]
	})
}

// overdue returns the members that were not heard of for too long, and for how
// long. From then on they get no lease. Those whose nodes are about to join anew
// leave with that.
func (l *leadership) overdue(members []member, cfg Config, now int64) map[sheep.Incarnation]time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	// While this process was stopped, it could not hear anybody.
	slept := now-l.lastCheck > int64(cfg.ExpelAfter-cfg.Lease)/2+int64(cfg.Heartbeat)
	l.lastCheck = now
	gone := map[sheep.Incarnation]time.Duration{}
	for _, m := range members {
		if slept {
			l.lastContact[m.inc] = now
		}
		last, heard := l.lastContact[m.inc]
		if !heard { // the leader before may have heard of it just before this one's election
			last = now + int64(cfg.LeaderLease)
			l.lastContact[m.inc] = last
		}
		if silent := time.Duration(now - last); silent >= cfg.ExpelAfter && !l.restartsLocked(m.id, now) {
			gone[m.inc] = silent
			l.expelling[m.inc] = true
		}
	}
	maps.DeleteFunc(l.lastContact, func(inc sheep.Incarnation, _ int64) bool {
		return !slices.ContainsFunc(members, func(m member) bool { return m.inc == inc })
	})
	return gone
}

// contact notes that a member was heard of now, from an address. It reports
// false if the member is being expelled.
func (l *leadership) contact(inc sheep.Incarnation, id, from string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.expelling[inc] {
		return false
	}
	l.lastContact[inc], l.heard[inc] = boottime(), true
	l.hosts[id] = hostOf(from)
	delete(l.restarting, id)
	delete(l.joining, id)
	return true
}

// A restart is a node's wish to join.
type restart struct {
	at   int64 // when it asked last
	join command
}

// restartPatience is for how long after it asked to join a node counts as one
// that will.
const restartPatience = 2 * time.Second

// mayJoin notes that a node wants to join, and returns what is to be logged for
// that, or false if it has to ask again: before all members have been heard of,
// want to join anew, too, or were expelled. When a cluster starts after all its
// nodes have died, those that are back join in one step: an epoch of the dead
// and the living would make the living wait for the dead.
func (l *leadership) mayJoin(c command, members []member, now int64) (command, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.restarting[c.id] = restart{now, c}
	joins := []command{c}
	for _, m := range members {
		switch {
		case l.heard[m.inc] || m.id == c.id:
		case l.restartsLocked(m.id, now):
			joins = append(joins, l.restarting[m.id].join)
		default:
			return command{}, false
		}
	}
	if len(joins) == 1 {
		return c, true
	}
	return joinAll(joins), true
}

func (l *leadership) restartsLocked(id string, now int64) bool {
	r, ok := l.restarting[id]
	return ok && now-r.at <= int64(restartPatience)
}

// hostOf returns the host of an address, or an empty string for this process.
func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}
