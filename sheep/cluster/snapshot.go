package cluster

import (
	"fmt"

	"sheepdog/sheep"
)

// stateVersion is the first byte of a marshalled state. Older daemons have written
// version 1, which tells nothing of deadlines and of who holds locks, and 2, which
// does not tell whether objects have moved.
const stateVersion = 3

// marshal returns the state as restore reads it. Equal states give equal bytes.
func (s *state) marshal() []byte {
	b := []byte{stateVersion, byte(s.status)}
	b = le.AppendUint64(b, s.index)
	b = appendBool(b, s.started)
	b = appendBool(b, s.stopping)
	b = appendBool(b, s.turnover)
	b = appendBool(b, s.recoveryOff)
	b = appendHealing(b, s.healing)
	b = appendDeadlines(b, s.deadlines)
	b = appendSettings(b, s.settings)
	b = le.AppendUint32(b, uint32(s.epoch))
	b = le.AppendUint64(b, uint64(s.epochTime))
	b = le.AppendUint32(b, uint32(s.forced))
	b = le.AppendUint32(b, uint32(s.healed))
	b = le.AppendUint64(b, s.former.ctime)
	b = append(le.AppendUint32(b, uint32(s.former.epoch)), s.former.spare)
	b = appendNodes(b, s.nodes)
	b = appendList(b, s.deaths, func(b []byte, d death) []byte {
		return le.AppendUint64(le.AppendUint32(b, uint32(d.zone)), d.index)
	})
	b = appendList(b, s.spans, func(b []byte, e span) []byte {
		return le.AppendUint64(le.AppendUint32(b, uint32(e.zones)), e.since)
	})
	b = appendBool(b, s.moved)
	b = appendList(b, s.members, appendMember)
	b = appendList(b, s.waiting, appendEntry)
	b = appendList(b, s.vdis.sorted(), func(b []byte, id sheep.VDIID) []byte {
		return appendVDIState(b, s.vdis.all[id])
	})
	b = appendList(b, s.ownedBy(func(owner) bool { return true }), func(b []byte, id sheep.VDIID) []byte {
		return appendOwner(b, id, s.owners[id])
	})
	return appendList(b, s.plans, appendPlan)
}

// restoreState is the inverse of marshal.
func restoreState(b []byte) (*state, error) {
	d := &decoder{b: b}
	if d.version = d.u8(); d.version == 0 || d.version > stateVersion {
		return nil, fmt.Errorf("%w: state of the cluster has version %d, not %d", sheep.ErrVersion, d.version, stateVersion)
	}
	s := newState()
	s.status = Status(d.u8())
	s.index = d.u64()
	s.started = d.bool()
	s.stopping = d.bool()
	s.turnover = d.bool()
	s.recoveryOff = d.bool()
	s.healing = d.healing()
	if d.version >= 2 {
		s.deadlines = d.deadlines()
	}
	s.settings = d.settings()
	s.epoch = sheep.Epoch(d.u32())
	s.epochTime = int64(d.u64())
	s.forced = sheep.Epoch(d.u32())
	s.healed = sheep.Epoch(d.u32())
	s.former = formerLife{ctime: d.u64(), epoch: sheep.Epoch(d.u32()), spare: d.u8()}
	s.nodes = d.nodes()
	s.deaths = list(d, 12, func(d *decoder) death { return death{sheep.ZoneID(d.u32()), d.u64()} })
	s.spans = list(d, 12, func(d *decoder) span { return span{int(d.u32()), d.u64()} })
	if d.version >= 3 {
		s.moved = d.bool()
	}
	s.members = list(d, 37+nodeSize, (*decoder).member)
	s.waiting = list(d, 29, (*decoder).entry)
	for _, st := range list(d, vdiSize+16, (*decoder).vdiState) {
		*s.vdis.put(st.vdi, st.used) = *st
	}
	for range d.count(37 + nodeSize) {
		vid, o := d.owner()
		s.owners[vid] = o
	}
	s.plans = list(d, 30, (*decoder).plan)
	if err := d.end(); err != nil {
		return nil, fmt.Errorf("state of the cluster: %w", err)
	}
	return s, nil
}

func appendList[T any](b []byte, list []T, appendOne func([]byte, T) []byte) []byte {
	b = le.AppendUint32(b, uint32(len(list)))
	for _, v := range list {
		b = appendOne(b, v)
	}
	return b
}

// list reads a list whose elements take at least size bytes each.
func list[T any](d *decoder, size int, one func(*decoder) T) []T {
	n := d.count(size)
	if n == 0 {
		return nil
	}
	out := make([]T, n)
	for i := range out {
		out[i] = one(d)
	}
	return out
}

func appendMember(b []byte, m *member) []byte {
	b = le.AppendUint64(b, uint64(m.inc))
	b = appendNode(b, m.node)
	b = appendBool(b, m.fixed)
	b = le.AppendUint64(b, m.joined)
	b = le.AppendUint32(b, m.owed)
	b = le.AppendUint32(b, uint32(m.complete))
	b = le.AppendUint64(b, m.proposed.low)
	return appendList(b, m.proposed.ahead, le.AppendUint64)
}

