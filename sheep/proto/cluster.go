package proto

import (
	"encoding/binary"
	"fmt"
	"time"

	"sheepdog/sheep"
)

// ClusterFlags are chosen when a cluster is formatted.
type ClusterFlags uint16

// The flags, as peers and disks have seen them: never renumber.
const (
	ClusterStrict        ClusterFlags = 0x0001 // refuse writes with fewer zones than copies
	ClusterDiskMode      ClusterFlags = 0x0002 // each disk has vnodes of its own; we refuse it
	ClusterAutoVNodes    ClusterFlags = 0x0004 // vnodes follow the nodes' space
	ClusterLock          ClusterFlags = 0x0008 // LOCK_VDI locks
	ClusterRecycleVIDs   ClusterFlags = 0x0010 // numbers of deleted VDIs are used again
	ClusterAvoidDiskFull ClusterFlags = 0x0020 // skip recovery that would fill disks
)

// A Status is the state of a cluster as CLUSTER_INFO tells it.
type Status uint8

// The states, as peers have seen them: never renumber.
const (
	StatusOK       Status = 1
	StatusWait     Status = 2 // for its format or for its members
	StatusShutdown Status = 3
	StatusKilled   Status = 4
)

// ClusterInfoSize is the length of a ClusterInfo.
const ClusterInfoSize = clusterInfoHead + MaxNodes*NodeSize

const clusterInfoHead = 48

// A ClusterInfo is the response to CLUSTER_INFO.
//
//	offset  size  field
//	     0     1  InternalVersion
//	     1     1  1 if recovery is disabled
//	     2     2  number of nodes
//	     4     4  epoch
//	     8     8  creation time of the cluster, 0 before the format
//	    16     2  flags
//	    18     1  copies
//	    19     1  copy policy
//	    20     1  status
//	    21     1  block size shift
//	    22     3  padding
//	    25    16  name of the store driver
//	    41     7  padding
//	    48  80·n  node entries of the epoch; room for 6144 of them
type ClusterInfo struct {
	Version          uint8
	RecoveryDisabled bool
	Epoch            sheep.Epoch
	Ctime            uint64
	Flags            ClusterFlags
	Copies           uint8
	CopyPolicy       uint8
	Status           Status
	BlockShift       uint8
	Store            string
	Nodes            []sheep.Node
}

// DecodeClusterInfo decodes b, which may end after the last node entry in use.
func DecodeClusterInfo(b []byte) (ClusterInfo, error) {
	if len(b) < clusterInfoHead {
		return ClusterInfo{}, short("cluster info", len(b), clusterInfoHead)
	}
	le := binary.LittleEndian
	n := int(le.Uint16(b[2:]))
	if n > MaxNodes {
		return ClusterInfo{}, fmt.Errorf("%w: cluster info of %d nodes", ErrMalformed, n)
	}
	if want := clusterInfoHead + n*NodeSize; len(b) < want {
		return ClusterInfo{}, short("cluster info", len(b), want)
	}
	nodes, err := DecodeNodes(b[clusterInfoHead:][:n*NodeSize])
	if err != nil {
		return ClusterInfo{}, err
	}
	return ClusterInfo{
		Version:          b[0],
		RecoveryDisabled: b[1] != 0,
		Epoch:            sheep.Epoch(le.Uint32(b[4:])),
		Ctime:            le.Uint64(b[8:]),
		Flags:            ClusterFlags(le.Uint16(b[16:])),
		Copies:           b[18],
		CopyPolicy:       b[19],
		Status:           Status(b[20]),
		BlockShift:       b[21],
		Store:            Text(b[25:41]),
		Nodes:            nodes,
	}, nil
}

// Append appends all 491568 bytes of c to b, of its nodes the first MaxNodes.
// A server sends as many as were asked for.
func (c ClusterInfo) Append(b []byte) []byte {
	le := binary.LittleEndian
	nodes := c.Nodes[:min(len(c.Nodes), MaxNodes)]
	b = append(b, c.Version, bit(c.RecoveryDisabled))
	b = le.AppendUint16(b, uint16(len(nodes)))
	b = le.AppendUint32(b, uint32(c.Epoch))
	b = le.AppendUint64(b, c.Ctime)
	b = le.AppendUint16(b, uint16(c.Flags))
	b = append(b, c.Copies, c.CopyPolicy, byte(c.Status), c.BlockShift, 0, 0, 0)
	b = appendPadded(b, c.Store, StoreNameSize)
	b = append(b, make([]byte, 7)...)
	b = AppendNodes(b, nodes)
	return append(b, make([]byte, (MaxNodes-len(nodes))*NodeSize)...)
}

