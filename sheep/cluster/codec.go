package cluster

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"sheepdog/sheep"
)

var errMalformed = errors.New("malformed cluster message")

var le = binary.LittleEndian

// The append functions below and the decoder's methods of the same names
// mirror each other. Integers are little-endian; strings, byte strings and
// lists are preceded by their length.

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// appendString appends s, at most 65535 bytes, after its length in two bytes.
func appendString(b []byte, s string) []byte {
	b = le.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// appendBytes appends p after its length in four bytes.
func appendBytes(b, p []byte) []byte {
	b = le.AppendUint32(b, uint32(len(p)))
	return append(b, p...)
}

// appendAddr appends an address: 0, 4 or 16 as one byte, so many bytes of
// address, and unless they are none the port in two bytes. Zones of addresses
// mean nothing to other nodes and are dropped.
func appendAddr(b []byte, a netip.AddrPort) []byte {
	if !a.Addr().IsValid() {
		return append(b, 0)
	}
	ip := a.Addr().AsSlice()
	b = append(b, byte(len(ip)))
	b = append(b, ip...)
	return le.AppendUint16(b, a.Port())
}

func appendNode(b []byte, n sheep.Node) []byte {
	b = appendAddr(b, n.Addr)
	b = appendAddr(b, n.IOAddr)
	b = le.AppendUint16(b, n.VNodes)
	b = le.AppendUint32(b, uint32(n.Zone))
	return le.AppendUint64(b, n.Space)
}

func appendNodes(b []byte, nodes []sheep.Node) []byte {
	b = le.AppendUint32(b, uint32(len(nodes)))
	for _, n := range nodes {
		b = appendNode(b, n)
	}
	return b
}

func appendSettings(b []byte, s Settings) []byte {
	b = le.AppendUint64(b, s.Ctime)
	b = append(b, s.Copies, s.CopyPolicy, s.BlockShift)
	b = le.AppendUint16(b, s.Flags)
	return appendString(b, s.Store)
}

// The bits of a VDI's flag byte.
const (
	vdiHyper    = 1
	vdiSnapshot = 2
	vdiDeleted  = 4
)

func appendVDI(b []byte, v sheep.VDI) []byte {
	var flags byte
	if v.Hyper {
		flags |= vdiHyper
	}
	if v.Snapshot {
		flags |= vdiSnapshot
	}
	if v.Deleted {
		flags |= vdiDeleted
	}
	b = le.AppendUint32(b, uint32(v.ID))
	b = appendString(b, v.Name)
	b = le.AppendUint32(b, v.SnapID)
	b = le.AppendUint32(b, uint32(v.Parent))
	return append(b, v.Policy.Copies, v.Policy.Data, v.Policy.Parity, v.BlockShift, flags)
}

// A decoder reads what the append functions wrote. After the first thing that
// is missing or not canonical it is bad, and reads zeroes.
type decoder struct {
	b       []byte
	bad     bool
	version uint8 // of a state
}

// end returns an error unless everything was read and well formed.
func (d *decoder) end() error {
	if d.bad || len(d.b) != 0 {
		return errMalformed
	}
	return nil
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

func (d *decoder) u8() uint8 {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if p := d.take(2); p != nil {
		return le.Uint16(p)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if p := d.take(4); p != nil {
		return le.Uint32(p)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if p := d.take(8); p != nil {
		return le.Uint64(p)
	}
	return 0
}

func (d *decoder) bool() bool {
	v := d.u8()
	if v > 1 {
		d.bad = true
	}
	return v == 1
}

func (d *decoder) string() string { return string(d.take(int(d.u16()))) }

func (d *decoder) bytes() []byte { return d.take(int(d.u32())) }

// count reads the length of a list whose elements take at least size bytes
// each, so that the caller may allocate as many.
func (d *decoder) count(size int) int {
	n := int(d.u32())
	if n > len(d.b)/size {
		d.bad = true
		return 0
	}
	return n
}

func (d *decoder) addr() netip.AddrPort {
	n := d.u8()
	if n == 0 {
		return netip.AddrPort{}
	}
	ip, ok := netip.AddrFromSlice(d.take(int(n)))
	if !ok || ip.Is4In6() {
		d.bad = true
	}
	return netip.AddrPortFrom(ip, d.u16())
}

func (d *decoder) node() sheep.Node {
	return sheep.Node{
		Addr:   d.addr(),
		IOAddr: d.addr(),
		VNodes: d.u16(),
		Zone:   sheep.ZoneID(d.u32()),
		Space:  d.u64(),
	}
}

// nodeSize is the least that a node takes.
const nodeSize = 16

func (d *decoder) nodes() []sheep.Node {
	n := d.count(nodeSize)
	if n == 0 {
		return nil
	}
	nodes := make([]sheep.Node, n)
	for i := range nodes {
		nodes[i] = d.node()
	}
	return nodes
}

func (d *decoder) settings() Settings {
	return Settings{
		Ctime:      d.u64(),
		Copies:     d.u8(),
		CopyPolicy: d.u8(),
		BlockShift: d.u8(),
		Flags:      d.u16(),
		Store:      d.string(),
	}
}

// vdiSize is the least that a VDI takes.
const vdiSize = 19

func (d *decoder) vdi() sheep.VDI {
	v := sheep.VDI{
		ID:         sheep.VDIID(d.u32()),
		Name:       d.string(),
		SnapID:     d.u32(),
		Parent:     sheep.VDIID(d.u32()),
		Policy:     sheep.Policy{Copies: d.u8(), Data: d.u8(), Parity: d.u8()},
		BlockShift: d.u8(),
	}
	flags := d.u8()
	v.Hyper = flags&vdiHyper != 0
	v.Snapshot = flags&vdiSnapshot != 0
	v.Deleted = flags&vdiDeleted != 0
	if flags > vdiHyper|vdiSnapshot|vdiDeleted {
		d.bad = true
	}
	return v
}
