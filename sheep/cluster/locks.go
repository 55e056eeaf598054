package cluster

import (
	"fmt"
	"slices"

	"sheepdog/sheep"
)

// Messages about the VDI locks of the wire protocol. A lock belongs to the
// gateway that asked.

// maxParticipants bounds the gateways that share a lock.
const maxParticipants = 31

// lockMsg locks a VDI for the proposer's gateway.
type lockMsg struct {
	vid     sheep.VDIID
	shared  bool
	bound   bool // an exclusive lock that ends with the life of the gateway
	session uint64
	client  sheep.Client
}

func (lockMsg) kind() messageKind { return kindLock }

func (m lockMsg) append(b []byte) []byte {
	b = appendBool(appendBool(appendVID(b, m.vid), m.shared), m.bound)
	if !m.named() {
		return b
	}
	return appendClient(le.AppendUint64(b, m.session), m.client)
}

// named reports whether m says for whom the lock is. Older daemons did not.
func (m lockMsg) named() bool { return m.session != 0 || m.client != (sheep.Client{}) }

func decodeLock(d *decoder) message {
	m := lockMsg{vid: d.vid(), shared: d.bool(), bound: d.bool()}
	if len(d.b) > 0 {
		m.session, m.client = d.u64(), d.client()
		d.bad = d.bad || !m.named()
	}
	return m
}

func appendClient(b []byte, c sheep.Client) []byte {
	return appendString(appendString(b, c.Kind), c.Addr)
}

func (d *decoder) client() sheep.Client { return sheep.Client{Kind: d.string(), Addr: d.string()} }

func (m lockMsg) apply(s *state, from *member, e *Entry, _ *effects) error {
	if err := s.serving(); err != nil {
		return err
	}
	st := s.vdis.all[m.vid]
	switch {
	case st == nil:
		return sheep.ErrNoVDI
	case s.settings.Flags&FlagLocks == 0:
		return nil
	}
	if st.lock.State == sheep.Exclusive && !s.isPresent(st.lock.Owner) {
		st.lock = sheep.Lock{State: sheep.Unlocked} // its client has lost the disk with its gateway
	}
	holder := sheep.Holder{Client: m.client, Since: unixTime(e.Time)}
	switch {
	case m.shared:
		return st.share(from.node, holder)
	case st.lock.State != sheep.Unlocked:
		return sheep.ErrVDILocked
	}
	st.lock = sheep.Lock{State: sheep.Exclusive, Owner: from.node, Holder: holder}
	if m.bound {
		st.lock.Life, st.lock.Session = from.inc, m.session
	}
	return nil
}

// isPresent reports whether a member has the address of n.
func (s *state) isPresent(n sheep.Node) bool {
	return slices.ContainsFunc(s.members, func(m *member) bool { return m.node.Addr == n.Addr })
}

// share adds a participant. The first may have changed the inode; later ones
// must read it if somebody may have.
func (v *vdiState) share(n sheep.Node, h sheep.Holder) error {
	if v.lock.State == sheep.Unlocked {
		v.lock = sheep.Lock{
			State:        sheep.Shared,
			Participants: []sheep.Participant{{Node: n, State: sheep.ShareModified, Holder: h}},
		}
		return nil
	}
	if v.lock.State != sheep.Shared || len(v.lock.Participants) >= maxParticipants || v.participant(n) != nil {
		return sheep.ErrVDILocked
	}
	state := sheep.ShareShared
	if slices.ContainsFunc(v.lock.Participants, func(p sheep.Participant) bool { return p.State == sheep.ShareModified }) {
		state = sheep.ShareInvalidated
	}
	v.lock.Participants = append(v.lock.Participants, sheep.Participant{Node: n, State: state, Holder: h})
	return nil
}

// participant returns the entry of the gateway n, or nil.
func (v *vdiState) participant(n sheep.Node) *sheep.Participant {
	for i := range v.lock.Participants {
		if p := &v.lock.Participants[i]; p.Node.Addr == n.Addr {
			return p
		}
	}
	return nil
}

// leaveShare takes a gateway off a shared lock, and frees the lock if it was
// the last.
func (v *vdiState) leaveShare(n sheep.Node) {
	if v.lock.State != sheep.Shared {
		return
	}
	v.lock.Participants = slices.DeleteFunc(v.lock.Participants, func(p sheep.Participant) bool {
		return p.Node.Addr == n.Addr
	})
	if len(v.lock.Participants) == 0 {
		v.lock = sheep.Lock{State: sheep.Unlocked}
	}
}

