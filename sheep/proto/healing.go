package proto

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"sheepdog/sheep"
)

// Forever is a duration that does not end by itself.
const Forever time.Duration = math.MaxInt64

// The bits of a Healing.
const (
	HealingActive   uint8 = 0x01 // not every copy of the node is current, and recovery is on
	HealingDisabled uint8 = 0x02 // recovery is switched off in the cluster
	HealingAll      uint8 = 0x04 // every copy of every node is current, as far as the node knows
)

// Limits of the answer to GET_HEALING.
const (
	maxHealingNodes = 256 // of each kind
	healingSize     = 128
	absenceSize     = NodeSize + 24

	// HealingRoom is the most that the answer takes.
	HealingRoom = healingSize + maxHealingNodes*(absenceSize+2*(NodeSize+8))
)

// A Healing is what a node says of its recovery, and of what the cluster does
// about nodes that leave: the answer to GET_HEALING. Integers are little-endian,
// durations are nanoseconds, MaxInt64 of which are for ever.
//
//	offset  size  field
//	     0     1  bits
//	     1     3  zero
//	     4     4  epoch
//	     8     8  objects that are current
//	    16     8  objects in all
//	    24     8  bytes of the others, at most
//	    32     8  objects fetched
//	    40     8  bytes fetched
//	    48     8  bytes a second at present
//	    56     8  until the end, at the present speed; 0 if not known
//	    64     8  objects that wait for absent nodes
//	    72     8  delay of healing after a departure
//	    80    24  throttle
//	   104     8  most bytes a second; 0 does not limit
//	   112     4  absent nodes that follow
//	   116     4  nodes being maintained that follow
//	   120     4  drained nodes that follow
//	   124     4  zero
//	   128        absent nodes, each: node (80), since (8, seconds since 1970), for how long they are
//	              still waited for (8), 1 if they are being maintained (1), zero (7)
//	              nodes being maintained, each: node (80), until (8, seconds since 1970, 0 for ever)
//	              drained nodes, each: node (80), zero (8)
type Healing struct {
	Bits            uint8
	Epoch           sheep.Epoch
	Finished, Total uint64
	Left            uint64
	Objects, Bytes  uint64
	Rate            uint64
	ETA             time.Duration
	Later           uint64
	Delay           time.Duration
	Throttle        Throttle
	Limit           uint64
	Absent          []AbsentNode
	Maintained      []MaintainedNode
	Drained         []sheep.Node // addresses only
}

// An AbsentNode is a node whose copies are waited for.
type AbsentNode struct {
	Node       sheep.Node
	Since      int64         // seconds since 1970
	Left       time.Duration // so long it is still waited for
	Maintained bool
}

// A MaintainedNode is a node whose departure starts no healing.
type MaintainedNode struct {
	Node  sheep.Node // its address only
	Until int64      // seconds since 1970; 0 is for ever
}

// Append appends the record to b, lists cut to their limits.
func (h Healing) Append(b []byte) []byte {
	le := binary.LittleEndian
	absent := h.Absent[:min(len(h.Absent), maxHealingNodes)]
	maintained := h.Maintained[:min(len(h.Maintained), maxHealingNodes)]
	drained := h.Drained[:min(len(h.Drained), maxHealingNodes)]
	b = append(b, h.Bits, 0, 0, 0)
	b = le.AppendUint32(b, uint32(h.Epoch))
	for _, n := range []uint64{
		h.Finished, h.Total, h.Left, h.Objects, h.Bytes, h.Rate, uint64(h.ETA), h.Later, uint64(h.Delay),
	} {
		b = le.AppendUint64(b, n)
	}
	b = h.Throttle.Append(b)
	b = le.AppendUint64(b, h.Limit)
	for _, n := range []int{len(absent), len(maintained), len(drained), 0} {
		b = le.AppendUint32(b, uint32(n))
	}
	for _, a := range absent {
		b = le.AppendUint64(AppendNode(b, a.Node), uint64(a.Since))
		b = le.AppendUint64(b, uint64(a.Left))
		b = append(b, bit(a.Maintained), 0, 0, 0, 0, 0, 0, 0)
	}
	for _, m := range maintained {
		b = le.AppendUint64(AppendNode(b, m.Node), uint64(m.Until))
	}
	for _, n := range drained {
		b = le.AppendUint64(AppendNode(b, n), 0)
	}
	return b
}

