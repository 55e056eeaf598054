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
	PeerRefuse   PeerBits = 32 // sheep.StaleRefuses
	PeerNote     PeerBits = 64 // sheep.StaleNotes

	PeerElsewhere PeerBits = 128 // sheep.Ref.Elsewhere
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
	switch ref.IfStale {
	case sheep.StaleRefuses:
		p.Bits = PeerRefuse
	case sheep.StaleNotes:
		p.Bits = PeerNote
	}
	if ref.Elsewhere {
		p.Bits |= PeerElsewhere
	}
	return p
}

// Ref returns what p names, as sent in the given epoch. It fails if the policy
// is none.
func (p PeerBody) Ref(epoch sheep.Epoch) (sheep.Ref, error) {
	policy, err := sheep.PolicyFromWire(p.Copies, p.CopyPolicy)
	if err != nil {
		return sheep.Ref{}, fmt.Errorf("object %v: %w", p.ID, err)
	}
	ref := sheep.Ref{ID: p.ID, Policy: policy, Size: p.Size, Generation: p.Generation, Epoch: epoch}
	ref.Elsewhere = p.Bits&PeerElsewhere != 0
	switch {
	case p.Bits&PeerRefuse != 0:
		ref.IfStale = sheep.StaleRefuses
	case p.Bits&PeerNote != 0:
		ref.IfStale = sheep.StaleNotes
	}
	return ref, nil
}

// CopyBits say what a node knows of its copy of an object.
type CopyBits uint8

// The bits of a copy's state: never renumber.
const (
	CopyExists  CopyBits = 1
	CopyTrusted CopyBits = 2 // known to be current
	CopyIntent  CopyBits = 4 // named by the store's durable list of objects being written
	CopyBad     CopyBits = 8 // exists but cannot be read

	CopyBusy CopyBits = 16 // of the node: it serves clients at the moment
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