// moveLocks frees what is deleted, and hands the exclusive lock of a head that
// became a snapshot to the head that follows it: the client that holds it goes
// on there and will release that one. Those who share a lock look the new head
// up and share it anew.
func (t *vdiTable) moveLocks(changes []VDIChange) {
	for _, c := range changes {
		st := t.all[c.VDI.ID]
		switch {
		case st == nil:
		case st.vdi.Deleted:
			st.lock = sheep.Lock{State: sheep.Unlocked}
		case st.vdi.Snapshot && st.lock.State == sheep.Exclusive:
			if head := t.successor(c.VDI.Name, changes); head != nil {
				head.lock = st.lock
				st.lock = sheep.Lock{State: sheep.Unlocked}
			}
		}
	}
}

// successor returns the head of the name that changes tell of, or nil.
func (t *vdiTable) successor(name string, changes []VDIChange) *vdiState {
	i := slices.IndexFunc(changes, func(h VDIChange) bool {
		return h.VDI.Name == name && !h.VDI.Snapshot && !h.VDI.Deleted && !h.Drop
	})
	if i < 0 {
		return nil
	}
	return t.all[changes[i].VDI.ID]
}

// unlockGone takes a member that left off all shared locks, and releases the
// exclusive ones that end with its life. The others stay: QEMU connects again to
// a gateway that comes back, and does not lock again. Until then whoever wants
// such a lock gets it.
func (s *state) unlockGone(m *member) {
	for _, v := range s.vdis.all {
		v.leaveShare(m.node)
		if v.lock.State == sheep.Exclusive && v.lock.Life == m.inc {
			v.lock = sheep.Lock{State: sheep.Unlocked}
		}
	}
}

// unlockMsg releases an exclusive lock, whoever holds it, or the share of node.
// What is not locked that way stays as it is.
type unlockMsg struct {
	vid    sheep.VDIID
	shared bool
	node   sheep.Node
}

func (unlockMsg) kind() messageKind { return kindUnlock }

func (m unlockMsg) append(b []byte) []byte {
	b = appendBool(appendVID(b, m.vid), m.shared)
	return appendNode(b, m.node)
}

func (m unlockMsg) apply(s *state, _ *member, _ *Entry, _ *effects) error {
	st := s.vdis.all[m.vid]
	switch {
	case st == nil:
	case m.shared:
		st.leaveShare(m.node)
	case st.lock.State == sheep.Exclusive:
		st.lock = sheep.Lock{State: sheep.Unlocked}
	}
	return nil
}

// endSessionMsg releases the exclusive locks that a session of the proposer has,
// on whichever VDIs they are by now.
type endSessionMsg struct{ session uint64 }

func (endSessionMsg) kind() messageKind        { return kindEndSession }
func (m endSessionMsg) append(b []byte) []byte { return le.AppendUint64(b, m.session) }

func (m endSessionMsg) apply(s *state, from *member, _ *Entry, _ *effects) error {
	if m.session == 0 {
		return fmt.Errorf("%w: session 0", sheep.ErrInvalid)
	}
	for _, v := range s.vdis.all {
		if l := &v.lock; l.State == sheep.Exclusive && l.Life == from.inc && l.Session == m.session {
			*l = sheep.Lock{State: sheep.Unlocked}
		}
	}
	return nil
}

// coherenceMsg says that the proposer's gateway changed the inode of a shared
// VDI, or with validate that it has read the present one.
type coherenceMsg struct {
	vid      sheep.VDIID
	validate bool
}

func (coherenceMsg) kind() messageKind        { return kindCoherence }
func (m coherenceMsg) append(b []byte) []byte { return appendBool(appendVID(b, m.vid), m.validate) }

func (m coherenceMsg) apply(s *state, from *member, _ *Entry, _ *effects) error {
	st := s.vdis.all[m.vid]
	if st == nil {
		return sheep.ErrNoVDI
	}
	self := st.participant(from.node)
	if self == nil {
		return sheep.ErrNoVDI
	}
	if !m.validate && self.State == sheep.ShareModified {
		return nil
	}
	for i := range st.lock.Participants {
		p := &st.lock.Participants[i]
		switch {
		case !m.validate:
			p.State = sheep.ShareInvalidated
		case p.State != sheep.ShareInvalidated:
			p.State = sheep.ShareShared
		}
	}
	if m.validate {
		self.State = sheep.ShareShared
	} else {
		self.State = sheep.ShareModified
	}
	return nil
}
