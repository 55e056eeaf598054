package gossip

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"sheepdog/sheep"
)

// DefaultPort is the port of the cluster's traffic: TCP and UDP.
const DefaultPort = 7900

// MaxVoters bounds how many members vote. More cost time with every entry, and
// five survive two deaths at once.
const MaxVoters = 5

// Config says where a Driver lives and tunes it. Dir and Advertise are
// required. All members of a cluster must have the same times and key.
type Config struct {
	Dir       string         // where log, snapshots and peers are kept; made if it does not exist
	Bind      netip.AddrPort // to listen on; all addresses if the address is zero
	Advertise netip.AddrPort // told to the others; with port 0 the one that is listened on
	Seeds     []string       // "host:port" of members; none begins a new cluster
	Key       []byte         // what all members share, or nil for no encryption

	Heartbeat       time.Duration // between renewals of the lease; 500 ms if 0
	Lease           time.Duration // how long a member may answer after it asked for a renewal; 4 s if 0
	ExpelAfter      time.Duration // without being asked, after which a member is expelled; 6 s if 0. More than Lease
	LeaderLease     time.Duration // how long Raft's leader goes on without a majority; 500 ms if 0
	ElectionTimeout time.Duration // without a leader, after which Raft elects one; 1 s if 0. At least LeaderLease
	VoterTimeout    time.Duration // after which an absent voter that nobody replaces counts no more; 1 min if 0

	SnapshotAfter uint64 // entries between two snapshots; 8192 if 0
	Trailing      uint64 // entries that a snapshot leaves in the log; 10240 if 0

	Log *slog.Logger // nil discards
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Heartbeat, 500*time.Millisecond)
	def(&c.Lease, 4*time.Second)
	def(&c.ExpelAfter, 6*time.Second)
	def(&c.LeaderLease, 500*time.Millisecond)
	def(&c.ElectionTimeout, time.Second)
	def(&c.VoterTimeout, time.Minute)
	if c.SnapshotAfter == 0 {
		c.SnapshotAfter = 8192
	}
	if c.Trailing == 0 {
		c.Trailing = 10240
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) check() error {
	switch {
	case c.ExpelAfter <= c.Lease:
		return fmt.Errorf("%w: expulsion after %v, lease of %v", sheep.ErrInvalid, c.ExpelAfter, c.Lease)
	case c.Lease <= 2*c.Heartbeat:
		return fmt.Errorf("%w: lease of %v, renewed every %v", sheep.ErrInvalid, c.Lease, c.Heartbeat)
	case c.ElectionTimeout < c.LeaderLease:
		return fmt.Errorf("%w: election after %v, leader's lease of %v", sheep.ErrInvalid, c.ElectionTimeout, c.LeaderLease)
	case !c.Advertise.Addr().IsValid() || c.Advertise.Addr().IsUnspecified():
		return fmt.Errorf("%w: no address for the cluster's traffic", sheep.ErrInvalid)
	}
	return nil
}
