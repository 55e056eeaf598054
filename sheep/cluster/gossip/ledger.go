package gossip

import (
	"errors"
	"fmt"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// maxDeparted bounds how many departed members a ledger remembers.
const maxDeparted = 1024

// errDeparted is what commands of members get that have left.
var errDeparted = errors.New("this member has left")

// A ledger is what the driver itself makes of the log: a function of the
// commands applied, the same on every node.
type ledger struct {
	raft     uint64 // Raft's index of the last command
	index    uint64 // of the last entry that the machine was given
	kingdom  kingdom
	reign    uint64 // the present one
	seats    []seat // of the members, in the order of their joins
	departed []sheep.Incarnation
}

// A seat is one member.
type seat struct {
	who    sheep.Incarnation
	id     string // of its node, the same in all its lives
	joined uint64 // index of its join
}

// apply applies a command and returns the entries that it makes, and what its
// author is told.
func (l *ledger) apply(raftIndex uint64, c command) ([]cluster.Entry, error) {
	if raftIndex <= l.raft {
		return nil, nil
	}
	l.raft = raftIndex
	switch c.kind {
	case commandJoin:
		return l.join(c)
	case commandLeave:
		if c.reign != 0 && c.reign != l.reign {
			return nil, nil // who decided that leads no more, and knows not who was heard of since
		}
		return l.leave(nil, c.who, c), nil
	case commandMessage:
		if _, ok := l.seat(c.who); !ok {
			return nil, errDeparted
		}
		return l.enter(nil, cluster.EntryMessage, c.who, c.time, c.data), nil
	case commandReign:
		return nil, l.crown(c)
	}
	return nil, errBadCommand
}

// join gives a node a seat. A life of the node before is over: there is one at
// a time, because the log in the store directory is locked.
func (l *ledger) join(c command) ([]cluster.Entry, error) {
	if _, ok := l.seat(c.who); ok {
		return nil, nil
	}
	if slices.Contains(l.departed, c.who) {
		return nil, errDeparted
	}
	var entries []cluster.Entry
	for _, s := range slices.Clone(l.seats) {
		if s.id == c.id {
			entries = l.leave(entries, s.who, command{time: c.time, data: []byte("restarted")})
		}
	}
	if len(entries) > 0 {
		entries[len(entries)-1].More = true
	}
	entries = l.enter(entries, cluster.EntryJoin, c.who, c.time, c.data)
	l.seats = append(l.seats, seat{who: c.who, id: c.id, joined: l.index})
	return entries, nil
}

func (l *ledger) leave(entries []cluster.Entry, who sheep.Incarnation, c command) []cluster.Entry {
	i := slices.IndexFunc(l.seats, func(s seat) bool { return s.who == who })
	if i < 0 {
		return entries
	}
	l.seats = slices.Delete(slices.Clone(l.seats), i, i+1) // others read the old one
	l.departed = append(l.departed, who)
	if n := len(l.departed) - maxDeparted; n > 0 {
		l.departed = slices.Delete(l.departed, 0, n)
	}
	return l.enter(entries, cluster.EntryLeave, who, c.time, c.data)
}

func (l *ledger) enter(entries []cluster.Entry, kind cluster.EntryKind, who sheep.Incarnation, time int64, data []byte) []cluster.Entry {
	l.index++
	return append(entries, cluster.Entry{Index: l.index, Kind: kind, Member: who, Time: time, Data: data})
}

// crown begins a reign, and if it says so a cluster, or another branch of this
// one. The entries of that have larger indexes than any that were lost: no log
// lives by more than an entry a nanosecond.
func (l *ledger) crown(c command) error {
	l.reign = c.reign
	if len(c.data) == 0 {
		return nil
	}
	k, err := decodeKingdom(c.data)
	if err != nil {
		return err
	}
	later := k.cluster == l.kingdom.cluster && k.branch > l.kingdom.branch
	if l.kingdom.known() && !later {
		return nil
	}
	l.kingdom = k
	l.index = max(l.index+1, uint64(max(c.time, 0)))
	return nil
}

func (l *ledger) seat(who sheep.Incarnation) (seat, bool) {
	i := slices.IndexFunc(l.seats, func(s seat) bool { return s.who == who })
	if i < 0 {
		return seat{}, false
	}
	return l.seats[i], true
}

const ledgerVersion = 1

// A snapshot is a ledger and the machine's state at the same place of the log:
//
//	offset  size  field
//	     0     1  version
//	     1     8  Raft's index of the last command
//	     9     8  index of the last entry
//	    17    20  kingdom
//	    37     8  reign
//	    45     4  number of seats; each: incarnation, index of the join, length of the id, id
//	           4  number of departed members; each: incarnation
//	              state of the machine
func (l *ledger) append(b []byte) []byte {
	b = append(b, ledgerVersion)
	b = le.AppendUint64(b, l.raft)
	b = le.AppendUint64(b, l.index)
	b = l.kingdom.append(b)
	b = le.AppendUint64(b, l.reign)
	b = le.AppendUint32(b, uint32(len(l.seats)))
	for _, s := range l.seats {
		b = le.AppendUint64(b, uint64(s.who))
		b = le.AppendUint64(b, s.joined)
		b = append(append(b, byte(len(s.id))), s.id...)
	}
	b = le.AppendUint32(b, uint32(len(l.departed)))
	for _, who := range l.departed {
		b = le.AppendUint64(b, uint64(who))
	}
	return b
}

// decodeLedger is the inverse of append. It returns the machine's state, too,
// which is part of b.
func decodeLedger(b []byte) (l ledger, state []byte, err error) {
	d := &reader{b: b}
	if v := d.take(1); v[0] != ledgerVersion {
		return l, nil, fmt.Errorf("%w: snapshot of version %d, not %d", sheep.ErrVersion, v[0], ledgerVersion)
	}
	l.raft = le.Uint64(d.take(8))
	l.index = le.Uint64(d.take(8))
	l.kingdom = kingdom{cluster: [16]byte(d.take(16)), branch: le.Uint32(d.take(4))}
	l.reign = le.Uint64(d.take(8))
	for range d.count(17) {
		s := seat{who: sheep.Incarnation(le.Uint64(d.take(8))), joined: le.Uint64(d.take(8))}
		s.id = string(d.take(int(d.take(1)[0])))
		l.seats = append(l.seats, s)
	}
	for range d.count(8) {
		l.departed = append(l.departed, sheep.Incarnation(le.Uint64(d.take(8))))
	}
	if d.short {
		return ledger{}, nil, fmt.Errorf("%w: snapshot of %d bytes", errBadCommand, len(b))
	}
	return l, d.b, nil
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
