package gossip

import (
	"errors"
	"fmt"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// maxDeparted bounds how many departed members an fsmState remembers.
const maxDeparted = 1024

// errDeparted is what commands of members get that have left.
var errDeparted = errors.New("this member has left")

// An fsmState is what the driver itself makes of the log: a function of the
// commands applied, the same on every node.
type fsmState struct {
	raftIndex  uint64 // of the last command
	index      uint64 // of the last entry that the machine was given
	cluster    clusterID
	leadership uint64   // the present one
	members    []member // in the order of their joins
	departed   []sheep.Incarnation
}

// A member is a process that has joined and not left.
type member struct {
	inc    sheep.Incarnation
	id     string // of its node, the same in all its lives
	joined uint64 // index of its join
}

// apply applies a command and returns the entries that it makes, and what its
// author is told.
func (s *fsmState) apply(raftIndex uint64, c command) ([]cluster.Entry, error) {
	if raftIndex <= s.raftIndex {
		return nil, nil
	}
	s.raftIndex = raftIndex
	switch c.kind {
	case commandJoin:
		return s.join(c)
	case commandLeave:
		return s.leave(nil, c.inc, c), nil
	case commandExpel:
		return s.expel(c)
	case commandJoinAll:
		return s.joinAll(c)
	case commandMessage:
		if _, ok := s.member(c.inc); !ok {
			return nil, errDeparted
		}
		return s.emit(nil, cluster.EntryMessage, c.inc, c.time, c.data), nil
	case commandLeadership:
		return s.lead(c)
	}
	return nil, errBadCommand
}

// join adds a member. The life of its node before is over: there is one at a
// time, because the log in the store directory is locked.
func (s *fsmState) join(c command) ([]cluster.Entry, error) {
	if _, ok := s.member(c.inc); ok {
		return nil, nil
	}
	if slices.Contains(s.departed, c.inc) {
		return nil, errDeparted
	}
	var entries []cluster.Entry
	for _, m := range slices.Clone(s.members) {
		if m.id == c.id {
			entries = s.leave(entries, m.inc, command{time: c.time, data: []byte("restarted")})
		}
	}
	if len(entries) > 0 {
		entries[len(entries)-1].More = true
	}
	entries = s.emit(entries, cluster.EntryJoin, c.inc, c.time, c.data)
	s.members = append(s.members, member{inc: c.inc, id: c.id, joined: s.index})
	return entries, nil
}

// expel removes members, unless the author leads no more: then it does not know
// who was heard of since.
func (s *fsmState) expel(c command) ([]cluster.Entry, error) {
	if c.leadership != s.leadership {
		return nil, nil
	}
	x, err := decodeExpulsion(c.data)
	if err != nil {
		return nil, err
	}
	var entries []cluster.Entry
	for _, inc := range x.members {
		entries = s.leave(entries, inc, command{time: c.time, data: []byte(x.reason)})
	}
	for i := range entries {
		entries[i].More = x.alone || i < len(entries)-1
	}
	return entries, nil
}

// joinAll adds members in one step. Those that may not join are told so when
// they ask again.
func (s *fsmState) joinAll(c command) ([]cluster.Entry, error) {
	joins, err := decodeJoinAll(c.data)
	if err != nil {
		return nil, err
	}
	var all []cluster.Entry
	for _, join := range joins {
		entries, err := s.join(join)
		if err == nil {
			all = append(all, entries...)
		}
	}
	for i := range all {
		all[i].More = i < len(all)-1
	}
	return all, nil
}

func (s *fsmState) leave(entries []cluster.Entry, inc sheep.Incarnation, c command) []cluster.Entry {
	i := slices.IndexFunc(s.members, func(m member) bool { return m.inc == inc })
	if i < 0 {
		return entries
	}
	s.members = slices.Delete(slices.Clone(s.members), i, i+1) // others read the old one
	s.departed = append(s.departed, inc)
	if n := len(s.departed) - maxDeparted; n > 0 {
		s.departed = slices.Delete(s.departed, 0, n)
	}
	return s.emit(entries, cluster.EntryLeave, inc, c.time, c.data)
}

func (s *fsmState) emit(entries []cluster.Entry, kind cluster.EntryKind, inc sheep.Incarnation, time int64, data []byte) []cluster.Entry {
	s.index++
	return append(entries, cluster.Entry{Index: s.index, Kind: kind, Member: inc, Time: time, Data: data})
}

// lead begins a leadership, and with the first one of a timeline that timeline:
// nobody is a member of it yet. Its entries have larger indexes than any that
// other timelines have: no log lives by more than an entry a nanosecond.
func (s *fsmState) lead(c command) ([]cluster.Entry, error) {
	s.leadership = c.leadership
	id, err := decodeClusterID(c.data)
	if err != nil {
		return nil, err
	}
	if !id.known() || s.cluster.known() && !id.supersedes(s.cluster) {
		return nil, nil
	}
	s.cluster = id
	s.index = max(s.index+1, uint64(max(c.time, 0)))
	var entries []cluster.Entry
	for _, m := range slices.Clone(s.members) {
		entries = s.leave(entries, m.inc, command{time: c.time, data: []byte("recovery was forced")})
		entries[len(entries)-1].Fork = true
	}
	return entries, nil
}

func (s *fsmState) member(inc sheep.Incarnation) (member, bool) {
	i := slices.IndexFunc(s.members, func(m member) bool { return m.inc == inc })
	if i < 0 {
		return member{}, false
	}
	return s.members[i], true
}

const fsmStateVersion = 1

// A snapshot is an fsmState and the machine's state at the same place of the log:
//
//	offset  size  field
//	     0     1  version
//	     1     8  Raft's index of the last command
//	     9     8  index of the last entry
//	    17    24  cluster ID
//	    41     8  leadership
//	    49     4  number of members; each: incarnation, index of the join, length of the ID, ID
//	           4  number of departed members; each: incarnation
//	              state of the machine
func (s *fsmState) append(b []byte) []byte {
	b = append(b, fsmStateVersion)
	b = le.AppendUint64(b, s.raftIndex)
	b = le.AppendUint64(b, s.index)
	b = s.cluster.append(b)
	b = le.AppendUint64(b, s.leadership)
	b = le.AppendUint32(b, uint32(len(s.members)))
	for _, m := range s.members {
		b = le.AppendUint64(b, uint64(m.inc))
		b = le.AppendUint64(b, m.joined)
		b = append(append(b, byte(len(m.id))), m.id...)
	}
	b = le.AppendUint32(b, uint32(len(s.departed)))
	for _, inc := range s.departed {
		b = le.AppendUint64(b, uint64(inc))
	}
	return b
}

// decodeFSMState is the inverse of append. It returns the machine's state, too,
// which is part of b.
func decodeFSMState(b []byte) (s fsmState, machine []byte, err error) {
	r := &reader{b: b}
	if v := r.take(1); v[0] != fsmStateVersion {
		return s, nil, fmt.Errorf("%w: snapshot of version %d, not %d", sheep.ErrVersion, v[0], fsmStateVersion)
	}
	s.raftIndex = le.Uint64(r.take(8))
	s.index = le.Uint64(r.take(8))
	if s.cluster, err = decodeClusterID(r.take(clusterIDSize)); err != nil {
		return fsmState{}, nil, err
	}
	s.leadership = le.Uint64(r.take(8))
	for range r.count(17) {
		m := member{inc: sheep.Incarnation(le.Uint64(r.take(8))), joined: le.Uint64(r.take(8))}
		m.id = string(r.take(int(r.take(1)[0])))
		s.members = append(s.members, m)
	}
	for range r.count(8) {
		s.departed = append(s.departed, sheep.Incarnation(le.Uint64(r.take(8))))
	}
	if r.short {
		return fsmState{}, nil, fmt.Errorf("%w: snapshot of %d bytes", errBadCommand, len(b))
	}
	return s, r.b, nil
}

// A reader takes bytes from b. Once they run out it yields zeroes.
type reader struct {
	b     []byte
	short bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.short, r.b = true, nil
		return make([]byte, n)
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// count takes a number of things that have at least size bytes each.
func (r *reader) count(size int) int {
	n := int64(le.Uint32(r.take(4)))
	if n*int64(size) > int64(len(r.b)) {
		r.short, r.b = true, nil
		return 0
	}
	return int(n)
}
