package proto

import (
	"encoding/binary"
	"fmt"
	"time"

	"sheepdog/sheep"
)

// The size of the store's configuration and the version of its format that C
// writes and accepts.
const (
	StoreConfigSize = 40
	StoreVersion    = 6
	StoreNameSize   = 16
)

// A StoreConfig is the file "config" of a store directory.
//
//	offset  size  field
//	     0     8  creation time of the cluster, 0 before the format
//	     8     2  cluster flags
//	    10     1  default copies
//	    11    16  name of the store driver, padded with NULs
//	    27     1  1 if the cluster was shut down cleanly
//	    28     1  default copy policy
//	    29     1  default block size shift
//	    30     2  version of the format
//	    32     8  space of the node in bytes
type StoreConfig struct {
	Ctime      uint64
	Flags      ClusterFlags
	Copies     uint8
	Store      string
	Clean      bool
	CopyPolicy uint8
	BlockShift uint8
	Version    uint16
	Space      uint64
}

// DecodeStoreConfig decodes b, the whole file. The version is for the caller
// to judge.
func DecodeStoreConfig(b []byte) (StoreConfig, error) {
	if len(b) != StoreConfigSize {
		return StoreConfig{}, short("store config", len(b), StoreConfigSize)
	}
	le := binary.LittleEndian
	return StoreConfig{
		Ctime:      le.Uint64(b[0:]),
		Flags:      ClusterFlags(le.Uint16(b[8:])),
		Copies:     b[10],
		Store:      Text(b[11:27]),
		Clean:      b[27] != 0,
		CopyPolicy: b[28],
		BlockShift: b[29],
		Version:    le.Uint16(b[30:]),
		Space:      le.Uint64(b[32:]),
	}, nil
}

// Append appends the file's 40 bytes to b.
func (c StoreConfig) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, c.Ctime)
	b = le.AppendUint16(b, uint16(c.Flags))
	b = append(b, c.Copies)
	b = appendPadded(b, c.Store, StoreNameSize)
	b = append(b, bit(c.Clean), c.CopyPolicy, c.BlockShift)
	b = le.AppendUint16(b, c.Version)
	return le.AppendUint64(b, c.Space)
}

// AppendEpochLog appends to b what the file of one epoch holds, and what
// GET_EPOCH returns: the entries of the nodes, then the time in eight bytes,
// in seconds.
func AppendEpochLog(b []byte, nodes []sheep.Node, t time.Time) []byte {
	return binary.LittleEndian.AppendUint64(AppendNodes(b, nodes), uint64(t.Unix()))
}

// DecodeEpochLog is the inverse of AppendEpochLog.
func DecodeEpochLog(b []byte) ([]sheep.Node, time.Time, error) {
	if len(b) < 8 {
		return nil, time.Time{}, short("epoch log", len(b), 8)
	}
	n := len(b) - 8
	nodes, err := DecodeNodes(b[:n])
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("epoch log: %w", err)
	}
	return nodes, time.Unix(int64(binary.LittleEndian.Uint64(b[n:])), 0), nil
}