// EpochRecordHead is the length of an epoch record without nodes.
const EpochRecordHead = 48

// An EpochRecord is one of the records that STAT_CLUSTER returns, newest
// first. Only the first has the cluster's parameters. With no room for nodes
// the record has no time either.
//
//	offset  size  field
//	     0     8  creation time of the cluster (first record only)
//	     8     8  time of the epoch in seconds
//	    16     4  epoch
//	    20     4  number of nodes
//	    24     1  1 if recovery is disabled (first record only)
//	    25     1  copies (first record only)
//	    26     1  copy policy (first record only)
//	    27     3  padding
//	    30     2  flags (first record only)
//	    32    16  name of the store driver (first record only)
//	    48  80·n  node entries, as many as the request has slots for
type EpochRecord struct {
	Ctime            uint64
	Time             time.Time
	Epoch            sheep.Epoch
	RecoveryDisabled bool
	Copies           uint8
	CopyPolicy       uint8
	Flags            ClusterFlags
	Store            string
	Nodes            []sheep.Node
}

// EpochRecordSize returns the length of a record with room for slots nodes.
func EpochRecordSize(slots int) int { return EpochRecordHead + slots*NodeSize }

// DecodeEpochRecord decodes the record with room for slots nodes at the start
// of b.
func DecodeEpochRecord(b []byte, slots int) (EpochRecord, error) {
	if slots < 0 || slots > MaxNodes {
		return EpochRecord{}, fmt.Errorf("%w: epoch record with %d slots", ErrMalformed, slots)
	}
	if want := EpochRecordSize(slots); len(b) < want {
		return EpochRecord{}, short("epoch record", len(b), want)
	}
	le := binary.LittleEndian
	n := le.Uint32(b[20:])
	if n > uint32(slots) {
		return EpochRecord{}, fmt.Errorf("%w: epoch record of %d nodes in %d slots", ErrMalformed, n, slots)
	}
	nodes, err := DecodeNodes(b[EpochRecordHead:][:n*NodeSize])
	if err != nil {
		return EpochRecord{}, err
	}
	return EpochRecord{
		Ctime:            le.Uint64(b[0:]),
		Time:             secondsTime(le.Uint64(b[8:])),
		Epoch:            sheep.Epoch(le.Uint32(b[16:])),
		RecoveryDisabled: b[24] != 0,
		Copies:           b[25],
		CopyPolicy:       b[26],
		Flags:            ClusterFlags(le.Uint16(b[30:])),
		Store:            Text(b[32:48]),
		Nodes:            nodes,
	}, nil
}

// Append appends the record to b with room for slots nodes; of more nodes the
// first slots are written.
func (e EpochRecord) Append(b []byte, slots int) []byte {
	le := binary.LittleEndian
	nodes := e.Nodes[:min(len(e.Nodes), slots)]
	b = le.AppendUint64(b, e.Ctime)
	b = le.AppendUint64(b, timeSeconds(e.Time))
	b = le.AppendUint32(b, uint32(e.Epoch))
	b = le.AppendUint32(b, uint32(len(nodes)))
	b = append(b, bit(e.RecoveryDisabled), e.Copies, e.CopyPolicy, 0, 0, 0)
	b = le.AppendUint16(b, uint16(e.Flags))
	b = appendPadded(b, e.Store, StoreNameSize)
	b = AppendNodes(b, nodes)
	return append(b, make([]byte, (slots-len(nodes))*NodeSize)...)
}

// secondsTime turns seconds into a time, 0 into the zero time.
func secondsTime(s uint64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(int64(s), 0)
}

// timeSeconds is the inverse of secondsTime.
func timeSeconds(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.Unix())
}
