package cluster

import (
	"context"

	"sheepdog/sheep"
)

// MaxMessage bounds the data of one message, in bytes.
const MaxMessage = 128 << 10

// MaxJoin bounds the data of a join entry, in bytes.
const MaxJoin = 1 << 20

// An EntryKind says what an entry of the log tells.
type EntryKind uint8

// The kinds of entries, as logs have them: never renumber.
const (
	EntryJoin    EntryKind = 1 // Member asks to be a member; Data is its hello
	EntryLeave   EntryKind = 2 // Member is gone; Data is the reason, for people
	EntryMessage EntryKind = 3 // Member proposed Data
)

// An Entry is one step of the cluster's log.
type Entry struct {
	Index  uint64 // larger than that of any entry before it, in the life of the cluster
	Kind   EntryKind
	Member sheep.Incarnation
	Time   int64 // when it was proposed, by the proposer's clock: nanoseconds since 1970
	Data   []byte

	// More says of a leave or a join that it and the next entry are one step,
	// which costs one epoch: a node restarts, several do at once, or several are
	// expelled. If no member lives to take note of an epoch, the next entry may
	// come much later.
	More bool

	// Fork says of a leave that the log has lost its end for ever, which others
	// may know: what it tells of epochs may not be the newest.
	Fork bool
}

// A Driver orders the entries of the log of one cluster and delivers them to
// every member.
//
// Every member is given the same entries in the same order, each once, with
// growing indexes that are never used twice, not even when the log itself
// starts over. Joins and leaves are part of the order; a member that died
// leaves by an entry, after which the driver delivers no message that the
// member had not logged before. A driver delivers at least what was accepted:
// a message may be logged twice, so the receiver drops repetitions.
type Driver interface {
	// Run makes self a member and delivers to m until ctx is done or the
	// membership is lost. It first restores m from a snapshot, then applies the
	// entries after it, self's join among them. When ctx is done it logs self's
	// leave, delivers up to it if it can, and returns nil; an error says why
	// the membership was lost. It is called once.
	Run(ctx context.Context, self Self, m Machine) error

	// Propose logs a message of at most MaxMessage bytes. It returns nil once
	// the message is certain to be delivered, unless this member is expelled
	// first; that it was delivered it does not say. It keeps no reference to data.
	Propose(ctx context.Context, data []byte) error

	// Sync returns nil when every entry that any member had logged before the
	// call has been applied to this member's machine.
	Sync(ctx context.Context) error

	// Lease returns nil while this member may answer requests: no other member
	// acts on its death before Lease has begun to fail. It is cheap and may be
	// called for every request.
	Lease() error
}

// Self is what a driver is told of the member that it joins.
type Self struct {
	Incarnation sheep.Incarnation
	Hello       []byte // the data of the join entry, at most MaxJoin bytes

	// Health, if not nil, says whether this member's store answers. While it
	// does not return nil, the driver stops renewing the lease.
	Health func() error
}

// A Machine is what the log drives. The driver makes all calls from one
// goroutine.
type Machine interface {
	// Restore replaces the state by that of a snapshot, taken after the entry
	// with the index was applied. An empty snapshot is the state before the
	// first entry. The machine does not keep the slice.
	Restore(index uint64, snapshot []byte) error

	// Apply applies the next entry. The machine may keep e.Data.
	Apply(e Entry)

	// Snapshot returns the present state. Machines that have applied the same
	// entries return the same bytes.
	Snapshot() []byte
}
