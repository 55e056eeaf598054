package recovery

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/proto"
)

// A sighting is what this node knows of an absence.
type sighting struct {
	since time.Time     // Absence.Since: it tells the absences of a node apart
	seen  time.Time     // when this node learned of it
	age   time.Duration // how old it was then
}

// sight takes note of who is absent in v. How long this node has known that
// does not depend on anybody's clock being right; if it was not there, or was
// not yet, when the absence began, the clocks have to say. The caller holds r.mu.
func (r *Recoverer) sight(old, v *cluster.View) {
	now := time.Now()
	away := make(map[netip.AddrPort]sighting, len(v.Absences))
	for _, a := range v.Absences {
		s, ok := r.away[a.Node.Addr]
		if !ok || !s.since.Equal(a.Since) {
			s = sighting{since: a.Since, seen: now}
			if !wasMember(old, a.Node) {
				s.age = max(0, now.Sub(a.Since))
			}
		}
		away[a.Node.Addr] = s
	}
	r.away = away
}

func wasMember(v *cluster.View, n sheep.Node) bool {
	if v == nil {
		return false
	}
	_, ok := v.MemberAt(n)
	return ok
}

// An Awaited is an absent node whose copies are not to be made anew yet.
type Awaited struct {
	cluster.Absence
	Left time.Duration // until they are; cluster.NoEnd is for ever
}

// Awaited returns the absent nodes whose copies are not to be made anew yet.
func (r *Recoverer) Awaited() []Awaited {
	view, _ := r.current()
	if view == nil {
		return nil
	}
	all, _ := r.awaited(view)
	return all
}

// awaited is Awaited for a view. It also returns how long it is until that
// changes; cluster.NoEnd if it does not by itself.
func (r *Recoverer) awaited(view *cluster.View) ([]Awaited, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Awaited
	next := cluster.NoEnd
	for _, a := range view.Absences {
		left := a.Patience
		if s, ok := r.away[a.Node.Addr]; ok && left != cluster.NoEnd {
			left -= s.age + time.Since(s.seen)
		}
		if left > 0 {
			all = append(all, Awaited{a, left})
			next = min(next, left)
		}
	}
	return all, next
}

// A schedule is what a pass does with the objects that are not known to be
// current.
type schedule struct {
	now     []sheep.ObjectID // in this order
	later   []sheep.ObjectID // when their absent holders are given up
	recheck time.Duration    // so long later stays what it is, if the view does
}

// plan decides which of the objects are made current now. An object is left for
// later if this node is to hold it only because a node that is awaited is
// absent; unless there is one copy left of it, then it comes first.
func (r *Recoverer) plan(ctx context.Context, view *cluster.View, ids []sheep.ObjectID) (schedule, error) {
	away, left := r.awaited(view)
	if len(away) == 0 {
		return schedule{now: ids}, nil
	}
	s := schedule{recheck: left}
	absent := make([]cluster.Absence, len(away))
	for i, a := range away {
		absent[i] = a.Absence
	}
	full := view.With(absent)
	ring := placement.NewRing(full)
	var deferred []deferral
	for _, id := range ids {
		d := deferral{id: id, copies: make(map[netip.AddrPort]proto.CopyState)}
		mine := false
		for _, i := range ring.Place(id, r.policy(id).Width()) {
			n := full[i]
			mine = mine || n.Addr == r.self
			switch a := slices.IndexFunc(away, func(a Awaited) bool { return a.Node.Addr == n.Addr }); {
			case a < 0:
				d.present = append(d.present, n)
			case !away[a].Maintained:
				d.unplanned = true
			}
		}
		if mine {
			s.now = append(s.now, id)
		} else {
			deferred = append(deferred, d)
		}
	}
	urgent, err := r.endangered(ctx, view, deferred)
	if err != nil {
		return schedule{}, err
	}
	s.now = slices.Concat(urgent, s.now)
	for _, d := range deferred {
		if _, found := slices.BinarySearch(urgent, d.id); !found {
			s.later = append(s.later, d.id)
		}
	}
	return s, nil
}

// A deferral is an object that may be left for later.
type deferral struct {
	id        sheep.ObjectID
	present   []sheep.Node                       // its holders that are members
	unplanned bool                               // the others are not all being maintained
	copies    map[netip.AddrPort]proto.CopyState // of present
}

