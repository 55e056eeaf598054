package sheep

import (
	"fmt"
	"strconv"
)

// A VDIID is the 24-bit number of a VDI. Zero is never used.
type VDIID uint32

// MaxVDIs is the size of the VDI number space, the unused zero included.
const MaxVDIs = 1 << 24

func (v VDIID) String() string { return fmt.Sprintf("%x", uint32(v)) }

// An ObjectID names one object. Bits 0–31 are its index within the VDI, bits
// 32–55 the VDI's number, bits 59–63 its kind; a data object has none of the
// kind bits.
type ObjectID uint64

// The kind bits of an ObjectID, as peers and disks have seen them: never renumber.
const (
	inodeBit   ObjectID = 1 << 63
	vmStateBit ObjectID = 1 << 62
	attrBit    ObjectID = 1 << 61
	btreeBit   ObjectID = 1 << 60
	ledgerBit  ObjectID = 1 << 59
	kindBits            = inodeBit | vmStateBit | attrBit | btreeBit | ledgerBit
)

// Sizes of objects in bytes. Data and vmstate objects have the size that their
// VDI's block size shift says.
const (
	InodeSize  = 12_587_576
	AttrSize   = 66_320
	BTreeSize  = 4 << 20
	LedgerSize = 4 << 20

	MinBlockShift     = 20
	MaxBlockShift     = 31
	DefaultBlockShift = 22
)

// A Kind says what an object holds.
type Kind uint8

// The kinds of objects.
const (
	KindData Kind = iota
	KindInode
	KindVMState
	KindAttr
	KindBTree
	KindLedger
)

func (k Kind) String() string {
	switch k {
	case KindData:
		return "data"
	case KindInode:
		return "inode"
	case KindVMState:
		return "vmstate"
	case KindAttr:
		return "attribute"
	case KindBTree:
		return "btree"
	case KindLedger:
		return "ledger"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// DataObject returns the id of the index'th data object of vdi.
func DataObject(vdi VDIID, index uint32) ObjectID {
	return ObjectID(vdi)<<32 | ObjectID(index)
}

// InodeObject returns the id of the inode of vdi.
func InodeObject(vdi VDIID) ObjectID { return inodeBit | ObjectID(vdi)<<32 }

// VMStateObject returns the id of the index'th piece of the saved VM state of vdi.
func VMStateObject(vdi VDIID, index uint32) ObjectID {
	return vmStateBit | DataObject(vdi, index)
}

// AttrObject returns the id of an attribute; hash is the low 24 bits of the
// VDI name's hash, not the number of a VDI.
func AttrObject(hash VDIID, attr uint32) ObjectID { return attrBit | DataObject(hash, attr) }

// BTreeObject returns the id of the n'th tree node of the hyper volume vdi.
func BTreeObject(vdi VDIID, n uint32) ObjectID { return btreeBit | DataObject(vdi, n) }

// Ledger returns the id of the object that counts the references to id.
func (id ObjectID) Ledger() ObjectID { return id | ledgerBit }

// Data returns the id of the data object that the ledger id counts.
func (id ObjectID) Data() ObjectID { return id &^ kindBits }

// VDI returns the number of the VDI that id belongs to.
func (id ObjectID) VDI() VDIID { return VDIID(id >> 32 & (MaxVDIs - 1)) }

// Index returns the index of id within its VDI.
func (id ObjectID) Index() uint32 { return uint32(id) }

// Kind returns what the object holds. Where several kind bits are set the
// highest wins.
func (id ObjectID) Kind() Kind {
	switch {
	case id&kindBits == 0:
		return KindData
	case id&inodeBit != 0:
		return KindInode
	case id&vmStateBit != 0:
		return KindVMState
	case id&attrBit != 0:
		return KindAttr
	case id&btreeBit != 0:
		return KindBTree
	}
	return KindLedger
}

// Size returns the size in bytes of object id of a VDI with the block size
// shift.
func (id ObjectID) Size(shift uint8) uint32 {
	switch id.Kind() {
	case KindInode:
		return InodeSize
	case KindAttr:
		return AttrSize
	case KindBTree:
		return BTreeSize
	case KindLedger:
		return LedgerSize
	}
	return 1 << shift
}

// Metadata reports whether a write to id must be durable before it is answered,
// whatever the client asked for.
func (id ObjectID) Metadata() bool { return id.Kind() != KindData && id.Kind() != KindVMState }

func (id ObjectID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// ParseObjectID parses the sixteen lower-case hexadecimal digits that String prints.
func ParseObjectID(s string) (ObjectID, error) {
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil || ObjectID(n).String() != s {
		return 0, fmt.Errorf("object id %q: not 16 lower-case hexadecimal digits", s)
	}
	return ObjectID(n), nil
}
