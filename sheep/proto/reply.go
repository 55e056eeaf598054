package proto

import (
	"encoding/binary"

	"sheepdog/sheep"
)

// An ObjectReply is the body of the responses to object requests. C leaves it
// zero.
//
//	offset  size  field (offsets from the start of the body, header offset 20)
//	     0     1  copies
//	     1     3  reserved
//	     4     8  offset
//	    12    16  padding
type ObjectReply struct {
	Copies uint8
	Off    uint64
}

// DecodeObjectReply decodes b.
func DecodeObjectReply(b [28]byte) ObjectReply {
	return ObjectReply{Copies: b[0], Off: binary.LittleEndian.Uint64(b[4:])}
}

// Body returns the bytes of o.
func (o ObjectReply) Body() (b [28]byte) {
	b[0] = o.Copies
	binary.LittleEndian.PutUint64(b[4:], o.Off)
	return b
}

// A VDIReply is the body of the responses to the requests with a VDIBody.
//
//	offset  size  field
//	     0     4  reserved
//	     4     4  VDI; of GET_VDI_ATTR the hash of the name
//	     8     4  attribute id
//	    12     1  copies
//	    13     1  block size shift
//	    14    14  reserved
type VDIReply struct {
	VDI        sheep.VDIID
	Attr       uint32
	Copies     uint8
	BlockShift uint8
}

// DecodeVDIReply decodes b.
func DecodeVDIReply(b [28]byte) VDIReply {
	le := binary.LittleEndian
	return VDIReply{
		VDI:        sheep.VDIID(le.Uint32(b[4:])),
		Attr:       le.Uint32(b[8:]),
		Copies:     b[12],
		BlockShift: b[13],
	}
}

// Body returns the bytes of v.
func (v VDIReply) Body() (b [28]byte) {
	le := binary.LittleEndian
	le.PutUint32(b[4:], uint32(v.VDI))
	le.PutUint32(b[8:], v.Attr)
	b[12], b[13] = v.Copies, v.BlockShift
	return b
}

// A NodeReply is the body of the responses to GET_NODE_LIST and STAT_SHEEP.
//
//	offset  size  field
//	     0     4  number of nodes
//	     4     8  reserved
//	    12     8  size of the node's store in bytes
//	    20     8  free bytes of it
type NodeReply struct {
	Nodes uint32
	Size  uint64
	Free  uint64
}

// DecodeNodeReply decodes b.
func DecodeNodeReply(b [28]byte) NodeReply {
	le := binary.LittleEndian
	return NodeReply{Nodes: le.Uint32(b[0:]), Size: le.Uint64(b[12:]), Free: le.Uint64(b[20:])}
}

// Body returns the bytes of n.
func (n NodeReply) Body() (b [28]byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], n.Nodes)
	le.PutUint64(b[12:], n.Size)
	le.PutUint64(b[20:], n.Free)
	return b
}

// A HashReply is the body of the response to GET_HASH.
//
//	offset  size  field
//	     0     4  padding
//	     4    20  SHA-1 of the stored object
//	    24     4  padding
type HashReply struct {
	Digest [20]byte
}

// DecodeHashReply decodes b.
func DecodeHashReply(b [28]byte) HashReply { return HashReply{Digest: [20]byte(b[4:24])} }

// Body returns the bytes of h.
func (h HashReply) Body() (b [28]byte) {
	copy(b[4:], h.Digest[:])
	return b
}

// A ClusterDefaultReply is the body of the response to GET_CLUSTER_DEFAULT,
// all zero before the format.
//
//	offset  size  field
//	     0     1  copies
//	     1     1  copy policy
//	     2     1  block size shift
//	     3    25  padding
type ClusterDefaultReply struct {
	Copies     uint8
	CopyPolicy uint8
	BlockShift uint8
}

// DecodeClusterDefaultReply decodes b.
func DecodeClusterDefaultReply(b [28]byte) ClusterDefaultReply {
	return ClusterDefaultReply{Copies: b[0], CopyPolicy: b[1], BlockShift: b[2]}
}

// Body returns the bytes of c.
func (c ClusterDefaultReply) Body() (b [28]byte) {
	b[0], b[1], b[2] = c.Copies, c.CopyPolicy, c.BlockShift
	return b
}
