package sheep

import "time"

// A VDI is what every node knows of a virtual disk, without reading its inode.
type VDI struct {
	ID         VDIID
	Name       string
	SnapID     uint32
	Parent     VDIID
	Policy     Policy
	BlockShift uint8
	Hyper      bool // a hyper volume: its inode holds a B-tree
	Snapshot   bool // frozen: its data objects are read-only
	Deleted    bool // its number stays taken; its inode is empty
}

// A Lock is the state of the VDI lock of the wire protocol. It belongs to the
// gateways that asked, for their clients, and is not the ownership that orders
// writes.
type Lock struct {
	State        LockState
	Owner        Node        // if exclusive
	Life         Incarnation // of the owner, if the lock ends with it; else 0
	Session      uint64      // of that life, if the lock ends with that, too; else 0
	Holder       Holder      // if exclusive
	Participants []Participant
}

// A Holder is the client that a gateway has taken a lock for. It is zero if that
// is not known: the gateway answers for the lock.
type Holder struct {
	Client Client
	Since  time.Time
}

// A LockState says how a VDI is locked. The numbers are the wire's: never renumber.
type LockState uint32

// The lock states.
const (
	Unlocked  LockState = 1
	Exclusive LockState = 2
	Shared    LockState = 3
)

// A Participant is one gateway that shares a VDI's lock.
type Participant struct {
	Node   Node
	State  ShareState
	Holder Holder
}

// A ShareState says what a participant's cached inode is worth. The numbers
// are the wire's: never renumber.
type ShareState uint32

// The states of a participant.
const (
	ShareModified    ShareState = 1
	ShareShared      ShareState = 2
	ShareInvalidated ShareState = 3
)
