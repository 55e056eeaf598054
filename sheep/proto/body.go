package proto

import (
	"encoding/binary"

	"sheepdog/sheep"
)

// An ObjectBody is the body of the requests that name an object.
//
//	offset  size  field (offsets from the start of the body)
//	     0     8  object id
//	     8     8  object to copy from, with FlagCOW
//	    16     1  copies, 0 if the server shall decide
//	    17     1  copy policy
//	    18     1  strip index
//	    19     1  reserved
//	    20     4  epoch that is asked about
//	    24     4  offset in the object
//	    28     4  padding
type ObjectBody struct {
	ID          sheep.ObjectID
	COW         sheep.ObjectID
	Copies      uint8
	CopyPolicy  uint8
	ECIndex     uint8
	TargetEpoch sheep.Epoch
	Off         uint32
}

// DecodeObjectBody decodes b.
func DecodeObjectBody(b [32]byte) ObjectBody {
	le := binary.LittleEndian
	return ObjectBody{
		ID:          sheep.ObjectID(le.Uint64(b[0:])),
		COW:         sheep.ObjectID(le.Uint64(b[8:])),
		Copies:      b[16],
		CopyPolicy:  b[17],
		ECIndex:     b[18],
		TargetEpoch: sheep.Epoch(le.Uint32(b[20:])),
		Off:         le.Uint32(b[24:]),
	}
}

// Body returns the bytes of o.
func (o ObjectBody) Body() (b [32]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], uint64(o.ID))
	le.PutUint64(b[8:], uint64(o.COW))
	b[16], b[17], b[18] = o.Copies, o.CopyPolicy, o.ECIndex
	le.PutUint32(b[20:], uint32(o.TargetEpoch))
	le.PutUint32(b[24:], o.Off)
	return b
}

// A LockType says how LOCK_VDI locks and RELEASE_VDI unlocks.
type LockType uint32

// The lock types, as clients have seen them: never renumber.
const (
	LockNormal LockType = 0 // one gateway
	LockShared LockType = 1 // several gateways that keep their inodes coherent

	// LockSession, which is ours, is LockNormal that ends with the connection on
	// which it was taken.
	LockSession LockType = 0x80
)

// The store policies: how an inode finds its data objects. Never renumber.
const (
	StorePlain = 0 // by an array
	StoreHyper = 1 // by a B-tree: a hyper volume
)

// A VDIBody is the body of the requests that look VDIs up, make and delete
// them.
//
//	offset  size  field
//	     0     8  size in bytes
//	     8     4  base VDI; of RELEASE_VDI the VDI itself
//	    12     1  copies
//	    13     1  copy policy
//	    14     1  store policy
//	    15     1  block size shift
//	    16     4  snapshot id; of NEW_VDI non-zero to take a snapshot
//	    20     4  lock type
//	    24     8  padding
type VDIBody struct {
	Size        uint64
	Base        sheep.VDIID
	Copies      uint8
	CopyPolicy  uint8
	StorePolicy uint8
	BlockShift  uint8
	SnapID      uint32
	Type        LockType
}

// DecodeVDIBody decodes b.
func DecodeVDIBody(b [32]byte) VDIBody {
	le := binary.LittleEndian
	return VDIBody{
		Size:        le.Uint64(b[0:]),
		Base:        sheep.VDIID(le.Uint32(b[8:])),
		Copies:      b[12],
		CopyPolicy:  b[13],
		StorePolicy: b[14],
		BlockShift:  b[15],
		SnapID:      le.Uint32(b[16:]),
		Type:        LockType(le.Uint32(b[20:])),
	}
}

// Body returns the bytes of v.
func (v VDIBody) Body() (b [32]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], v.Size)
	le.PutUint32(b[8:], uint32(v.Base))
	b[12], b[13], b[14], b[15] = v.Copies, v.CopyPolicy, v.StorePolicy, v.BlockShift
	le.PutUint32(b[16:], v.SnapID)
	le.PutUint32(b[20:], uint32(v.Type))
	return b
}

// A ClusterBody is the body of MAKE_FS, ALTER_CLUSTER_COPY and STAT_CLUSTER.
//
//	offset  size  field
//	     0     8  unused
//	     8     8  creation time of the cluster
//	    16     1  copies
//	    17     1  copy policy
//	    18     2  cluster flags
//	    20     4  tag
//	    24     4  node slots of each epoch record that STAT_CLUSTER returns
//	    28     1  block size shift
//	    29     3  reserved
type ClusterBody struct {
	Ctime      uint64
	Copies     uint8
	CopyPolicy uint8
	Flags      ClusterFlags
	Tag        uint32
	Nodes      uint32
	BlockShift uint8
}

// DecodeClusterBody decodes b.
func DecodeClusterBody(b [32]byte) ClusterBody {
	le := binary.LittleEndian
	return ClusterBody{
		Ctime:      le.Uint64(b[8:]),
		Copies:     b[16],
		CopyPolicy: b[17],
		Flags:      ClusterFlags(le.Uint16(b[18:])),
		Tag:        le.Uint32(b[20:]),
		Nodes:      le.Uint32(b[24:]),
		BlockShift: b[28],
	}
}

// Body returns the bytes of c.
func (c ClusterBody) Body() (b [32]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[8:], c.Ctime)
	b[16], b[17] = c.Copies, c.CopyPolicy
	le.PutUint16(b[18:], uint16(c.Flags))
	le.PutUint32(b[20:], c.Tag)
	le.PutUint32(b[24:], c.Nodes)
	b[28] = c.BlockShift
	return b
}

// A VDIStateBody is the body of NOTIFY_VDI_ADD and ALTER_VDI_COPY.
//
//	offset  size  field
//	     0     4  VDI that became a snapshot, or 0
//	     4     4  VDI that is new or altered
//	     8     1  copies
//	     9     1  1 to mark the number as used
//	    10     1  copy policy
//	    11     1  block size shift
//	    12    20  padding
type VDIStateBody struct {
	Old        sheep.VDIID
	New        sheep.VDIID
	Copies     uint8
	SetBitmap  bool
	CopyPolicy uint8
	BlockShift uint8
}

// DecodeVDIStateBody decodes b.
func DecodeVDIStateBody(b [32]byte) VDIStateBody {
	le := binary.LittleEndian
	return VDIStateBody{
		Old:        sheep.VDIID(le.Uint32(b[0:])),
		New:        sheep.VDIID(le.Uint32(b[4:])),
		Copies:     b[8],
		SetBitmap:  b[9] != 0,
		CopyPolicy: b[10],
		BlockShift: b[11],
	}
}

// Body returns the bytes of v.
func (v VDIStateBody) Body() (b [32]byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], uint32(v.Old))
	le.PutUint32(b[4:], uint32(v.New))
	b[8], b[9], b[10], b[11] = v.Copies, bit(v.SetBitmap), v.CopyPolicy, v.BlockShift
	return b
}

// bit returns 1 for true.
func bit(v bool) byte {
	if v {
		return 1
	}
	return 0
}
