package proto

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"sheepdog/sheep"
)

// Sizes of what names a node, and the most nodes of a cluster.
const (
	NodeSize   = 80
	NodeIDSize = 40
	MaxNodes   = 6144
)

// AppendNode appends the 80-byte entry of n to b. So nodes look in lists, in
// the cluster's information and in the epoch log.
//
//	offset  size  field
//	     0    24  reserved: arbitrary when read, zero when written
//	    24    40  node id, see AppendNodeID
//	    64     2  vnodes, 0 on a gateway-only node
//	    66     2  padding
//	    68     4  zone
//	    72     8  space in bytes
func AppendNode(b []byte, n sheep.Node) []byte {
	le := binary.LittleEndian
	b = append(b, make([]byte, 24)...)
	b = AppendNodeID(b, n)
	b = le.AppendUint16(b, n.VNodes)
	b = append(b, 0, 0)
	b = le.AppendUint32(b, uint32(n.Zone))
	return le.AppendUint64(b, n.Space)
}

// DecodeNode decodes the node entry at the start of b.
func DecodeNode(b []byte) (sheep.Node, error) {
	if len(b) < NodeSize {
		return sheep.Node{}, short("node entry", len(b), NodeSize)
	}
	le := binary.LittleEndian
	return sheep.Node{
		Addr:   decodeAddr(b[24:]),
		IOAddr: decodeAddr(b[42:]),
		VNodes: le.Uint16(b[64:]),
		Zone:   sheep.ZoneID(le.Uint32(b[68:])),
		Space:  le.Uint64(b[72:]),
	}, nil
}

// AppendNodes appends the entries of nodes to b.
func AppendNodes(b []byte, nodes []sheep.Node) []byte {
	for _, n := range nodes {
		b = AppendNode(b, n)
	}
	return b
}

// DecodeNodes decodes b, which must be a whole number of node entries, at most
// MaxNodes.
func DecodeNodes(b []byte) ([]sheep.Node, error) {
	if len(b)%NodeSize != 0 || len(b) > MaxNodes*NodeSize {
		return nil, fmt.Errorf("%w: node list of %d bytes", ErrMalformed, len(b))
	}
	nodes := make([]sheep.Node, 0, len(b)/NodeSize)
	for ; len(b) > 0; b = b[NodeSize:] {
		n, err := DecodeNode(b)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// AppendNodeID appends the 40 bytes that name n to b.
//
//	offset  size  field
//	     0    16  address; IPv4 is the last four bytes after twelve zeroes
//	    16     2  port
//	    18    16  second address, or zero
//	    34     2  its port
//	    36     4  padding
func AppendNodeID(b []byte, n sheep.Node) []byte {
	b = appendAddr(b, n.Addr)
	b = appendAddr(b, n.IOAddr)
	return append(b, 0, 0, 0, 0)
}

// DecodeNodeID decodes the node id at the start of b into a node that has
// nothing but its addresses.
func DecodeNodeID(b []byte) (sheep.Node, error) {
	if len(b) < NodeIDSize {
		return sheep.Node{}, short("node id", len(b), NodeIDSize)
	}
	return sheep.Node{Addr: decodeAddr(b), IOAddr: decodeAddr(b[18:])}, nil
}

// appendAddr appends the sixteen bytes of the address and the two of the port.
func appendAddr(b []byte, a netip.AddrPort) []byte {
	ip := sheep.WireAddr(a.Addr())
	return binary.LittleEndian.AppendUint16(append(b, ip[:]...), a.Port())
}

// decodeAddr is the inverse of appendAddr; b has at least 18 bytes.
func decodeAddr(b []byte) netip.AddrPort {
	return netip.AddrPortFrom(sheep.AddrFromWire([16]byte(b)), binary.LittleEndian.Uint16(b[16:]))
}
