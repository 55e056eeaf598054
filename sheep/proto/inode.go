package proto

import (
	"bytes"
	"encoding/binary"

	"sheepdog/sheep"
)

// Where the parts of an inode are. QEMU and tgt know the first MapEnd bytes.
const (
	InodeHeaderSize = 4664
	MapOffset       = 4664      // data object i: 4 bytes, the VDI that owns it or 0
	MapEnd          = 4_198_968 // where the map ends
	GRefOffset      = 4_198_968 // data object i: generation and count of its references, 4 bytes each
	MaxMapEntries   = 1 << 20
	MapEntrySize    = 4
	GRefSize        = 8
)

// An InodeHeader is the head of an inode.
//
//	offset  size  field
//	     0   256  name, empty if the VDI is deleted
//	   256   256  tag, empty on heads
//	   512     8  creation time, see WireTime
//	   520     8  time of the snapshot, 0 on heads
//	   528     8  clock of the saved VM in nanoseconds
//	   536     8  size in bytes
//	   544     8  size of the saved VM state in bytes
//	   552     1  copy policy
//	   553     1  store policy
//	   554     1  copies, or data and parity strips
//	   555     1  block size shift
//	   556     4  snapshot id
//	   560     4  VDI
//	   564     4  parent VDI, or 0
//	   568     4  number of the next B-tree node
//	   572  4092  unused; clients' bytes are kept
//
// Append gives back every byte that was decoded: what a name or a tag has
// after its NUL is kept as long as the new one leaves it room.
type InodeHeader struct {
	Name         string
	Tag          string
	CreateTime   uint64
	SnapTime     uint64
	VMClock      uint64
	Size         uint64
	VMStateSize  uint64
	CopyPolicy   uint8
	StorePolicy  uint8
	Copies       uint8
	BlockShift   uint8
	SnapID       uint32
	VDI          sheep.VDIID
	Parent       sheep.VDIID
	BTreeCounter uint32
	Unused       [4092]byte

	nameRest string // what follows the name's NULs up to the field's end
	tagRest  string
}

// DecodeInodeHeader decodes the header at the start of b.
func DecodeInodeHeader(b []byte) (InodeHeader, error) {
	if len(b) < InodeHeaderSize {
		return InodeHeader{}, short("inode header", len(b), InodeHeaderSize)
	}
	le := binary.LittleEndian
	h := InodeHeader{
		Name:         Text(b[:256]),
		Tag:          Text(b[256:512]),
		CreateTime:   le.Uint64(b[512:]),
		SnapTime:     le.Uint64(b[520:]),
		VMClock:      le.Uint64(b[528:]),
		Size:         le.Uint64(b[536:]),
		VMStateSize:  le.Uint64(b[544:]),
		CopyPolicy:   b[552],
		StorePolicy:  b[553],
		Copies:       b[554],
		BlockShift:   b[555],
		SnapID:       le.Uint32(b[556:]),
		VDI:          sheep.VDIID(le.Uint32(b[560:])),
		Parent:       sheep.VDIID(le.Uint32(b[564:])),
		BTreeCounter: le.Uint32(b[568:]),
		Unused:       [4092]byte(b[572:]),
	}
	h.nameRest = rest(b[:256], h.Name)
	h.tagRest = rest(b[256:512], h.Tag)
	return h, nil
}

// rest returns what field has after text and the NULs that follow it.
func rest(field []byte, text string) string {
	return string(bytes.TrimLeft(field[len(text):], "\x00"))
}

// Append appends the header's 4664 bytes to b.
func (h *InodeHeader) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = appendLabel(b, h.Name, h.nameRest)
	b = appendLabel(b, h.Tag, h.tagRest)
	b = le.AppendUint64(b, h.CreateTime)
	b = le.AppendUint64(b, h.SnapTime)
	b = le.AppendUint64(b, h.VMClock)
	b = le.AppendUint64(b, h.Size)
	b = le.AppendUint64(b, h.VMStateSize)
	b = append(b, h.CopyPolicy, h.StorePolicy, h.Copies, h.BlockShift)
	b = le.AppendUint32(b, h.SnapID)
	b = le.AppendUint32(b, uint32(h.VDI))
	b = le.AppendUint32(b, uint32(h.Parent))
	b = le.AppendUint32(b, h.BTreeCounter)
	return append(b, h.Unused[:]...)
}

// appendLabel appends a label of text, with rest at its end if a NUL fits
// between them.
func appendLabel(b []byte, text, rest string) []byte {
	n := len(b)
	b = appendPadded(b, text, LabelSize)
	if len(text)+1+len(rest) <= LabelSize {
		copy(b[n+LabelSize-len(rest):], rest)
	}
	return b
}

// Snapshot reports whether the VDI is a snapshot, not a head.
func (h *InodeHeader) Snapshot() bool { return h.SnapTime != 0 }

// Deleted reports whether the VDI was deleted: its name is gone.
func (h *InodeHeader) Deleted() bool { return h.Name == "" }

// Hyper reports whether the VDI is a hyper volume.
func (h *InodeHeader) Hyper() bool { return h.StorePolicy == StoreHyper }

// Policy returns how the VDI's objects are made redundant.
func (h *InodeHeader) Policy() (sheep.Policy, error) {
	return sheep.PolicyFromWire(h.Copies, h.CopyPolicy)
}

// Summary returns what every node keeps in mind of the VDI. It fails if the
// policy is none.
func (h *InodeHeader) Summary() (sheep.VDI, error) {
	policy, err := h.Policy()
	if err != nil {
		return sheep.VDI{}, err
	}
	return sheep.VDI{
		ID:         h.VDI,
		Name:       h.Name,
		SnapID:     h.SnapID,
		Parent:     h.Parent,
		Policy:     policy,
		BlockShift: h.BlockShift,
		Hyper:      h.Hyper(),
		Snapshot:   h.Snapshot(),
		Deleted:    h.Deleted(),
	}, nil
}