// DecodeHealing decodes b.
func DecodeHealing(b []byte) (Healing, error) {
	if len(b) < healingSize {
		return Healing{}, short("state of healing", len(b), healingSize)
	}
	le := binary.LittleEndian
	throttle, err := DecodeThrottle(b[80:])
	if err != nil {
		return Healing{}, err
	}
	h := Healing{
		Bits: b[0], Epoch: sheep.Epoch(le.Uint32(b[4:])),
		Finished: le.Uint64(b[8:]), Total: le.Uint64(b[16:]), Left: le.Uint64(b[24:]),
		Objects: le.Uint64(b[32:]), Bytes: le.Uint64(b[40:]), Rate: le.Uint64(b[48:]),
		ETA: duration(b[56:]), Later: le.Uint64(b[64:]), Delay: duration(b[72:]),
		Throttle: throttle, Limit: le.Uint64(b[104:]),
	}
	absent, maintained, drained := le.Uint32(b[112:]), le.Uint32(b[116:]), le.Uint32(b[120:])
	rest := b[healingSize:]
	if max(absent, maintained, drained) > maxHealingNodes || len(rest) != int(absent)*absenceSize+int(maintained+drained)*NodeOrderSize {
		return Healing{}, fmt.Errorf("%w: state of healing with %d, %d and %d nodes in %d bytes", ErrMalformed, absent, maintained, drained, len(rest))
	}
	for range absent {
		n, err := DecodeNode(rest[:NodeSize])
		if err != nil {
			return Healing{}, err
		}
		h.Absent = append(h.Absent, AbsentNode{
			Node: n, Since: int64(le.Uint64(rest[NodeSize:])), Left: duration(rest[NodeSize+8:]), Maintained: rest[NodeSize+16] != 0,
		})
		rest = rest[absenceSize:]
	}
	for i := range maintained + drained {
		o, err := DecodeNodeOrder(rest[:NodeOrderSize])
		if err != nil {
			return Healing{}, err
		}
		if i < maintained {
			h.Maintained = append(h.Maintained, MaintainedNode{o.Node, int64(o.Value)})
		} else {
			h.Drained = append(h.Drained, o.Node)
		}
		rest = rest[NodeOrderSize:]
	}
	return h, nil
}

// IsDrained reports whether the node is to hold nothing.
func (h Healing) IsDrained(n sheep.Node) bool {
	return slices.ContainsFunc(h.Drained, func(d sheep.Node) bool { return d.Addr == n.Addr })
}

// NodeOrderSize is the length of a NodeOrder.
const NodeOrderSize = NodeSize + 8

// A NodeOrder is the data of MAINTAIN_NODE and of DRAIN_NODE.
//
//	offset  size  field
//	     0    80  node, of which the address counts
//	    80     8  for how long it is maintained, in nanoseconds, MaxInt64 for ever, 0 no longer;
//	              or 1 to drain it, 0 to undo that
type NodeOrder struct {
	Node  sheep.Node
	Value uint64
}

// Append appends the record's 88 bytes to b.
func (o NodeOrder) Append(b []byte) []byte {
	return binary.LittleEndian.AppendUint64(AppendNode(b, o.Node), o.Value)
}

// DecodeNodeOrder decodes the record at the start of b.
func DecodeNodeOrder(b []byte) (NodeOrder, error) {
	if len(b) < NodeOrderSize {
		return NodeOrder{}, short("order about a node", len(b), NodeOrderSize)
	}
	n, err := DecodeNode(b[:NodeSize])
	if err != nil {
		return NodeOrder{}, err
	}
	return NodeOrder{n, binary.LittleEndian.Uint64(b[NodeSize:])}, nil
}

// duration decodes eight bytes; what no Duration can hold is for ever.
func duration(b []byte) time.Duration {
	return time.Duration(min(binary.LittleEndian.Uint64(b), math.MaxInt64))
}
