package proto

import (
	"encoding/binary"
	"net/netip"

	"sheepdog/sheep"
)

// A RefBody is the body of DECREF_OBJ and DECREF_PEER.
//
//	offset  size  field
//	     0     8  ledger object
//	     8     4  generation
//	    12     4  count
//	    16    16  padding
type RefBody struct {
	ID         sheep.ObjectID
	Generation uint32
	Count      uint32
}

// DecodeRefBody decodes b.
func DecodeRefBody(b [32]byte) RefBody {
	le := binary.LittleEndian
	return RefBody{
		ID:         sheep.ObjectID(le.Uint64(b[0:])),
		Generation: le.Uint32(b[8:]),
		Count:      le.Uint32(b[12:]),
	}
}

// Body returns the bytes of r.
func (r RefBody) Body() (b [32]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], uint64(r.ID))
	le.PutUint32(b[8:], r.Generation)
	le.PutUint32(b[12:], r.Count)
	return b
}

// A ForwBody is the body of REPAIR_REPLICA.
//
//	offset  size  field
//	     0     8  object
//	     8    16  address of the node that has a good copy
//	    24     2  its port
//	    26     6  padding
type ForwBody struct {
	ID   sheep.ObjectID
	From netip.AddrPort
}

// DecodeForwBody decodes b.
func DecodeForwBody(b [32]byte) ForwBody {
	return ForwBody{
		ID:   sheep.ObjectID(binary.LittleEndian.Uint64(b[0:])),
		From: decodeAddr(b[8:26]),
	}
}

// Body returns the bytes of f.
func (f ForwBody) Body() (b [32]byte) {
	binary.LittleEndian.PutUint64(b[0:], uint64(f.ID))
	copy(b[8:], appendAddr(nil, f.From))
	return b
}

// A CheckpointBody is the body of VDI_STATE_CHECKPOINT_CTL.
//
//	offset  size  field
//	     0     4  1 to get the checkpoint, 0 to drop it
//	     4     4  epoch at whose end it was taken
//	     8     4  VDI
//	    12    20  padding
type CheckpointBody struct {
	Get   bool
	Epoch sheep.Epoch
	VDI   sheep.VDIID
}

// DecodeCheckpointBody decodes b.
func DecodeCheckpointBody(b [32]byte) CheckpointBody {
	le := binary.LittleEndian
	return CheckpointBody{
		Get:   le.Uint32(b[0:]) != 0,
		Epoch: sheep.Epoch(le.Uint32(b[4:])),
		VDI:   sheep.VDIID(le.Uint32(b[8:])),
	}
}

// Body returns the bytes of c.
func (c CheckpointBody) Body() (b [32]byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], uint32(bit(c.Get)))
	le.PutUint32(b[4:], uint32(c.Epoch))
	le.PutUint32(b[8:], uint32(c.VDI))
	return b
}

// A CoherenceBody is the body of INODE_COHERENCE.
//
//	offset  size  field
//	     0     4  VDI
//	     4     4  1 to validate the sender's inode, 0 to invalidate the others'
//	     8    24  padding
type CoherenceBody struct {
	VDI      sheep.VDIID
	Validate bool
}

// DecodeCoherenceBody decodes b.
func DecodeCoherenceBody(b [32]byte) CoherenceBody {
	le := binary.LittleEndian
	return CoherenceBody{VDI: sheep.VDIID(le.Uint32(b[0:])), Validate: le.Uint32(b[4:]) != 0}
}

// Body returns the bytes of c.
func (c CoherenceBody) Body() (b [32]byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], uint32(c.VDI))
	le.PutUint32(b[4:], uint32(bit(c.Validate)))
	return b
}
