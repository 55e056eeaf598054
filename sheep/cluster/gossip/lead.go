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

// errNotLeader is what who does not lead answers to what only the leader does.
var errNotLeader = errors.New("this node does not lead the cluster")

// applyPatience bounds the wait for room in Raft's queue.
const applyPatience = 5 * time.Second

// A reign is this node's time as the leader.
type reign struct {
	number uint64 // as the log has it
	term   uint64 // in Raft

	mu      sync.Mutex
	seen    map[sheep.Incarnation]int64 // guarded by mu; when members were heard of last
	hosts   map[string]string           // guarded by mu; by id: from where its member was heard of
	doomed  map[sheep.Incarnation]bool  // guarded by mu; their leaves are being logged
	invited map[string]int64            // guarded by mu; when nodes asked to be let in
	absent  map[string]int64            // guarded by mu; since when voters have had no seat
	looked  int64                       // guarded by mu; when the members were looked after last

	ballot ballot
}

// invitation is how long a node that was let in may take to join.
const invitation = time.Minute

// lead reigns until ctx is done. It is called when Raft has made this node its
// leader.
func (d *Driver) lead(ctx context.Context) {
	r, err := d.begin()
	if err != nil {
		d.log.Debug("begin to lead the cluster", "err", err)
		return
	}
	defer func() {
		d.mu.Lock()
		d.reign = nil
		d.mu.Unlock()
	}()
	d.mu.Lock()
	d.reign = r
	d.mu.Unlock()
	d.log.Info("this node leads the cluster", "term", r.term)
	d.wake.fire()
	tick := time.NewTicker(d.cfg.Beat)
	defer tick.Stop()
	for {
		changed := d.wake.wait()
		d.expel(r)
		d.adjust(r)
		select {
		case <-tick.C:
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// begin logs the begin of the reign. When it returns, this node has applied
// all that leaders before it have logged.
func (d *Driver) begin() (*reign, error) {
	r := &reign{
		number: randomNumber(),
		seen:   map[sheep.Incarnation]int64{}, hosts: map[string]string{}, doomed: map[sheep.Incarnation]bool{},
		invited: map[string]int64{}, absent: map[string]int64{},
	}
	c := command{
		kind: commandReign, who: d.inc, time: time.Now().UnixNano(), reign: r.number, id: d.home.id,
		data: d.realm().append(nil),
	}
	if err := d.raft.Apply(c.append(nil), applyPatience).Error(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	crowned := d.crowned
	d.mu.Unlock()
	if crowned.reign != r.number {
		return nil, errNotLeader // already somebody else's turn
	}
	r.term = crowned.term
	r.looked = boottime()
	return r, nil
}

// reigning returns this node's reign, or an error.
func (d *Driver) reigning() (*reign, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reign == nil || d.raft.State() != raft.Leader {
		return nil, errNotLeader
	}
	return d.reign, nil
}

func (d *Driver) seats() []seat {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ledger.seats // never changed in place, but appended to
}

// expel logs the leaves of members whose leases are over for certain.
func (d *Driver) expel(r *reign) {
	for who, silent := range r.silent(d.seats(), d.cfg, boottime()) {
		c := command{
			kind: commandLeave, who: who, time: time.Now().UnixNano(), reign: r.number,
			data: fmt.Appendf(nil, "not heard of for %v", silent.Round(time.Millisecond)),
		}
		err := d.raft.Apply(c.append(nil), applyPatience).Error()
		if err != nil {
			d.log.Debug("log the leave of a member", "member", who, "err", err)
			return // Raft has another leader, or will make this one begin again
		}
		d.log.Warn("a member is gone", "member", who, "silent", silent.Round(time.Millisecond))
	}
}

// silent dooms the members that were not heard of for too long, and returns for
// how long. Who is doomed gets no lease any more.
func (r *reign) silent(seats []seat, cfg Config, now int64) map[sheep.Incarnation]time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	// While this process was stopped, it could not hear anybody.
	slept := now-r.looked > int64(cfg.Expel-cfg.Lease)/2+int64(cfg.Beat)
	r.looked = now
	gone := map[sheep.Incarnation]time.Duration{}
	for _, s := range seats {
		if slept {
			r.seen[s.who] = now
		}
		seen, heard := r.seen[s.who]
		if !heard { // the leader before may have heard of it just before this one's election
			seen = now + int64(cfg.LeaderLease)
			r.seen[s.who] = seen
		}
		if silent := time.Duration(now - seen); silent >= cfg.Expel {
			gone[s.who] = silent
			r.doomed[s.who] = true
		}
	}
	maps.DeleteFunc(r.seen, func(who sheep.Incarnation, _ int64) bool {
		return !slices.ContainsFunc(seats, func(s seat) bool { return s.who == who })
	})
	return gone
}

// hear notes that a member was heard of now, from an address. It reports false
// if the member is being expelled.
func (r *reign) hear(who sheep.Incarnation, id, from string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.doomed[who] {
		return false
	}
	r.seen[who] = boottime()
	r.hosts[id] = hostOf(from)
	return true
}

// hostOf returns the host of an address, or an empty string for this process.
func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}

// adjust takes a step towards the right voters.
func (d *Driver) adjust(r *reign) {
	f := d.raft.GetConfiguration()
	if f.Error() != nil {
		return
	}
	e := r.electorate(f.Configuration().Servers, d.seats(), d.home.id, d.cfg.Forget, boottime())
	step, ok := e.next()
	if !ok {
		return
	}
	var done raft.IndexFuture
	switch step.op {
	case "promote":
		done = d.raft.AddVoter(step.id, d.configured(e.servers, step.id), f.Index(), applyPatience)
	case "demote":
		done = d.raft.DemoteVoter(step.id, f.Index(), applyPatience)
	default:
		done = d.raft.RemoveServer(step.id, f.Index(), applyPatience)
	}
	if err := done.Error(); err != nil {
		d.log.Debug("change who votes", "change", step.op, "node", step.id, "err", err)
		return
	}
	d.log.Info("who votes has changed", "change", step.op, "node", step.id)
	d.wake.fire()
}

func (d *Driver) configured(servers []raft.Server, id raft.ServerID) raft.ServerAddress {
	for _, s := range servers {
		if s.ID == id {
			return s.Address
		}
	}
	return ""
}

// electorate returns what there is to choose from.
func (r *reign) electorate(servers []raft.Server, seats []seat, self string, forget time.Duration, now int64) electorate {
	e := electorate{
		servers: servers, seats: seats, self: self, forget: forget,
		absent: map[string]time.Duration{}, invited: map[string]bool{},
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.invited, func(_ string, at int64) bool { return now-at > int64(invitation) })
	for id := range r.invited {
		e.invited[id] = true
	}
	for _, s := range servers {
		id := string(s.ID)
		if e.member(s.ID) {
			delete(r.absent, id)
			continue
		}
		if _, ok := r.absent[id]; !ok {
			r.absent[id] = now
		}
		e.absent[id] = time.Duration(now - r.absent[id])
	}
	return e
}