func (d *decoder) member() *member {
	return &member{
		inc:      d.inc(),
		node:     d.node(),
		fixed:    d.bool(),
		joined:   d.u64(),
		owed:     d.u32(),
		complete: sheep.Epoch(d.u32()),
		proposed: sequence{low: d.u64(), ahead: list(d, 8, (*decoder).u64)},
	}
}

func appendEntry(b []byte, e Entry) []byte {
	b = le.AppendUint64(b, e.Index)
	b = append(b, byte(e.Kind))
	b = le.AppendUint64(b, uint64(e.Member))
	b = le.AppendUint64(b, uint64(e.Time))
	return appendBytes(b, e.Data)
}

func (d *decoder) entry() Entry {
	return Entry{
		Index:  d.u64(),
		Kind:   EntryKind(d.u8()),
		Member: d.inc(),
		Time:   int64(d.u64()),
		Data:   d.copied(),
	}
}

// copied reads bytes that outlive the decoder's buffer.
func (d *decoder) copied() []byte { return append([]byte(nil), d.bytes()...) }

func appendVDIState(b []byte, st *vdiState) []byte {
	b = appendVDI(b, st.vdi)
	b = appendBool(b, st.used)
	b = le.AppendUint32(b, uint32(st.epoch))
	b = appendBool(b, st.orphaned)
	b = le.AppendUint64(b, st.doubt.Since)
	b = appendBool(b, st.doubt.Blind)
	b = append(b, byte(st.lock.State))
	switch st.lock.State {
	case sheep.Exclusive:
		b = le.AppendUint64(appendNode(b, st.lock.Owner), uint64(st.lock.Life))
		b = appendHolder(le.AppendUint64(b, st.lock.Session), st.lock.Holder)
	case sheep.Shared:
		b = appendList(b, st.lock.Participants, appendParticipant)
	}
	return b
}

func (d *decoder) vdiState() *vdiState {
	st := &vdiState{vdi: d.vdi(), used: d.bool(), epoch: sheep.Epoch(d.u32())}
	st.orphaned = d.bool()
	st.doubt = Doubt{Since: d.u64(), Blind: d.bool()}
	st.lock.State = sheep.LockState(d.u8())
	switch st.lock.State {
	case sheep.Unlocked:
	case sheep.Exclusive:
		st.lock.Owner, st.lock.Life = d.node(), d.inc()
		if d.version >= 2 {
			st.lock.Session, st.lock.Holder = d.u64(), d.holder()
		}
	case sheep.Shared:
		st.lock.Participants = list(d, nodeSize+1, (*decoder).participant)
	default:
		d.bad = true
	}
	return st
}

func appendParticipant(b []byte, p sheep.Participant) []byte {
	return appendHolder(append(appendNode(b, p.Node), byte(p.State)), p.Holder)
}

func (d *decoder) participant() sheep.Participant {
	p := sheep.Participant{Node: d.node(), State: sheep.ShareState(d.u8())}
	if d.version >= 2 {
		p.Holder = d.holder()
	}
	return p
}

func appendHolder(b []byte, h sheep.Holder) []byte {
	return appendClient(le.AppendUint64(b, uint64(unixNano(h.Since))), h.Client)
}

func (d *decoder) holder() sheep.Holder {
	return sheep.Holder{Since: unixTime(int64(d.u64())), Client: d.client()}
}

func appendOwner(b []byte, vid sheep.VDIID, o owner) []byte {
	b = appendVID(b, vid)
	b = le.AppendUint64(b, uint64(o.Owner))
	b = appendNode(b, o.Node)
	b = le.AppendUint64(b, uint64(o.Generation))
	b = appendBool(b, o.Plan)
	b = le.AppendUint64(b, uint64(o.prev))
	return le.AppendUint64(b, uint64(o.prevGen))
}

func (d *decoder) owner() (sheep.VDIID, owner) {
	vid := d.vid()
	var o owner
	o.Owner = d.inc()
	o.Node = d.node()
	o.Generation = d.gen()
	o.Plan = d.bool()
	o.prev = d.inc()
	o.prevGen = d.gen()
	o.Draining = o.prev != 0
	return vid, o
}

func appendPlan(b []byte, p *plan) []byte {
	b = le.AppendUint64(b, p.index)
	b = le.AppendUint64(b, uint64(p.proposer))
	b = le.AppendUint64(b, uint64(p.executor))
	b = append(b, p.kind)
	b = appendBool(b, p.retry)
	b = le.AppendUint64(b, p.ctime)
	return appendBytes(b, p.payload)
}

func (d *decoder) plan() *plan {
	return &plan{
		index:    d.u64(),
		proposer: d.inc(),
		executor: d.inc(),
		kind:     d.u8(),
		retry:    d.bool(),
		ctime:    d.u64(),
		payload:  d.copied(),
	}
}
