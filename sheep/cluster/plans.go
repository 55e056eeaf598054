package cluster

import (
	"errors"
	"fmt"
	"slices"

	"sheepdog/sheep"
)

// A plan is a cluster operation that was logged. The first of the queue is
// open: its executor may act. The others wait.
type plan struct {
	index    uint64
	proposer sheep.Incarnation
	executor sheep.Incarnation
	kind     uint8
	payload  []byte
	retry    bool   // an executor that left has run a part of it
	ctime    uint64 // of the cluster
}

// A turn tells an executor to run the open plan.
type turn struct {
	index    uint64
	executor sheep.Incarnation
	kind     uint8
	payload  []byte
	retry    bool
}

// A planDone is the end of a plan.
type planDone struct {
	index    uint64
	proposer sheep.Incarnation
	result   []byte
	err      error
}

// maxPlans bounds the plans that wait.
const maxPlans = 4096

// planMsg logs a plan.
type planMsg struct {
	planKind uint8
	payload  []byte
}

func (planMsg) kind() messageKind        { return kindPlan }
func (m planMsg) append(b []byte) []byte { return appendBytes(append(b, m.planKind), m.payload) }

func (m planMsg) apply(s *state, from *member, e *Entry, fx *effects) error {
	if s.stopping {
		return sheep.ErrShutdown
	}
	if err := s.serving(); err != nil {
		return err
	}
	if len(s.plans) >= maxPlans {
		return fmt.Errorf("%w: %d plans wait", sheep.ErrAgain, len(s.plans))
	}
	s.plans = append(s.plans, &plan{
		index: e.Index, proposer: from.inc, executor: from.inc, kind: m.planKind, payload: m.payload,
		ctime: s.settings.Ctime,
	})
	if len(s.plans) == 1 {
		s.open(fx)
	}
	fx.reply.plan = true
	return nil
}

// open tells the executor of the first plan that it is its turn.
func (s *state) open(fx *effects) {
	if len(s.plans) == 0 {
		return
	}
	p := s.plans[0]
	fx.turn = &turn{index: p.index, executor: p.executor, kind: p.kind, payload: p.payload, retry: p.retry}
}

// passTurn ends the part of a member that left in the plans. What it opened
// the longest member finishes; what it only queued nobody has begun.
func (s *state) passTurn(gone sheep.Incarnation, fx *effects) {
	if len(s.plans) == 0 {
		return
	}
	open := s.plans[0]
	s.plans = slices.DeleteFunc(s.plans, func(p *plan) bool { return p != open && p.proposer == gone })
	if open.executor != gone || len(s.members) == 0 {
		return
	}
	next := s.members[0]
	open.executor, open.retry = next.inc, true
	for _, vid := range s.frozen() {
		o := s.owners[vid]
		o.Ownership = Ownership{Owner: next.inc, Node: next.node, Generation: sheep.Generation(s.index), Plan: true}
		s.setOwner(vid, o, fx)
	}
	s.open(fx)
}

// resume has the longest member run what was open when all members had left.
func (s *state) resume(fx *effects) {
	if len(s.plans) == 0 || s.member(s.plans[0].executor) != nil {
		return
	}
	open := s.plans[0]
	if open.ctime != s.settings.Ctime {
		s.plans = nil
		return
	}
	open.executor, open.retry = s.members[0].inc, true
	s.open(fx)
}

// frozen returns the VDIs that the open plan has frozen, ascending.
func (s *state) frozen() []sheep.VDIID {
	return s.ownedBy(func(o owner) bool { return o.Plan })
}

// hasTurn returns nil if m executes the open plan and that has the index.
func (s *state) hasTurn(m *member, index uint64) error {
	if len(s.plans) == 0 || s.plans[0].index != index || s.plans[0].executor != m.inc {
		return fmt.Errorf("%w: the turn of plan %d is over", sheep.ErrStaleOwner, index)
	}
	return nil
}

// freezeMsg takes VDIs for the open plan.
type freezeMsg struct {
	plan uint64
	vids []sheep.VDIID
}

func (freezeMsg) kind() messageKind { return kindFreeze }

