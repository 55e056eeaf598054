package remote

import (
	"context"
	"encoding/binary"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// Simple sends an operation that has neither parameters nor data, to the daemon
// at addr or, if that is empty, to the entry.
func (c *Cluster) Simple(ctx context.Context, op proto.Opcode, addr string) error {
	_, _, err := c.Do(ctx, Request{Op: op, To: addr})
	return err
}

// ForceRecover makes the cluster run without the members that are missing.
func (c *Cluster) ForceRecover(ctx context.Context) error {
	_, _, err := c.Do(ctx, Request{Op: proto.OpForceRecover, Into: make([]byte, proto.MaxNodes*proto.NodeSize)})
	return err
}

// Format makes an empty cluster.
func (c *Cluster) Format(ctx context.Context, store string, b proto.ClusterBody) error {
	_, _, err := c.Do(ctx, Request{Op: proto.OpMakeFS, Body: b.Body(), Data: append([]byte(store), 0)})
	return err
}

// maxStoreList is the room for the names of stores.
const maxStoreList = 512

// Stores returns the names of the store drivers, each followed by a blank.
func (c *Cluster) Stores(ctx context.Context) (string, error) {
	_, data, err := c.Do(ctx, Request{Op: proto.OpGetStoreList, Into: make([]byte, maxStoreList)})
	return proto.Text(data), err
}

// Stat returns the counters of the entry.
func (c *Cluster) Stat(ctx context.Context) (proto.Stat, error) {
	_, data, err := c.Do(ctx, Request{Op: proto.OpStat, Into: make([]byte, proto.StatSize)})
	if err != nil {
		return proto.Stat{}, err
	}
	return proto.DecodeStat(data)
}

// Recovery returns the state of the recovery of the daemon at addr.
func (c *Cluster) Recovery(ctx context.Context, addr string) (proto.RecoveryState, error) {
	_, data, err := c.Do(ctx, Request{Op: proto.OpStatRecovery, To: addr, Into: make([]byte, proto.RecoveryStateSize)})
	if err != nil {
		return proto.RecoveryState{}, err
	}
	return proto.DecodeRecoveryState(data)
}

// Waiting returns the objects whose copies on the daemon at addr cannot be made
// current yet.
func (c *Cluster) Waiting(ctx context.Context, addr string) (proto.WaitingList, error) {
	_, data, err := c.Do(ctx, Request{Op: proto.OpGetWaiting, To: addr, Into: make([]byte, proto.WaitingRoom)})
	if err != nil {
		return proto.WaitingList{}, err
	}
	return proto.DecodeWaitingList(data)
}

// Slow returns the requests of clients that have been in flight on the daemon at
// addr for long.
func (c *Cluster) Slow(ctx context.Context, addr string) (proto.SlowList, error) {
	_, data, err := c.Do(ctx, Request{Op: proto.OpGetSlow, To: addr, Into: make([]byte, proto.SlowRoom)})
	if err != nil {
		return proto.SlowList{}, err
	}
	return proto.DecodeSlowList(data)
}

// Throttle returns how the recovery of the entry is held back.
func (c *Cluster) Throttle(ctx context.Context) (proto.Throttle, error) {
	_, data, err := c.Do(ctx, Request{Op: proto.OpGetRecovery, Into: make([]byte, proto.ThrottleSize)})
	if err != nil {
		return proto.Throttle{}, err
	}
	return proto.DecodeThrottle(data)
}

// SetThrottle holds the recovery of the entry back.
func (c *Cluster) SetThrottle(ctx context.Context, t proto.Throttle) error {
	_, _, err := c.Do(ctx, Request{Op: proto.OpSetRecovery, Data: t.Append(nil)})
	return err
}

// SetVNodes gives the entry n points on the ring.
func (c *Cluster) SetVNodes(ctx context.Context, n uint16) error {
	data := binary.LittleEndian.AppendUint32(nil, uint32(n))
	_, _, err := c.Do(ctx, Request{Op: proto.OpSetVNodes, Data: append(data, 0, 0, 0, 0)})
	return err
}

// LogLevel returns the level that the entry logs at: 0 (emerg) to 7 (debug).
func (c *Cluster) LogLevel(ctx context.Context) (int, error) {
	_, data, err := c.Do(ctx, Request{Op: proto.OpGetLogLevel, Into: make([]byte, 4)})
	if err != nil {
		return 0, err
	}
	if len(data) < 4 {
		return 0, fmt.Errorf("%w: log level of %d bytes", sheep.ErrIO, len(data))
	}
	return int(int32(binary.LittleEndian.Uint32(data))), nil
}

// SetLogLevel sets the level that the entry logs at.
func (c *Cluster) SetLogLevel(ctx context.Context, level int) error {
	_, _, err := c.Do(ctx, Request{Op: proto.OpSetLogLevel, Data: binary.LittleEndian.AppendUint32(nil, uint32(level))})
	return err
}

// Disks returns the disks of the daemon at addr, or of the entry.
func (c *Cluster) Disks(ctx context.Context, addr string) ([]proto.Disk, error) {
	_, data, err := c.Do(ctx, Request{Op: proto.OpMDInfo, To: addr, Into: make([]byte, proto.DiskTableSize)})
	if err != nil {
		return nil, err
	}
	return proto.DecodeDiskTable(data)
}

// Members returns the nodes of the cluster as its leader sees them.
func (c *Cluster) Members(ctx context.Context) ([]proto.PeerState, error) {
	_, data, err := c.Do(ctx, Request{Op: proto.OpGetMembers, Into: make([]byte, proto.MaxNodes*proto.PeerStateSize)})
	if err != nil {
		return nil, err
	}
	return proto.DecodePeerStates(data)
}

// Scrub returns what the background scrub of the daemon at addr, or of the entry,
// has found.
func (c *Cluster) Scrub(ctx context.Context, addr string) (proto.ScrubReport, error) {
	_, data, err := c.Do(ctx, Request{Op: proto.OpGetScrub, To: addr, Into: make([]byte, proto.ScrubRoom)})
	if err != nil {
		return proto.ScrubReport{}, err
	}
	return proto.DecodeScrubReport(data)
}

// Room returns how full the disk of the daemon at addr is.
func (c *Cluster) Room(ctx context.Context, addr string) (proto.SpaceReport, error) {
	_, data, err := c.Do(ctx, Request{Op: proto.OpGetSpace, To: addr, Into: make([]byte, proto.SpaceReportSize)})
	if err != nil {
		return proto.SpaceReport{}, err
	}
	return proto.DecodeSpaceReport(data)
}

// Damage returns the objects that the daemon at addr knows not to be as they should
// be.
func (c *Cluster) Damage(ctx context.Context, addr string) (proto.DamageReport, error) {
	_, data, err := c.Do(ctx, Request{Op: proto.OpGetDamage, To: addr, Into: make([]byte, proto.DamageRoom)})
	if err != nil {
		return proto.DamageReport{}, err
	}
	return proto.DecodeDamageReport(data)
}

// AcceptLoss has the daemon at addr make an object that nobody can read anew, as a
// copy of from or, if that is 0, of zeroes.
func (c *Cluster) AcceptLoss(ctx context.Context, addr string, id, from sheep.ObjectID) error {
	_, _, err := c.Do(ctx, Request{Op: proto.OpAcceptLoss, To: addr, Body: proto.ObjectBody{ID: id, COW: from}.Body()})
	return err
}
