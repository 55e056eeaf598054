package cluster

import (
	"context"
	"log/slog"
	"time"

	"sheepdog/sheep"
)

// The cluster flags, as the wire and stores have them: never renumber.
const (
	FlagStrict    uint16 = 0x01 // refuse writes with fewer zones than copies
	FlagDiskMode  uint16 = 0x02 // vnodes per disk; not supported
	FlagAutoVNode uint16 = 0x04 // weights follow the nodes' space
	FlagLocks     uint16 = 0x08 // LOCK_VDI locks
	FlagRecycle   uint16 = 0x10 // numbers of deleted VDIs are used again
	FlagAvoidFull uint16 = 0x20 // no recovery that would fill disks
)

// Settings are what the format of a cluster fixes.
type Settings struct {
	Ctime      uint64 // creation stamp: seconds<<32 | nanoseconds; 0 if never formatted
	Copies     uint8
	CopyPolicy uint8
	BlockShift uint8
	Flags      uint16
	Store      string // name of the store's layout, at most 15 bytes
}

// A History is what this node's store remembers of the cluster. The zero value
// is that of a store that was never formatted.
type History struct {
	Epoch    sheep.Epoch // the newest epoch in the store
	Nodes    []sheep.Node
	Time     time.Time // of that epoch
	Settings Settings
	Forced   sheep.Epoch // the newest forced epoch known, 0 if none or not recorded
	Healed   sheep.Epoch // the newest epoch known that all its members were complete for
	VDIs     []KnownVDI  // of the inodes in the store, each VDI once
}

// A KnownVDI is a VDI that a store has the inode of.
type KnownVDI struct {
	VDI   sheep.VDI
	Epoch sheep.Epoch // the write epoch of that copy of the inode
}

// Config is what a Cluster needs. Node, Driver, Hooks and Executor are required.
type Config struct {
	// Node is this node with the vnodes that it was given: 0 makes it a
	// gateway, and with automatic weights any other number means its share.
	Node sheep.Node

	// FixedVNodes says that the operator gave the number of vnodes. Such a node
	// does not fit a cluster with automatic weights, nor the other way round.
	FixedVNodes bool

	// Incarnation is drawn at random if it is zero.
	Incarnation sheep.Incarnation

	// HealDelay is how long the copies of a node that has left are waited for,
	// unless the log says otherwise. It is the same on all nodes.
	HealDelay time.Duration

	// StartPatience is how long a cluster that was shut down waits for members
	// that it can spare, from the latest join on; 20 s if it is 0.
	StartPatience time.Duration

	History  History
	Driver   Driver
	Hooks    Hooks
	Executor Executor
	Health   func() error // see Self; may be nil
	Log      *slog.Logger // nil discards
}

// Hooks are how the log acts on the node. They are called in the order of the
// log, one at a time, on the goroutine that applies it: a hook that is slow
// delays the node, and one that waits for the log stands still. The state that
// the Cluster's methods show is that after the entry.
type Hooks interface {
	// Install is called for every new view before View returns it. With
	// epochChanged the store does not have the view's epoch yet (also when
	// the node takes a newer epoch over while it waits for members): persist
	// it with the view's EpochTime before returning. An error ends Run.
	Install(v *View, epochChanged bool) error

	// Format is called before Install when the cluster was formatted, or when
	// this node, unformatted, has become part of a running one: wipe the store
	// and keep s. An error ends Run.
	Format(s Settings) error

	// Ownership is called when the owner of a VDI changes, on all nodes; the
	// zero Ownership stands for none. A node that joins is told so of all VDIs
	// that have owners. It must not block. If new is Draining and old was not
	// (nor zero), the gateway that is old.Owner stops admitting, waits for what
	// is in flight, flushes, and calls Drained with old's generation.
	Ownership(vid sheep.VDIID, old, new Ownership)

	// Stop is called at most once: the cluster shuts down (sheep.ErrShutdown),
	// or this node was refused or expelled. After a shutdown Run goes on until
	// its context is cancelled, otherwise it returns the reason.
	Stop(reason error)
}

// An Executor runs plans.
type Executor interface {
	// Execute runs the plan of t, from its start, or with t.Retry after another
	// node has run an unknown part of it. It is never called concurrently in the
	// whole cluster, except that the context of an executor that lost its turn
	// may be noticed late: all its writes carry generations of t.Freeze, which
	// are then refused. What it returns is logged: result goes to the caller of
	// Plan, changes are applied everywhere in one step even if err is not nil.
	Execute(ctx context.Context, t *Turn) (result []byte, changes []VDIChange, err error)
}

// A VDIChange is an effect of a plan on the VDI table.
type VDIChange struct {
	VDI  sheep.VDI
	Drop bool // forget the VDI, so that its number is free again
}
