package cluster

import (
	"context"
	"fmt"
	"slices"

	"sheepdog/sheep"
)

// A Doubt says that deferred writes to a VDI may have been lost with nodes that
// have died. Whoever flushes the VDI next is to be told.
type Doubt struct {
	Since uint64 // the index of the entry that raised it; 0 if there is none
	Blind bool   // who could have told whether any were lost is dead, too
}

// No node that starts again can tell that it has lost deferred writes, and no
// object can: they have left no trace. The log has seen the deaths. A write has a
// copy in as many zones as its VDI has copies, or as there were in its epoch; in
// one less, but in two, if one of its holders had yet to fetch the object. If so
// many zones have lost a node since that epoch began, it may be gone. The owner
// of the VDI knows who answered its writes, and clears the doubt or confirms it
// by its next flush. If an owner has died meanwhile, nobody knows. What is older
// than the moment when every copy was known to be current, and durable, counts
// no more.

// A death is the latest loss of a node that stores data in a zone.
type death struct {
	zone  sheep.ZoneID
	index uint64 // of its entry
}

// A span tells of the epochs that had as many zones as it.
type span struct {
	zones int
	since uint64 // the entry that began the first of them
}

// doubtGone takes note of a member that died: of what it has stored and what it
// has owned.
func (s *state) doubtGone(gone *member) {
	if s.status == Shutdown {
		return
	}
	if gone.node.VNodes > 0 {
		s.deaths = slices.DeleteFunc(s.deaths, func(d death) bool { return d.zone == gone.node.Zone })
		s.deaths = append(s.deaths, death{gone.node.Zone, s.index})
	}
	for id, st := range s.vdis.all {
		o := s.owners[id]
		if o.prev == gone.inc || o.Owner == gone.inc && !o.Plan {
			st.orphaned = true
			st.doubt.Blind = st.doubt.Since != 0
		}
		if (st.orphaned || o.Owner != 0) && s.mayLack(st.vdi.Policy) {
			st.doubt = Doubt{Since: s.index, Blind: st.orphaned}
		}
	}
}

// mayLack reports whether all copies of a write to a VDI with the policy may
// have been on nodes that died since.
func (s *state) mayLack(p sheep.Policy) bool {
	fatal := int(p.Copies)
	if p.Erasure() {
		fatal = int(p.Parity) + 1
	}
	lacking := 0 // holders of a write that may not have taken it, and are in no zone that lost a node
	if s.moved && !p.Erasure() {
		lacking = 1
	}
	return slices.ContainsFunc(s.spans, func(e span) bool {
		dead := 0
		for _, d := range s.deaths {
			if d.index > e.since {
				dead++
			}
		}
		copies := min(fatal, e.zones)
		return dead >= max(copies-lacking, min(copies, 2))
	})
}

// noteMoves takes note of objects that move in the epoch which is about to begin,
// to a node that does not replace one which was lost.
func (s *state) noteMoves(next []sheep.Node) {
	for _, n := range next {
		i := slices.IndexFunc(s.nodes, func(o sheep.Node) bool { return o.Addr == n.Addr })
		switch {
		case i >= 0 && s.nodes[i].VNodes == n.VNodes && s.nodes[i].Zone == n.Zone:
		case i < 0 && n.VNodes == 0:
		case i < 0 && slices.ContainsFunc(s.deaths, func(d death) bool { return d.zone == n.Zone }):
		default:
			s.moved = true
		}
	}
}

// trustAll takes note that every copy is current and durable.
func (s *state) trustAll() {
	s.healed = s.epoch
	s.healing.absences = nil // nothing depends on them
	s.deaths, s.spans, s.moved = nil, nil, false
	s.noteZones()
	for _, st := range s.vdis.all {
		st.orphaned = false
	}
}

// noteZones takes note of the zones of the present epoch.
func (s *state) noteZones() {
	seen := make(map[sheep.ZoneID]bool)
	for _, n := range s.nodes {
		if n.VNodes > 0 {
			seen[n.Zone] = true
		}
	}
	if len(seen) > 0 && !slices.ContainsFunc(s.spans, func(e span) bool { return e.zones == len(seen) }) {
		s.spans = append(s.spans, span{len(seen), s.index})
	}
}

// moveDoubts hands the doubt about a head that became a snapshot to the head
// that follows it: there its clients go on, and flush.
func (t *vdiTable) moveDoubts(changes []VDIChange) {
	for _, c := range changes {
		st := t.all[c.VDI.ID]
		if st == nil || !st.vdi.Snapshot || !st.orphaned && st.doubt.Since == 0 {
			continue
		}
		if head := t.successor(c.VDI.Name, changes); head != nil {
			head.orphaned, head.doubt = st.orphaned, st.doubt
			st.orphaned, st.doubt = false, Doubt{}
		}
	}
}

// doubtMsg raises a doubt about a VDI, or settles the one that since raised.
type doubtMsg struct {
	vid   sheep.VDIID
	since uint64 // 0 to raise one
}

func (doubtMsg) kind() messageKind        { return kindDoubt }
func (m doubtMsg) append(b []byte) []byte { return le.AppendUint64(appendVID(b, m.vid), m.since) }

func (m doubtMsg) apply(s *state, _ *member, _ *Entry, _ *effects) error {
	st := s.vdis.all[m.vid]
	switch {
	case st == nil:
		return sheep.ErrNoVDI
	case m.since == 0:
		st.doubt = Doubt{Since: s.index, Blind: true}
	case st.doubt.Since == m.since:
		st.doubt = Doubt{}
	}
	return nil
}

// DoubtAbout returns whether deferred writes to a VDI may be lost and nobody
// has been told. It is cheap.
func (c *Cluster) DoubtAbout(id sheep.VDIID) Doubt {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if st := c.state.vdis.all[id]; st != nil {
		return st.doubt
	}
	return Doubt{}
}

// RaiseDoubt says that deferred writes to a VDI were lost, and that this node
// has nobody to tell.
func (c *Cluster) RaiseDoubt(ctx context.Context, id sheep.VDIID) error {
	return c.command(ctx, fmt.Sprintf("tell that writes to VDI %v were lost", id), doubtMsg{vid: id})
}

// SettleDoubt says that a client has been told what d is about, or that nothing
// was lost. It does nothing if d is not the present doubt.
func (c *Cluster) SettleDoubt(ctx context.Context, id sheep.VDIID, d Doubt) error {
	return c.command(ctx, fmt.Sprintf("settle the doubt about VDI %v", id), doubtMsg{id, d.Since})
}
