package proto

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"sheepdog/sheep"
)

// PeerBits are the flags of a PeerBody.
type PeerBits uint16

// The bits of a PeerBody: never renumber.
const (
	PeerCreate   PeerBits = 1  // the write makes the object, replacing one that exists
	PeerDurable  PeerBits = 2  // answer when it is on stable storage
	PeerRecovery PeerBits = 4  // read even a suspect copy, and never wait
	PeerCOW      PeerBits = 8  // owner write: the data starts with a COWPrefix
	PeerZero     PeerBits = 16 // Len bytes are to be zeroed; there is no data
)

// A PeerBody is the body of the requests of our own peer and owner wire that
// name an object.
//
//	offset  size  field (offsets from the start of the body)
//	     0     8  object
//	     8     8  generation of the ownership that a write is made under
//	    16     4  offset in the object; of a decref its reference generation
//	    20     4  bytes to read or to zero; of a list its most entries, of a decref its count
//	    24     4  size of the whole object
//	    28     1  copies
//	    29     1  copy policy
//	    30     2  bits
type PeerBody struct {
	ID         sheep.ObjectID
	Generation sheep.Generation
	Off        uint32
	Len        uint32
	Size       uint32
	Copies     uint8
	CopyPolicy uint8
	Bits       PeerBits
}

// DecodePeerBody decodes b.
func DecodePeerBody(b [32]byte) PeerBody {
	le := binary.LittleEndian
	return PeerBody{
		ID:         sheep.ObjectID(le.Uint64(b[0:])),
		Generation: sheep.Generation(le.Uint64(b[8:])),
		Off:        le.Uint32(b[16:]),
		Len:        le.Uint32(b[20:]),
		Size:       le.Uint32(b[24:]),
		Copies:     b[28],
		CopyPolicy: b[29],
		Bits:       PeerBits(le.Uint16(b[30:])),
	}
}

// Body returns the bytes of p.
func (p PeerBody) Body() (b [32]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], uint64(p.ID))
	le.PutUint64(b[8:], uint64(p.Generation))
	le.PutUint32(b[16:], p.Off)
	le.PutUint32(b[20:], p.Len)
	le.PutUint32(b[24:], p.Size)
	b[28], b[29] = p.Copies, p.CopyPolicy
	le.PutUint16(b[30:], uint16(p.Bits))
	return b
}

// PeerBodyOf returns the body that names the object of ref.
func PeerBodyOf(ref sheep.Ref) PeerBody {
	p := PeerBody{ID: ref.ID, Generation: ref.Generation, Size: ref.Size}
	p.Copies, p.CopyPolicy = ref.Policy.Wire()
	return p
}

// Ref returns what p names, as sent in the given epoch. It fails if the policy
// is none.
func (p PeerBody) Ref(epoch sheep.Epoch) (sheep.Ref, error) {
	policy, err := sheep.PolicyFromWire(p.Copies, p.CopyPolicy)
	if err != nil {
		return sheep.Ref{}, fmt.Errorf("object %v: %w", p.ID, err)
	}
	return sheep.Ref{ID: p.ID, Policy: policy, Size: p.Size, Generation: p.Generation, Epoch: epoch}, nil
}

// CopyBits say what a node knows of its copy of an object.
type CopyBits uint8

// The bits of a copy's state: never renumber.
const (
	CopyExists  CopyBits = 1
	CopyTrusted CopyBits = 2 // known to be current
	CopyIntent  CopyBits = 4 // named by the store's durable list of objects being written
)

// A PeerReply is the body of the responses to peer requests.
//
//	offset  size  field
//	     0     4  padding
//	     4     8  incarnation of the answering daemon
//	    12     4  write epoch of its copy
//	    16     4  epoch that the copy is trusted from
//	    20     1  bits of the copy
//	    21     7  padding
type PeerReply struct {
	Incarnation  sheep.Incarnation
	WriteEpoch   sheep.Epoch
	TrustedEpoch sheep.Epoch
	Bits         CopyBits
}

// DecodePeerReply decodes b.
func DecodePeerReply(b [28]byte) PeerReply {
	le := binary.LittleEndian
	return PeerReply{
		Incarnation:  sheep.Incarnation(le.Uint64(b[4:])),
		WriteEpoch:   sheep.Epoch(le.Uint32(b[12:])),
		TrustedEpoch: sheep.Epoch(le.Uint32(b[16:])),
		Bits:         CopyBits(b[20]),
	}
}

// Body returns the bytes of p.
func (p PeerReply) Body() (b [28]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[4:], uint64(p.Incarnation))
	le.PutUint32(b[12:], uint32(p.WriteEpoch))
	le.PutUint32(b[16:], uint32(p.TrustedEpoch))
	b[20] = byte(p.Bits)
	return b
}

// A NotOwnerReply is the body of the responses with ResultNotOwner. An owner
// that is not known has the zero address.
//
//	offset  size  field
//	     0     4  VDI
//	     4    16  address of the owner
//	    20     2  its port
//	    22     6  padding
type NotOwnerReply struct {
	VDI   sheep.VDIID
	Owner netip.AddrPort
}

// DecodeNotOwnerReply decodes b.
func DecodeNotOwnerReply(b [28]byte) NotOwnerReply {
	return NotOwnerReply{VDI: sheep.VDIID(binary.LittleEndian.Uint32(b[0:])), Owner: decodeAddr(b[4:22])}
}

// Body returns the bytes of n.
func (n NotOwnerReply) Body() (b [28]byte) {
	binary.LittleEndian.PutUint32(b[0:], uint32(n.VDI))
	copy(b[4:], appendAddr(nil, n.Owner))
	return b
}

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

// DecodeHello decodes b. A version that is not ours is for the caller to
// judge: it matches nothing else than sheep.ErrVersion to refuse it.
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
//	    16     1  bits
//	    17     7  padding, zero
type CopyState struct {
	ID           sheep.ObjectID
	WriteEpoch   sheep.Epoch
	TrustedEpoch sheep.Epoch
	Bits         CopyBits
}

// DecodeCopyState decodes the record at the start of b.
func DecodeCopyState(b []byte) (CopyState, error) {
	if len(b) < CopyStateSize {
		return CopyState{}, short("copy state", len(b), CopyStateSize)
	}
	if [7]byte(b[17:]) != ([7]byte{}) {
		return CopyState{}, fmt.Errorf("%w: padding of a copy state", ErrMalformed)
	}
	le := binary.LittleEndian
	return CopyState{
		ID:           sheep.ObjectID(le.Uint64(b[0:])),
		WriteEpoch:   sheep.Epoch(le.Uint32(b[8:])),
		TrustedEpoch: sheep.Epoch(le.Uint32(b[12:])),
		Bits:         CopyBits(b[16]),
	}, nil
}

// Append appends the record's 24 bytes to b.
func (c CopyState) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, uint64(c.ID))
	b = le.AppendUint32(b, uint32(c.WriteEpoch))
	b = le.AppendUint32(b, uint32(c.TrustedEpoch))
	return append(b, byte(c.Bits), 0, 0, 0, 0, 0, 0, 0)
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