// endangered returns those of the objects that have no more copies than it takes
// to make others, ascending. If all the missing ones are on nodes that are being
// maintained, an object is not endangered as long as it has a copy: whoever
// maintains a node has decided so.
func (r *Recoverer) endangered(ctx context.Context, view *cluster.View, all []deferral) ([]sheep.ObjectID, error) {
	asked := make(map[netip.AddrPort][]int) // indexes of all
	nodes := make(map[netip.AddrPort]sheep.Node)
	for i, d := range all {
		for _, n := range d.present {
			asked[n.Addr] = append(asked[n.Addr], i)
			nodes[n.Addr] = n
		}
	}
	for addr, indexes := range asked {
		for part := range slices.Chunk(indexes, proto.MaxPeerStat) {
			ids := make([]sheep.ObjectID, len(part))
			for k, i := range part {
				ids[k] = all[i].id
			}
			states, err := r.peers.Stat(ctx, peer(view, nodes[addr]), view.Epoch, ids)
			if err != nil {
				return nil, fmt.Errorf("copies of %d objects on %v: %w", len(ids), nodes[addr], err)
			}
			for k, i := range part {
				all[i].copies[nodes[addr].Addr] = states[k]
			}
		}
	}
	var ids []sheep.ObjectID
	for _, d := range all {
		if n := r.good(d); n == 0 || d.unplanned && n <= fewest(r.policy(d.id)) {
			ids = append(ids, d.id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// good returns how many of the copies are as good as any.
func (r *Recoverer) good(d deferral) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for addr, c := range d.copies {
		if c.Bits&proto.CopyExists == 0 || c.Bits&proto.CopyBad != 0 {
			continue
		}
		if c.Bits&proto.CopyTrusted != 0 || r.missedNothingLocked(addr, c) {
			n++
		}
	}
	return n
}

// missedNothingLocked reports whether the copy at addr, which is not trusted at the
// moment, lacks nothing that was answered: its node has been a member and a holder
// since the copy was current, and whatever is answered has been verified by all
// holders. The caller holds r.mu.
func (r *Recoverer) missedNothingLocked(addr netip.AddrPort, c proto.CopyState) bool {
	if c.MemberEpoch == 0 || c.TrustedEpoch == 0 || c.MemberEpoch > c.TrustedEpoch {
		return false
	}
	for e := c.TrustedEpoch; e <= r.view.Epoch; e++ {
		if !r.placedLocked(c.ID, e, addr) {
			return false
		}
	}
	return true
}

// fewest returns how many copies or strips it takes to have the data.
func fewest(p sheep.Policy) int {
	if p.Erasure() {
		return int(p.Data)
	}
	return 1
}

// A rest is what is left for later in an epoch.
type rest struct {
	view  *cluster.View
	later map[sheep.ObjectID]bool
}

// settledBut reports whether this node's copy of the object is current because all
// are that it holds, except for the rest.
func (r *Recoverer) settledBut(ref sheep.Ref) bool {
	s := r.rest.Load()
	if s == nil || s.view.Epoch != ref.Epoch || s.later[ref.ID] {
		return false
	}
	p := r.policy(ref.ID)
	if ref.Policy != (sheep.Policy{}) && ref.Policy != p {
		return false // the sender knows better
	}
	var room [sheep.MaxCopies]int
	for _, i := range s.view.Ring.AppendPlace(room[:0], ref.ID, p.Width()) {
		if s.view.Nodes[i].Addr == r.self {
			return true
		}
	}
	return false
}

// settleBut takes note that every copy of this node is current in the epoch of
// view but those of later, which the caller has found out just now. It is what
// declareComplete says, without them, to the hot path only.
func (r *Recoverer) settleBut(view *cluster.View, later []sheep.ObjectID) {
	s := &rest{view: view, later: make(map[sheep.ObjectID]bool, len(later))}
	for _, id := range later {
		s.later[id] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.view.Epoch != view.Epoch || r.pending != 0 {
		return
	}
	if _, some := r.outstandingLocked(view.Epoch, s.later); !some { // since
		r.rest.Store(s)
	}
}
