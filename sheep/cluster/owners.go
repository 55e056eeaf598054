package cluster

import (
	"fmt"
	"slices"

	"sheepdog/sheep"
)

// An Ownership says which gateway may write a VDI. The zero value is none.
type Ownership struct {
	Owner      sheep.Incarnation
	Node       sheep.Node
	Generation sheep.Generation // the index of the entry that granted it
	Draining   bool             // granted, but the gateway before has not drained: nobody may write
	Plan       bool             // frozen for the open plan, whose executor is Owner
}

func (o Ownership) String() string {
	if o.Owner == 0 {
		return "none"
	}
	s := fmt.Sprintf("%x/%d", uint64(o.Owner), o.Generation)
	if o.Draining {
		s += " draining"
	}
	if o.Plan {
		s += " plan"
	}
	return s
}

// An owner is an Ownership and who has to drain before it counts.
type owner struct {
	Ownership
	prev    sheep.Incarnation // 0 if nobody has to drain
	prevGen sheep.Generation
}

type ownerChange struct {
	vid      sheep.VDIID
	old, new Ownership
}

// ownership returns who owns a VDI, none if nobody does.
func (s *state) ownership(vid sheep.VDIID) Ownership { return s.owners[vid].Ownership }

// setOwner records an ownership and what changed. A VDI that nobody owns while
// the gateway before still drains goes back to that one, which has to drain all
// the same: until then others must neither write nor read past it.
func (s *state) setOwner(vid sheep.VDIID, o owner, fx *effects) {
	old := s.ownership(vid)
	switch {
	case o.Owner == 0 && o.prev == 0:
		o = owner{}
	case o.Owner == 0:
		o.Ownership = Ownership{Owner: o.prev, Node: s.member(o.prev).node, Generation: sheep.Generation(s.index)}
	}
	o.Draining = o.prev != 0
	if o.Owner == 0 {
		delete(s.owners, vid)
	} else {
		s.owners[vid] = o
	}
	if now := s.ownership(vid); now != old {
		fx.owners = append(fx.owners, ownerChange{vid, old, now})
	}
}

// grant gives a VDI to m. Whoever could write until now has to drain first.
func (s *state) grant(vid sheep.VDIID, m *member, plan bool, fx *effects) {
	o := s.owners[vid]
	if o.prev == 0 && o.Owner != 0 {
		o.prev, o.prevGen = o.Owner, o.Generation
	}
	o.Ownership = Ownership{Owner: m.inc, Node: m.node, Generation: sheep.Generation(s.index), Plan: plan}
	s.setOwner(vid, o, fx)
}

// disownGone drains and frees what a member that left owned. What a plan has
// frozen goes to the next executor, see passTurn.
func (s *state) disownGone(inc sheep.Incarnation, fx *effects) {
	for _, vid := range s.ownedBy(func(o owner) bool { return o.prev == inc || o.Owner == inc }) {
		o := s.owners[vid]
		if o.prev == inc {
			o.prev, o.prevGen = 0, 0
		}
		if o.Owner == inc && !o.Plan {
			o.Ownership = Ownership{}
		}
		s.setOwner(vid, o, fx)
	}
}

// ownedBy returns the VDIs whose owners match, ascending.
func (s *state) ownedBy(match func(owner) bool) []sheep.VDIID {
	var vids []sheep.VDIID
	for vid, o := range s.owners {
		if match(o) {
			vids = append(vids, vid)
		}
	}
	slices.Sort(vids)
	return vids
}

// dropOwners frees all VDIs.
func (s *state) dropOwners(fx *effects) {
	for _, vid := range s.ownedBy(func(owner) bool { return true }) {
		s.setOwner(vid, owner{}, fx)
	}
}

func validVID(vid sheep.VDIID) error {
	if vid == 0 || vid >= sheep.MaxVDIs {
		return fmt.Errorf("%w: VDI %v", sheep.ErrInvalid, vid)
	}
	return nil
}

// ownMsg asks for a VDI that nobody owns.
type ownMsg struct{ vid sheep.VDIID }

func (ownMsg) kind() messageKind        { return kindOwn }
func (m ownMsg) append(b []byte) []byte { return appendVID(b, m.vid) }

func (m ownMsg) apply(s *state, from *member, _ *Entry, fx *effects) error {
	if err := validVID(m.vid); err != nil {
		return err
	}
	if s.status == Wait {
		return s.serving()
	}
	if s.owners[m.vid].Owner == 0 {
		s.grant(m.vid, from, false, fx)
	}
	fx.reply.ownership = s.ownership(m.vid)
	return nil
}

// handOverMsg gives the proposer's VDI to another gateway.
type handOverMsg struct {
	vid sheep.VDIID
	gen sheep.Generation
	to  sheep.Incarnation
}

func (handOverMsg) kind() messageKind { return kindHandOver }

func (m handOverMsg) append(b []byte) []byte {
	b = le.AppendUint64(appendVID(b, m.vid), uint64(m.gen))
	return le.AppendUint64(b, uint64(m.to))
}

func (m handOverMsg) apply(s *state, from *member, _ *Entry, fx *effects) error {
	if err := s.owns(from, m.vid, m.gen); err != nil {
		return err
	}
	to := s.member(m.to)
	if to == nil {
		return fmt.Errorf("%w: incarnation %v is no member", sheep.ErrInvalid, m.to)
	}
	if to != from {
		s.grant(m.vid, to, false, fx)
	}
	return nil
}

// owns returns nil if m may write a VDI with the generation, of itself and not
// for a plan.
func (s *state) owns(m *member, vid sheep.VDIID, gen sheep.Generation) error {
	if o := s.owners[vid]; o.Owner != m.inc || o.Generation != gen || o.Draining || o.Plan {
		return sheep.ErrStaleOwner
	}
	return nil
}

// drainedMsg says that nothing that the proposer admitted with the generation,
// which it has lost, is in flight or unflushed.
type drainedMsg struct {
	vid sheep.VDIID
	gen sheep.Generation
}

func (drainedMsg) kind() messageKind { return kindDrained }

func (m drainedMsg) append(b []byte) []byte {
	return le.AppendUint64(appendVID(b, m.vid), uint64(m.gen))
}

func (m drainedMsg) apply(s *state, from *member, _ *Entry, fx *effects) error {
	o := s.owners[m.vid]
	if o.prev != from.inc || o.prevGen != m.gen {
		return sheep.ErrStaleOwner
	}
	o.prev, o.prevGen = 0, 0
	s.setOwner(m.vid, o, fx)
	return nil
}

// disownMsg gives up a VDI that the proposer has drained and flushed.
type disownMsg struct {
	vid sheep.VDIID
	gen sheep.Generation
}

func (disownMsg) kind() messageKind { return kindDisown }

func (m disownMsg) append(b []byte) []byte {
	return le.AppendUint64(appendVID(b, m.vid), uint64(m.gen))
}

func (m disownMsg) apply(s *state, from *member, _ *Entry, fx *effects) error {
	if err := s.owns(from, m.vid, m.gen); err != nil {
		return err
	}
	o := s.owners[m.vid]
	o.Ownership = Ownership{}
	s.setOwner(m.vid, o, fx)
	return nil
}
