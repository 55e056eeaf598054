package proto

import (
	"encoding/binary"
	"fmt"

	"sheepdog/sheep"
)

// COWPrefixSize is the length of a COWPrefix.
const COWPrefixSize = 16

// A COWPrefix starts the data of an owner write with PeerCOW: it names the
// object that the new one is a copy of.
//
//	offset  size  field
//	     0     8  object
//	     8     4  its size
//	    12     1  copies
//	    13     1  copy policy
//	    14     2  padding, zero
type COWPrefix struct {
	ID         sheep.ObjectID
	Size       uint32
	Copies     uint8
	CopyPolicy uint8
}

// DecodeCOWPrefix decodes the prefix at the start of b.
func DecodeCOWPrefix(b []byte) (COWPrefix, error) {
	if len(b) < COWPrefixSize {
		return COWPrefix{}, short("copy-on-write prefix", len(b), COWPrefixSize)
	}
	if b[14] != 0 || b[15] != 0 {
		return COWPrefix{}, fmt.Errorf("%w: padding of a copy-on-write prefix", ErrMalformed)
	}
	le := binary.LittleEndian
	return COWPrefix{
		ID:         sheep.ObjectID(le.Uint64(b[0:])),
		Size:       le.Uint32(b[8:]),
		Copies:     b[12],
		CopyPolicy: b[13],
	}, nil
}

// Append appends the prefix's 16 bytes to b.
func (c COWPrefix) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, uint64(c.ID))
	b = le.AppendUint32(b, c.Size)
	return append(b, c.Copies, c.CopyPolicy, 0, 0)
}

// COWPrefixOf returns the prefix that names the object of ref.
func COWPrefixOf(ref sheep.Ref) COWPrefix {
	c := COWPrefix{ID: ref.ID, Size: ref.Size}
	c.Copies, c.CopyPolicy = ref.Policy.Wire()
	return c
}

// Ref returns what c names. It fails if the policy is none.
func (c COWPrefix) Ref() (sheep.Ref, error) {
	return PeerBody{ID: c.ID, Size: c.Size, Copies: c.Copies, CopyPolicy: c.CopyPolicy}.Ref(0)
}

// HelloSize is the length of a Hello, HelloMagic its first four bytes as a
// number.
const (
	HelloSize  = 104
	HelloMagic = 0x50454853 // "SHEP"
)

// A Hello is the data of the first request on every connection between
// daemons, and of its response.
//
//	offset  size  field
//	     0     4  magic
//	     4     4  version, PeerVersion
//	     8     8  incarnation of the sender
//	    16     8  creation time of its cluster, 0 before the format
//	    24    80  its node entry
type Hello struct {
	Version     uint32
	Incarnation sheep.Incarnation
	Ctime       uint64
	Node        sheep.Node
}

// DecodeHello decodes b. Another version than PeerVersion is for the caller to
// refuse, with sheep.ErrVersion.
func DecodeHello(b []byte) (Hello, error) {
	if len(b) != HelloSize {
		return Hello{}, short("hello", len(b), HelloSize)
	}
	le := binary.LittleEndian
	if magic := le.Uint32(b[0:]); magic != HelloMagic {
		return Hello{}, fmt.Errorf("%w: hello with magic %#x", ErrMalformed, magic)
	}
	node, err := DecodeNode(b[24:])
	if err != nil {
		return Hello{}, err
	}
	return Hello{
		Version:     le.Uint32(b[4:]),
		Incarnation: sheep.Incarnation(le.Uint64(b[8:])),
		Ctime:       le.Uint64(b[16:]),
		Node:        node,
	}, nil
}

// Append appends the 104 bytes of h to b.
func (h Hello) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, HelloMagic)
	b = le.AppendUint32(b, h.Version)
	b = le.AppendUint64(b, uint64(h.Incarnation))
	b = le.AppendUint64(b, h.Ctime)
	return AppendNode(b, h.Node)
}

// CopyStateSize is the length of a CopyState, MaxPeerStat the most objects of
// one PEER_STAT.
const (
	CopyStateSize = 24
	MaxPeerStat   = 4096
)

// A CopyState is what a node says of its copy of one object in answer to
// PEER_STAT.
//
//	offset  size  field
//	     0     8  object
//	     8     4  epoch of the latest write that the copy has
//	    12     4  epoch that the copy is trusted from
//	    16     4  first epoch that the answering daemon has been a member in
//	    20     1  bits
//	    21     3  padding, zero
type CopyState struct {
	ID           sheep.ObjectID
	WriteEpoch   sheep.Epoch
	TrustedEpoch sheep.Epoch
	MemberEpoch  sheep.Epoch
	Bits         CopyBits
}

// DecodeCopyState decodes the record at the start of b.
func DecodeCopyState(b []byte) (CopyState, error) {
	if len(b) < CopyStateSize {
		return CopyState{}, short("copy state", len(b), CopyStateSize)
	}
	if [3]byte(b[21:]) != ([3]byte{}) {
		return CopyState{}, fmt.Errorf("%w: padding of a copy state", ErrMalformed)
	}
	le := binary.LittleEndian
	return CopyState{
		ID:           sheep.ObjectID(le.Uint64(b[0:])),
		WriteEpoch:   sheep.Epoch(le.Uint32(b[8:])),
		TrustedEpoch: sheep.Epoch(le.Uint32(b[12:])),
		MemberEpoch:  sheep.Epoch(le.Uint32(b[16:])),
		Bits:         CopyBits(b[20]),
	}, nil
}

// Append appends the record's 24 bytes to b.
func (c CopyState) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, uint64(c.ID))
	b = le.AppendUint32(b, uint32(c.WriteEpoch))
	b = le.AppendUint32(b, uint32(c.TrustedEpoch))
	b = le.AppendUint32(b, uint32(c.MemberEpoch))
	return append(b, byte(c.Bits), 0, 0, 0)
}

// DecodeCopyStates decodes b, which must be a whole number of records.
func DecodeCopyStates(b []byte) ([]CopyState, error) {
	if len(b)%CopyStateSize != 0 {
		return nil, fmt.Errorf("%w: copy states of %d bytes", ErrMalformed, len(b))
	}
	states := make([]CopyState, 0, len(b)/CopyStateSize)
	for ; len(b) > 0; b = b[CopyStateSize:] {
		c, err := DecodeCopyState(b)
		if err != nil {
			return nil, err
		}
		states = append(states, c)
	}
	return states, nil
}

// AppendObjectIDs appends eight bytes for each of ids to b.
func AppendObjectIDs(b []byte, ids []sheep.ObjectID) []byte {
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint64(b, uint64(id))
	}
	return b
}

// DecodeObjectIDs decodes b, which must be a whole number of object ids.
func DecodeObjectIDs(b []byte) ([]sheep.ObjectID, error) {
	if len(b)%8 != 0 {
		return nil, fmt.Errorf("%w: object ids of %d bytes", ErrMalformed, len(b))
	}
	ids := make([]sheep.ObjectID, 0, len(b)/8)
	for ; len(b) > 0; b = b[8:] {
		ids = append(ids, sheep.ObjectID(binary.LittleEndian.Uint64(b)))
	}
	return ids, nil
}
