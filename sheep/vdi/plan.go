package vdi

import (
	"encoding/binary"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// The kinds of plans. The log of a cluster has them: never renumber.
const (
	PlanNew    uint8 = 1
	PlanDelete uint8 = 2
	PlanAttr   uint8 = 3
	PlanLookup uint8 = 4
)

// planVersion is the first byte of every payload and result.
const planVersion = 1

// newPlan is the payload of PlanNew.
//
//	u8 version · u64 creation time · u64 size · u32 base · u8 copies, copy policy,
//	store policy, block size shift, snapshot · text name
type newPlan struct {
	Name        string
	Size        uint64 // in bytes
	Base        sheep.VDIID
	Copies      uint8 // 0: the cluster's default, copy policy included
	CopyPolicy  uint8
	StorePolicy uint8
	BlockShift  uint8 // 0: the cluster's default
	Snapshot    bool
	Time        uint64 // as inodes have it; also tells this plan from others
}

func (p newPlan) encode() []byte {
	le := binary.LittleEndian
	b := le.AppendUint64([]byte{planVersion}, p.Time)
	b = le.AppendUint64(b, p.Size)
	b = le.AppendUint32(b, uint32(p.Base))
	b = append(b, p.Copies, p.CopyPolicy, p.StorePolicy, p.BlockShift, flag(p.Snapshot))
	return appendText(b, p.Name)
}

func decodeNewPlan(b []byte) (newPlan, error) {
	d := decoder{b: b}
	d.version()
	var p newPlan
	p.Time, p.Size, p.Base = d.uint64(), d.uint64(), sheep.VDIID(d.uint32())
	p.Copies, p.CopyPolicy, p.StorePolicy, p.BlockShift = d.uint8(), d.uint8(), d.uint8(), d.uint8()
	p.Snapshot, p.Name = d.flag(), d.text()
	return p, d.end("new VDI")
}

// deletePlan is the payload of PlanDelete, and of PlanLookup.
//
//	u8 version · text name, tag · u32 snapshot id · text address of the gateway
//	that asks
type deletePlan struct {
	query
	Requester string
}

func (p deletePlan) encode() []byte {
	b := appendText([]byte{planVersion}, p.Name)
	b = appendText(b, p.Tag)
	b = binary.LittleEndian.AppendUint32(b, p.SnapID)
	return appendText(b, p.Requester)
}

func decodeDeletePlan(b []byte) (deletePlan, error) {
	d := decoder{b: b}
	d.version()
	p := deletePlan{query: query{Name: d.text(), Tag: d.text(), SnapID: d.uint32()}, Requester: d.text()}
	return p, d.end("delete VDI")
}

// attrPlan is the payload of PlanAttr.
//
//	u8 version, action · the header of the attribute · its value
type attrPlan struct {
	action attrAction
	attr   proto.Attr
	retry  bool // of the task, not in the payload
}

func (p attrPlan) encode() []byte {
	return append(p.attr.AttrHeader.Append([]byte{planVersion, byte(p.action)}), p.attr.Value...)
}

func decodeAttrPlan(b []byte) (attrPlan, error) {
	d := decoder{b: b}
	d.version()
	p := attrPlan{action: attrAction(d.uint8())}
	h, err := proto.DecodeAttrHeader(d.take(proto.AttrHeaderSize))
	d.bad = d.bad || err != nil || p.action > attrDelete
	p.attr = proto.Attr{AttrHeader: h, Value: d.take(int(h.ValueLen))}
	return p, d.end("attribute")
}

// A made is the result of every plan: the VDI, and what answers show of it. Of a
// plan for an attribute VDI is the hash of the name.
//
//	u8 version · u32 VDI, attribute · u8 copies, block size shift
type made struct {
	VDI        sheep.VDIID
	Attr       uint32
	Copies     uint8
	BlockShift uint8
}

func (m made) encode() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32([]byte{planVersion}, uint32(m.VDI))
	b = le.AppendUint32(b, m.Attr)
	return append(b, m.Copies, m.BlockShift)
}

func decodeMade(b []byte) (made, error) {
	d := decoder{b: b}
	d.version()
	m := made{VDI: sheep.VDIID(d.uint32()), Attr: d.uint32(), Copies: d.uint8(), BlockShift: d.uint8()}
	return m, d.end("result")
}

// appendText appends a text of at most 64 KiB - 1 after its length.
func appendText(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(s))), s...)
}

func flag(on bool) byte {
	if on {
		return 1
	}
	return 0
}

// A decoder takes values from the front of b until one is not there or wrong.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || n < 0 || n > len(d.b) {
		d.bad = true
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) uint8() uint8 {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	if p := d.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if p := d.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (d *decoder) text() string {
	p := d.take(2)
	if p == nil {
		return ""
	}
	return string(d.take(int(binary.LittleEndian.Uint16(p))))
}

func (d *decoder) flag() bool {
	v := d.uint8()
	d.bad = d.bad || v > 1
	return v == 1
}

func (d *decoder) version() { d.bad = d.uint8() != planVersion || d.bad }

func (d *decoder) end(what string) error {
	if d.bad || len(d.b) != 0 {
		return fmt.Errorf("%w: payload of plan %q", sheep.ErrInvalid, what)
	}
	return nil
}
