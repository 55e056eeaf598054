package server

import (
	"context"
	"net/netip"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/vdi"
)

// A Guard is where requests of clients for objects enter the chain. It knows
// what inodes mean, and from an object's id all else that a Ref says; the server
// does not. *vdi.Guard is one.
type Guard interface {
	sheep.Objects
	sheep.Flusher
	Discard(ctx context.Context, id sheep.ObjectID) error
	Decref(ctx context.Context, id sheep.ObjectID, generation, count uint32) error

	// WriteOwned and DecrefOwned serve what other gateways forward to the
	// owner of a VDI; they refuse it if that is not this node.
	WriteOwned(ctx context.Context, ref sheep.Ref, w *sheep.Write) error
	DecrefOwned(ctx context.Context, ref sheep.Ref, generation, count uint32) error
}

var _ Guard = (*vdi.Guard)(nil)

// Operations are the operations on whole VDIs; *vdi.Operations are.
type Operations interface {
	// Create serves NEW_VDI.
	Create(ctx context.Context, name string, b proto.VDIBody) (sheep.VDI, error)

	// Lookup finds a working VDI, or with a tag or snapshot id a snapshot. It
	// sees everything that was answered before the call by any node.
	Lookup(ctx context.Context, name, tag string, snapID uint32) (sheep.VDI, error)

	// Delete serves DEL_VDI.
	Delete(ctx context.Context, name, tag string, snapID uint32) (sheep.VDI, error)

	// Attr serves GET_VDI_ATTR: data is a whole attribute object.
	Attr(ctx context.Context, data []byte, flags proto.Flags) (proto.VDIReply, error)
}

var _ Operations = (*vdi.Operations)(nil)

// An Owner serves what one other gateway forwards to the owner of a VDI, which
// is this node's gateway or nobody here: it never forwards again. Inodes are
// the Guard's.
type Owner interface {
	sheep.Objects
	sheep.Flusher
}

// A Replica serves this node's copies to peers. Ref.Epoch is checked against
// this node's.
type Replica interface {
	Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error
	Remove(ctx context.Context, ref sheep.Ref) error
	Flush(ctx context.Context, e sheep.Epoch, vdi sheep.VDIID) error

	// ReadAny is Read of a copy that may not be current.
	ReadAny(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error

	// StartWrite applies w. It does not wait: done is called at once or later,
	// on any goroutine, and w and its data are in use until then.
	StartWrite(ctx context.Context, ref sheep.Ref, w *sheep.Write, done func(error))
}

// Copies tell what this node knows of its copies.
type Copies interface {
	States(ctx context.Context, e sheep.Epoch, ids []sheep.ObjectID) ([]proto.CopyState, error)
	List(ctx context.Context, e sheep.Epoch, from sheep.ObjectID, limit int) ([]sheep.ObjectID, error)
	Intents(ctx context.Context, e sheep.Epoch) ([]sheep.ObjectID, error)
	Digest(ctx context.Context, e sheep.Epoch, id sheep.ObjectID) ([20]byte, error)
}

// A Store is this node's disk.
type Store interface {
	Has(id sheep.ObjectID) bool
	IDs(from sheep.ObjectID) ([]sheep.ObjectID, error) // ascending, from from on
	Space() (total, free uint64)
	Room() (proto.SpaceReport, error)
	Epoch(e sheep.Epoch) ([]sheep.Node, time.Time, error)
}

// A Recovery copies what this node lacks.
type Recovery interface {
	State() proto.RecoveryState
	Throttle() proto.Throttle
	SetThrottle(t proto.Throttle)
	SetRate(limit uint64) // bytes a second; 0 does not limit
	Healing() proto.Healing
	Waiting() proto.WaitingList

	// Repair replaces this node's copy by that of another node.
	Repair(ctx context.Context, id sheep.ObjectID, from netip.AddrPort) error
}

// Flights are the requests of clients in flight.
type Flights interface {
	// Slow returns those that have been for at least age, the oldest first.
	Slow(age time.Duration) proto.SlowList
}

// A LogLevel is the level of this node's log, as syslog counts: 0 emergency to
// 7 debug.
type LogLevel interface {
	Get() int
	Set(level int) error
}

// A Table is what every node knows of the cluster and its VDIs.
type Table interface {
	View() *cluster.View
	VDI(id sheep.VDIID) (sheep.VDI, bool)
	VDIs() []sheep.VDI // ascending
	LockOf(id sheep.VDIID) sheep.Lock
	Owner(id sheep.VDIID) (cluster.Ownership, bool)
	DoubtAbout(id sheep.VDIID) cluster.Doubt
	UsedBitmap() []byte
	DeletedBitmap() []byte
	Lease() error // nil while this node may answer

	// Peers returns the nodes as the leader of the cluster sees them, or
	// sheep.ErrNotSupported if the cluster has no leader.
	Peers(ctx context.Context) ([]cluster.Peer, error)
}

// Commands change the cluster. Each returns when it is applied here.
type Commands interface {
	Format(ctx context.Context, s cluster.Settings) error
	Shutdown(ctx context.Context) error
	ForceRecover(ctx context.Context) error

	// RecoverQuorum has the nodes that can be reached go on without a lost
	// majority, and ends the membership of this one when restart is called. It
	// returns sheep.ErrNotSupported where there is no majority to lose, and
	// cluster.ErrQuorum if it is not lost.
	RecoverQuorum(ctx context.Context) (restart func(), err error)
	SetRecovery(ctx context.Context, on bool) error
	SetVNodes(ctx context.Context, n uint16) error
	SetHealDelay(ctx context.Context, d time.Duration) error
	Maintain(ctx context.Context, addr netip.AddrPort, d time.Duration) error
	Drain(ctx context.Context, addr netip.AddrPort, undo bool) error
	AddVDI(ctx context.Context, old sheep.VDIID, v sheep.VDI, setBit bool) error
	SetDeadline(ctx context.Context, d time.Duration) error
	SetVDIDeadline(ctx context.Context, vid sheep.VDIID, d time.Duration) error
	Lock(ctx context.Context, vid sheep.VDIID, r cluster.LockRequest) error
	NewSession() uint64
	EndSession(ctx context.Context, session uint64) error
	Unlock(ctx context.Context, vid sheep.VDIID, shared bool, node sheep.Node) error
	Coherence(ctx context.Context, vid sheep.VDIID, validate bool) error
	RaiseDoubt(ctx context.Context, vid sheep.VDIID) error
	SettleDoubt(ctx context.Context, vid sheep.VDIID, d cluster.Doubt) error
}

// Cluster is what the nodes agree on; *cluster.Cluster is one.
type Cluster interface {
	Table
	Commands
}

var _ Cluster = (*cluster.Cluster)(nil)
