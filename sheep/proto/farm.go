package proto

import (
	"encoding/binary"
	"fmt"
	"time"

	"sheepdog/sheep"
)

// Sizes of the records of a directory of "dog cluster snapshot". Blobs are
// files named by the SHA-1 of their content. A trunk blob is an array of
// TrunkEntry; each names the blob that lists the digests of its object's
// slices, which are blobs again.
const (
	FarmHeaderSize   = 32
	FarmSnapshotSize = 296
	TrunkEntrySize   = 32
	DigestSize       = 20
	FarmSliceSize    = 128 << 10

	farmMagic   = 0xfee1c001
	farmVersion = 1
)

// A Digest is a SHA-1.
type Digest [DigestSize]byte

func (d Digest) String() string { return fmt.Sprintf("%x", d[:]) }

// A FarmHeader starts the file "user_snap": how the cluster was formatted.
//
//	offset  size  field
//	     0     4  magic
//	     4     4  version
//	     8     1  copies
//	     9     1  copy policy
//	    10     1  block size shift
//	    11    21  reserved
type FarmHeader struct {
	Copies     uint8
	CopyPolicy uint8
	BlockShift uint8
}

// DecodeFarmHeader decodes the header at the start of b.
func DecodeFarmHeader(b []byte) (FarmHeader, error) {
	if len(b) < FarmHeaderSize {
		return FarmHeader{}, short("cluster snapshot header", len(b), FarmHeaderSize)
	}
	magic, version := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	if magic != farmMagic {
		return FarmHeader{}, fmt.Errorf("%w: cluster snapshot with magic %#x", ErrMalformed, magic)
	}
	if version != farmVersion {
		return FarmHeader{}, fmt.Errorf("cluster snapshot of version %d: %w", version, sheep.ErrVersion)
	}
	return FarmHeader{Copies: b[8], CopyPolicy: b[9], BlockShift: b[10]}, nil
}

// Append appends the header's 32 bytes to b.
func (h FarmHeader) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, farmMagic)
	b = binary.LittleEndian.AppendUint32(b, farmVersion)
	b = append(b, h.Copies, h.CopyPolicy, h.BlockShift)
	return append(b, make([]byte, 21)...)
}

// A FarmSnapshot is a record of the file "user_snap": one cluster snapshot.
//
//	offset  size  field
//	     0     4  index, from 1
//	     4   256  tag
//	   260     4  padding
//	   264     8  time in seconds
//	   272    20  digest of the trunk
//	   292     4  padding
type FarmSnapshot struct {
	Index uint32
	Tag   string
	Time  time.Time
	Trunk Digest
}

// DecodeFarmSnapshot decodes the record at the start of b.
func DecodeFarmSnapshot(b []byte) (FarmSnapshot, error) {
	if len(b) < FarmSnapshotSize {
		return FarmSnapshot{}, short("cluster snapshot record", len(b), FarmSnapshotSize)
	}
	le := binary.LittleEndian
	return FarmSnapshot{
		Index: le.Uint32(b[0:]),
		Tag:   Text(b[4:260]),
		Time:  time.Unix(int64(le.Uint64(b[264:])), 0),
		Trunk: Digest(b[272:]),
	}, nil
}

// Append appends the record's 296 bytes to b.
func (s FarmSnapshot) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, s.Index)
	b = appendPadded(b, s.Tag, LabelSize)
	b = append(b, 0, 0, 0, 0)
	b = le.AppendUint64(b, uint64(s.Time.Unix()))
	b = append(b, s.Trunk[:]...)
	return append(b, 0, 0, 0, 0)
}

// A TrunkEntry is one object of a cluster snapshot.
//
//	offset  size  field
//	     0     8  object
//	     8     1  copies
//	     9     1  copy policy
//	    10     1  block size shift
//	    11     1  reserved
//	    12    20  digest of the list of its slices
type TrunkEntry struct {
	ID         sheep.ObjectID
	Copies     uint8
	CopyPolicy uint8
	BlockShift uint8
	Slices     Digest
}

// DecodeTrunkEntry decodes the entry at the start of b.
func DecodeTrunkEntry(b []byte) (TrunkEntry, error) {
	if len(b) < TrunkEntrySize {
		return TrunkEntry{}, short("cluster snapshot trunk", len(b), TrunkEntrySize)
	}
	return TrunkEntry{
		ID:         sheep.ObjectID(binary.LittleEndian.Uint64(b)),
		Copies:     b[8],
		CopyPolicy: b[9],
		BlockShift: b[10],
		Slices:     Digest(b[12:]),
	}, nil
}

// Append appends the entry's 32 bytes to b.
func (t TrunkEntry) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(t.ID))
	b = append(b, t.Copies, t.CopyPolicy, t.BlockShift, 0)
	return append(b, t.Slices[:]...)
}
