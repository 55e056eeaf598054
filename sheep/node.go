package sheep

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
)

// An Epoch numbers the memberships of a cluster. Zero is before the format.
type Epoch uint32

// A Generation numbers the ownerships of VDIs. It is the index of the entry of
// the cluster log that granted the ownership, so a later one is larger.
type Generation uint64

// An Incarnation numbers the lives of daemons: no two processes of a cluster
// ever have the same one.
type Incarnation uint64

func (i Incarnation) String() string { return fmt.Sprintf("%016x", uint64(i)) }

// A ZoneID names a failure domain.
type ZoneID uint32

// A Node is one daemon of the cluster. Nodes compare with ==; Addr names them.
type Node struct {
	Addr   netip.AddrPort // where clients and peers reach it; never a 4-in-6 address
	IOAddr netip.AddrPort // second address for object traffic between peers, or zero
	VNodes uint16         // points on the placement ring; 0 on a gateway-only node
	Zone   ZoneID
	Space  uint64 // bytes of storage
}

// String prints the address as Sheepdog always did: host:port, without
// brackets around IPv6 addresses.
func (n Node) String() string { return FormatAddr(n.Addr) }

// FormatAddr prints an address as host:port, without brackets around IPv6
// addresses.
func FormatAddr(a netip.AddrPort) string {
	return a.Addr().String() + ":" + strconv.Itoa(int(a.Port()))
}

// CompareAddr orders addresses as node lists are ordered: by the sixteen bytes
// of the address (an IPv4 address is the last four, after twelve zeroes), then
// by port.
func CompareAddr(a, b netip.AddrPort) int {
	x, y := WireAddr(a.Addr()), WireAddr(b.Addr())
	for i := range x {
		if x[i] != y[i] {
			return int(x[i]) - int(y[i])
		}
	}
	return int(a.Port()) - int(b.Port())
}

// WireAddr returns the sixteen bytes that stand for a on the wire and on the
// disk, and that placement hashes.
func WireAddr(a netip.Addr) [16]byte {
	if a.Is4() {
		b := a.As4()
		return [16]byte{12: b[0], 13: b[1], 14: b[2], 15: b[3]}
	}
	if !a.IsValid() {
		return [16]byte{}
	}
	return a.As16()
}

// AddrFromWire is the inverse of WireAddr. The zero bytes give the invalid
// address; an address is IPv4 if its first twelve bytes are zero and the
// thirteenth is not.
func AddrFromWire(b [16]byte) netip.Addr {
	if b == ([16]byte{}) {
		return netip.Addr{}
	}
	if [12]byte(b[:12]) == ([12]byte{}) && b[12] != 0 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16(b)
}

// DefaultZone returns the zone of a node that was given none: the last four
// bytes of its address as a little-endian number.
func DefaultZone(a netip.Addr) ZoneID {
	b := WireAddr(a)
	return ZoneID(binary.LittleEndian.Uint32(b[12:]))
}
