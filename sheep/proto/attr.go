package proto

import (
	"encoding/binary"
	"fmt"

	"sheepdog/sheep"
)

// Sizes of the parts of an attribute object.
const (
	AttrHeaderSize = 784
	AttrValueSize  = 65_536
)

// An AttrHeader names an attribute of a VDI. The labels are kept whole: the
// id of the attribute is a hash of all their bytes.
//
//	offset  size  field
//	     0   256  name of the VDI; a first byte of 0 marks a deleted attribute
//	   256   256  tag
//	   512     8  creation time of the VDI, filled in by the server
//	   520     4  snapshot id
//	   524     4  length of the value
//	   528   256  key
//	   784 65536  value, padded with zeroes
type AttrHeader struct {
	Name     [LabelSize]byte
	Tag      [LabelSize]byte
	Ctime    uint64
	SnapID   uint32
	ValueLen uint32
	Key      [LabelSize]byte
}

// DecodeAttrHeader decodes the header at the start of b. It refuses lengths
// above AttrValueSize.
func DecodeAttrHeader(b []byte) (AttrHeader, error) {
	if len(b) < AttrHeaderSize {
		return AttrHeader{}, short("attribute", len(b), AttrHeaderSize)
	}
	le := binary.LittleEndian
	h := AttrHeader{
		Name:     [LabelSize]byte(b[0:]),
		Tag:      [LabelSize]byte(b[256:]),
		Ctime:    le.Uint64(b[512:]),
		SnapID:   le.Uint32(b[520:]),
		ValueLen: le.Uint32(b[524:]),
		Key:      [LabelSize]byte(b[528:]),
	}
	if h.ValueLen > AttrValueSize {
		return AttrHeader{}, fmt.Errorf("%w: attribute of %d bytes", ErrMalformed, h.ValueLen)
	}
	return h, nil
}

// Append appends the header's 784 bytes to b.
func (h *AttrHeader) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, h.Name[:]...)
	b = append(b, h.Tag[:]...)
	b = le.AppendUint64(b, h.Ctime)
	b = le.AppendUint32(b, h.SnapID)
	b = le.AppendUint32(b, h.ValueLen)
	return append(b, h.Key[:]...)
}

// Same reports whether h and o name the same attribute.
func (h *AttrHeader) Same(o *AttrHeader) bool {
	return h.SnapID == o.SnapID &&
		Text(h.Name[:]) == Text(o.Name[:]) &&
		Text(h.Tag[:]) == Text(o.Tag[:]) &&
		Text(h.Key[:]) == Text(o.Key[:])
}

// An Attr is an attribute object, and the data of GET_VDI_ATTR.
type Attr struct {
	AttrHeader
	Value []byte
}

// DecodeAttr decodes b, a whole attribute object. The value is a part of b.
func DecodeAttr(b []byte) (Attr, error) {
	if len(b) != sheep.AttrSize {
		return Attr{}, short("attribute", len(b), sheep.AttrSize)
	}
	h, err := DecodeAttrHeader(b)
	if err != nil {
		return Attr{}, err
	}
	return Attr{AttrHeader: h, Value: b[AttrHeaderSize:][:h.ValueLen:h.ValueLen]}, nil
}

// Append appends all 66320 bytes of a to b. The length of the value is that of
// Value, cut to AttrValueSize.
func (a *Attr) Append(b []byte) []byte {
	value := a.Value[:min(len(a.Value), AttrValueSize)]
	h := a.AttrHeader
	h.ValueLen = uint32(len(value))
	b = append(h.Append(b), value...)
	return append(b, make([]byte, AttrValueSize-len(value))...)
}
