package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
)

// A Status says what the cluster does. The numbers are the wire's: never renumber.
type Status uint8

// The states of a cluster.
const (
	OK       Status = 1 // serving
	Wait     Status = 2 // for its format, or for the members of the newest epoch
	Shutdown Status = 3 // all daemons are to stop
	Killed   Status = 4 // this daemon is to stop; never a state of the cluster
)

func (s Status) String() string {
	switch s {
	case OK:
		return "running"
	case Wait:
		return "waiting"
	case Shutdown:
		return "shutdown"
	case Killed:
		return "killed"
	}
	return fmt.Sprintf("status %d", uint8(s))
}

// A Member is a daemon that is present.
type Member struct {
	Node        sheep.Node // as it joined: VNodes are what it was given
	Incarnation sheep.Incarnation
	Joined      uint64      // the index of its join
	Complete    sheep.Epoch // the newest epoch that its recovery is complete for
}

// A View is what the cluster looks like after some entry. It never changes.
type View struct {
	Index     uint64 // of the entry that made the view
	Status    Status
	Epoch     sheep.Epoch
	EpochTime time.Time       // when the epoch began, the same on every node
	Nodes     []sheep.Node    // of the epoch, sorted, with effective VNodes
	Ring      *placement.Ring // of Nodes

	// Members are the daemons that are present, sorted by address. They are
	// those of Nodes while the status is OK; before that, either may be missing
	// in the other.
	Members []Member

	Settings         Settings
	RecoveryDisabled bool

	HealDelay   time.Duration    // so long the copies of a node that has left are waited for
	Absences    []Absence        // nodes that have left and whose copies were not yet made anew
	Maintenance []Maintenance    // nodes whose departure is meant
	Drained     []netip.AddrPort // nodes that are to hold nothing; in Nodes they have no VNodes

	Deadline     time.Duration                 // so long clients wait for a request; 0 is for ever
	VDIDeadlines map[sheep.VDIID]time.Duration // of the VDIs that have one of their own

	ForcedEpoch sheep.Epoch // members of older epochs that are missing were given up
	HealedEpoch sheep.Epoch // the newest epoch that all its members were complete for
	Joined      bool        // this node is a member
	Self        int         // this node in Nodes, or -1
}

// Serving returns nil if the cluster takes requests, else the error that
// requests get.
func (v *View) Serving() error {
	switch {
	case v.Status == OK:
		return nil
	case v.Status == Shutdown:
		return sheep.ErrShutdown
	case v.Status == Killed:
		return sheep.ErrKilled
	case v.Epoch == 0:
		return sheep.ErrWaitForFormat
	}
	return sheep.ErrWaitForJoin
}

// Member returns the member with the incarnation.
func (v *View) Member(inc sheep.Incarnation) (Member, bool) {
	i := slices.IndexFunc(v.Members, func(m Member) bool { return m.Incarnation == inc })
	if i < 0 {
		return Member{}, false
	}
	return v.Members[i], true
}

// MemberAt returns the member that has the node's address.
func (v *View) MemberAt(n sheep.Node) (Member, bool) {
	i, ok := slices.BinarySearchFunc(v.Members, n, func(m Member, n sheep.Node) int {
		return sheep.CompareAddr(m.Node.Addr, n.Addr)
	})
	if !ok {
		return Member{}, false
	}
	return v.Members[i], true
}

// Complete reports whether all members have completed recovery for the epoch.
// Gateways have nothing to recover.
func (v *View) Complete() bool {
	return !slices.ContainsFunc(v.Members, func(m Member) bool {
		return m.Complete < v.Epoch && m.Node.VNodes > 0
	})
}