func (m freezeMsg) append(b []byte) []byte {
	b = le.AppendUint64(b, m.plan)
	b = le.AppendUint32(b, uint32(len(m.vids)))
	for _, vid := range m.vids {
		b = appendVID(b, vid)
	}
	return b
}

func decodeFreeze(d *decoder) message {
	m := freezeMsg{plan: d.u64()}
	m.vids = make([]sheep.VDIID, d.count(4))
	for i := range m.vids {
		m.vids[i] = d.vid()
	}
	return m
}

func (m freezeMsg) apply(s *state, from *member, _ *Entry, fx *effects) error {
	if err := s.hasTurn(from, m.plan); err != nil {
		return err
	}
	for _, vid := range m.vids {
		if err := validVID(vid); err != nil {
			return err
		}
	}
	for _, vid := range m.vids {
		if o := s.owners[vid]; o.Plan {
			// The plan's own earlier writes need not be waited for.
			o.Generation = sheep.Generation(s.index)
			s.setOwner(vid, o, fx)
			continue
		}
		s.grant(vid, from, true, fx)
	}
	return nil
}

// doneMsg ends the open plan.
type doneMsg struct {
	plan    uint64
	fail    string // why it failed; empty if it did not
	result  []byte
	changes []VDIChange
}

func (doneMsg) kind() messageKind { return kindDone }

func (m doneMsg) append(b []byte) []byte {
	b = le.AppendUint64(b, m.plan)
	b = appendString(b, m.fail)
	b = appendBytes(b, m.result)
	b = le.AppendUint32(b, uint32(len(m.changes)))
	for _, c := range m.changes {
		b = appendBool(appendVDI(b, c.VDI), c.Drop)
	}
	return b
}

func decodeDone(d *decoder) message {
	m := doneMsg{plan: d.u64(), fail: d.string(), result: d.bytes()}
	m.changes = make([]VDIChange, d.count(vdiSize+1))
	for i := range m.changes {
		m.changes[i] = VDIChange{VDI: d.vdi(), Drop: d.bool()}
	}
	return m
}

func (m doneMsg) apply(s *state, from *member, _ *Entry, fx *effects) error {
	if err := s.hasTurn(from, m.plan); err != nil {
		return err
	}
	for _, c := range m.changes {
		if err := validVDI(c.VDI); err != nil && !c.Drop {
			return err
		}
	}
	for _, c := range m.changes {
		if c.Drop {
			s.vdis.drop(c.VDI.ID)
		} else {
			s.vdis.put(c.VDI, true)
		}
	}
	s.vdis.moveLocks(m.changes)
	s.vdis.moveDoubts(m.changes)
	if s.deadlines.follow(&s.vdis, m.changes) {
		fx.view = true
	}
	var err error
	if m.fail != "" {
		err = errors.New(m.fail)
	}
	s.closePlan(m.result, err, fx)
	return nil
}

// closePlan ends the open plan, frees what it froze, and opens the next.
func (s *state) closePlan(result []byte, err error, fx *effects) {
	p := s.plans[0]
	fx.done = append(fx.done, planDone{p.index, p.proposer, result, err})
	for _, vid := range s.frozen() {
		o := s.owners[vid]
		o.Ownership = Ownership{}
		s.setOwner(vid, o, fx)
	}
	s.plans = s.plans[1:]
	s.open(fx)
	if s.stopping && s.status == OK && len(s.plans) == 0 {
		s.stop(fx)
	}
}

// dropPlans ends all plans with err; those that run find their turn over.
func (s *state) dropPlans(err error, fx *effects) {
	s.dropQueue(err, fx)
	for _, p := range s.plans {
		fx.done = append(fx.done, planDone{p.index, p.proposer, nil, err})
	}
	s.plans = nil
}

// dropQueue ends the plans that are not open with err.
func (s *state) dropQueue(err error, fx *effects) {
	if len(s.plans) < 2 {
		return
	}
	for _, p := range s.plans[1:] {
		fx.done = append(fx.done, planDone{p.index, p.proposer, nil, err})
	}
	s.plans = s.plans[:1]
}
