package proto

import (
	"encoding/binary"
	"fmt"
	"time"
)

// StatSize is the length of a Stat.
const StatSize = 120

// A Stat is the response to STAT: what a node did since it started. Each field
// is eight bytes, in this order.
type Stat struct {
	GatewayActive  uint64
	PeerActive     uint64
	GatewayTotal   uint64
	PeerTotal      uint64
	GatewayRx      uint64 // bytes
	GatewayTx      uint64
	PeerRx         uint64
	PeerTx         uint64
	GatewayRemoves uint64
	GatewayReads   uint64
	GatewayWrites  uint64
	GatewayFlushes uint64
	PeerRemoves    uint64
	PeerReads      uint64
	PeerWrites     uint64
}

// fields returns the fields of s in their order on the wire.
func (s *Stat) fields() [StatSize / 8]*uint64 {
	return [...]*uint64{
		&s.GatewayActive, &s.PeerActive, &s.GatewayTotal, &s.PeerTotal,
		&s.GatewayRx, &s.GatewayTx, &s.PeerRx, &s.PeerTx,
		&s.GatewayRemoves, &s.GatewayReads, &s.GatewayWrites, &s.GatewayFlushes,
		&s.PeerRemoves, &s.PeerReads, &s.PeerWrites,
	}
}

// DecodeStat decodes the record at the start of b.
func DecodeStat(b []byte) (Stat, error) {
	if len(b) < StatSize {
		return Stat{}, short("statistics", len(b), StatSize)
	}
	var s Stat
	for i, f := range s.fields() {
		*f = binary.LittleEndian.Uint64(b[8*i:])
	}
	return s, nil
}

// Append appends the record's 120 bytes to b.
func (s Stat) Append(b []byte) []byte {
	for _, f := range s.fields() {
		b = binary.LittleEndian.AppendUint64(b, *f)
	}
	return b
}

// RecoveryStateSize is the length of a RecoveryState.
const RecoveryStateSize = 24

// A RecoveryPhase says how far recovery is.
type RecoveryPhase uint32

// The phases, as dog has seen them: never renumber.
const (
	RecoveryPreparing RecoveryPhase = 0
	RecoveryRunning   RecoveryPhase = 1
	RecoveryNotifying RecoveryPhase = 2
)

// A RecoveryState is the response to STAT_RECOVERY.
//
//	offset  size  field
//	     0     1  1 if the node is in recovery
//	     1     3  padding
//	     4     4  phase
//	     8     8  objects that are done
//	    16     8  objects in all
type RecoveryState struct {
	Active   bool
	Phase    RecoveryPhase
	Finished uint64
	Total    uint64
}

// DecodeRecoveryState decodes the record at the start of b.
func DecodeRecoveryState(b []byte) (RecoveryState, error) {
	if len(b) < RecoveryStateSize {
		return RecoveryState{}, short("recovery state", len(b), RecoveryStateSize)
	}
	le := binary.LittleEndian
	return RecoveryState{
		Active:   b[0] != 0,
		Phase:    RecoveryPhase(le.Uint32(b[4:])),
		Finished: le.Uint64(b[8:]),
		Total:    le.Uint64(b[16:]),
	}, nil
}

// Append appends the record's 24 bytes to b.
func (r RecoveryState) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, bit(r.Active), 0, 0, 0)
	b = le.AppendUint32(b, uint32(r.Phase))
	b = le.AppendUint64(b, r.Finished)
	return le.AppendUint64(b, r.Total)
}

// ThrottleSize is the length of a Throttle.
const ThrottleSize = 24

// A Throttle bounds recovery: at most Max objects in each Interval. It is the
// response to GET_RECOVERY and the data of SET_RECOVERY.
//
//	offset  size  field
//	     0     4  most objects in an interval
//	     4     4  padding
//	     8     8  interval in milliseconds
//	    16     1  1 if recovery is throttled
//	    17     7  padding
type Throttle struct {
	Max      uint32
	Interval uint64 // milliseconds
	On       bool   // derived by the server: both numbers are positive
}

// DecodeThrottle decodes the record at the start of b.
func DecodeThrottle(b []byte) (Throttle, error) {
	if len(b) < ThrottleSize {
		return Throttle{}, short("recovery throttle", len(b), ThrottleSize)
	}
	le := binary.LittleEndian
	return Throttle{Max: le.Uint32(b[0:]), Interval: le.Uint64(b[8:]), On: b[16] != 0}, nil
}

// Append appends the record's 24 bytes to b.
func (t Throttle) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, t.Max)
	b = append(b, 0, 0, 0, 0)
	b = le.AppendUint64(b, t.Interval)
	return append(b, bit(t.On), 0, 0, 0, 0, 0, 0, 0)
}

// Duration returns the interval. One that no Duration can hold is the longest.
func (t Throttle) Duration() time.Duration {
	const longest = uint64(1<<63-1) / uint64(time.Millisecond)
	return time.Duration(min(t.Interval, longest)) * time.Millisecond
}

// Sizes of the disk table.
const (
	MaxDisks      = 64
	DiskTableSize = MaxDisks*diskSize + 8

	diskSize     = 4120
	diskPathSize = 4096
)

// A Disk is one entry of the disk table.
//
//	offset  size  field
//	     0     4  index
//	     4     4  padding
//	     8     8  free bytes
//	    16     8  used bytes
//	    24  4096  path
type Disk struct {
	Index uint32
	Free  uint64
	Used  uint64
	Path  string
}

// AppendDiskTable appends the response to MD_INFO to b: 64 entries, those
// beyond disks zero, then the number of disks in four bytes and four bytes of
// padding. Of more disks the first 64 are written.
func AppendDiskTable(b []byte, disks []Disk) []byte {
	le := binary.LittleEndian
	disks = disks[:min(len(disks), MaxDisks)]
	for _, d := range disks {
		b = le.AppendUint32(b, d.Index)
		b = append(b, 0, 0, 0, 0)
		b = le.AppendUint64(b, d.Free)
		b = le.AppendUint64(b, d.Used)
		b = appendPadded(b, d.Path, diskPathSize)
	}
	b = append(b, make([]byte, (MaxDisks-len(disks))*diskSize)...)
	b = le.AppendUint32(b, uint32(len(disks)))
	return append(b, 0, 0, 0, 0)
}

// DecodeDiskTable is the inverse of AppendDiskTable.
func DecodeDiskTable(b []byte) ([]Disk, error) {
	if len(b) < DiskTableSize {
		return nil, short("disk table", len(b), DiskTableSize)
	}
	le := binary.LittleEndian
	n := le.Uint32(b[MaxDisks*diskSize:])
	if n > MaxDisks {
		return nil, fmt.Errorf("%w: table of %d disks", ErrMalformed, n)
	}
	disks := make([]Disk, n)
	for i := range disks {
		e := b[i*diskSize:][:diskSize]
		disks[i] = Disk{
			Index: le.Uint32(e[0:]),
			Free:  le.Uint64(e[8:]),
			Used:  le.Uint64(e[16:]),
			Path:  Text(e[24:]),
		}
	}
	return disks, nil
}
