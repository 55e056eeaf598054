// Package placement decides which nodes hold an object.
//
// Every node puts vnodes on a hash ring in proportion to its weight. The
// copies of an object go to the first nodes met clockwise from the object's
// hash whose zones differ, so that losing one zone loses at most one copy.
// Node i in this order holds copy i, or strip i of an erasure code.
//
// A Ring never changes. A new epoch makes a new Ring, and a request that has
// started keeps the ring it started with. Clients compute the same rings from
// the list of nodes, so hashes and order are part of the protocol.
package placement

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"sheepdog/sheep"
)

// DefaultVNodes is the number of points of a node of average weight.
const DefaultVNodes = 128

// A Ring places objects on the nodes of one epoch. It may be used by several
// goroutines at once. The nil Ring places nothing.
type Ring struct {
	nodes  []sheep.Node
	hashes []uint64 // of the points, ascending
	owners []uint32 // of the points: indexes of nodes
	zones  []uint32 // of the nodes: the number of their zone on this ring
	spread int      // zones that have a point, at most sheep.MaxCopies
}

// NewRing returns the ring of nodes, of which those without vnodes hold
// nothing. The nodes' VNodes must be the effective ones; see AutoVNodes.
func NewRing(nodes []sheep.Node) *Ring {
	type point struct {
		hash  uint64
		owner uint32
	}
	r := &Ring{nodes: slices.Clone(nodes), zones: make([]uint32, len(nodes))}
	var points []point
	number := make(map[sheep.ZoneID]uint32)
	for i, n := range r.nodes {
		if n.VNodes == 0 {
			continue
		}
		if _, ok := number[n.Zone]; !ok {
			number[n.Zone] = uint32(len(number))
		}
		r.zones[i] = number[n.Zone]
		h := nodeHash(n)
		for range n.VNodes {
			h = next(h)
			points = append(points, point{h, uint32(i)})
		}
	}
	slices.SortFunc(points, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), cmp.Compare(a.owner, b.owner))
	})
	r.hashes = make([]uint64, len(points))
	r.owners = make([]uint32, len(points))
	for i, p := range points {
		r.hashes[i], r.owners[i] = p.hash, p.owner
	}
	r.spread = min(len(number), sheep.MaxCopies)
	return r
}

// nodeHash returns the hash that the sequence of a node's points starts after.
func nodeHash(n sheep.Node) uint64 {
	ip := sheep.WireAddr(n.Addr.Addr())
	return Hash(binary.LittleEndian.AppendUint16(ip[:], n.Addr.Port()))
}

// Place returns the indexes of the nodes that hold n copies of object id, in
// order. There are fewer than n if there are fewer zones.
func (r *Ring) Place(id sheep.ObjectID, n int) []int {
	return r.AppendPlace(make([]int, 0, max(0, min(n, r.Zones()))), id, n)
}

// AppendPlace appends to dst what Place returns. It does not allocate if dst
// has room.
func (r *Ring) AppendPlace(dst []int, id sheep.ObjectID, n int) []int {
	n = min(n, r.Zones())
	if n <= 0 {
		return dst
	}
	first := len(dst)
	at, _ := slices.BinarySearch(r.hashes, Hash64(uint64(id)))
	for range r.owners {
		if at == len(r.owners) {
			at = 0
		}
		if node := int(r.owners[at]); !r.inZone(dst[first:], r.zones[node]) {
			if dst = append(dst, node); len(dst)-first == n {
				break
			}
		}
		at++
	}
	return dst
}

// inZone reports whether one of the nodes is in zone.
func (r *Ring) inZone(nodes []int, zone uint32) bool {
	for _, n := range nodes {
		if r.zones[n] == zone {
			return true
		}
	}
	return false
}

// Nodes returns the nodes that the ring was made of, in their order. The
// caller must not change them.
func (r *Ring) Nodes() []sheep.Node {
	if r == nil {
		return nil
	}
	return r.nodes
}

// Zones returns the number of zones that may hold objects, counted up to
// sheep.MaxCopies: the most copies that an object can have.
func (r *Ring) Zones() int {
	if r == nil {
		return 0
	}
	return r.spread
}

// AutoVNodes returns a copy of nodes with the vnodes that follow from their
// space: DefaultVNodes times space over the mean space, in single precision,
// rounded half to even. The mean is over the nodes that have space; the others
// get no vnodes.
func AutoVNodes(nodes []sheep.Node) []sheep.Node {
	nodes = slices.Clone(nodes)
	var hi, lo, count uint64 // hi and lo: the sum of all space
	for _, n := range nodes {
		if n.Space > 0 {
			var carry uint64
			lo, carry = bits.Add64(lo, n.Space, 0)
			hi += carry
			count++
		}
	}
	if count == 0 {
		for i := range nodes {
			nodes[i].VNodes = 0
		}
		return nodes
	}
	mean, _ := bits.Div64(hi, lo, count)
	for i := range nodes {
		factor := float32(nodes[i].Space) / float32(mean)
		n := math.RoundToEven(float64(DefaultVNodes * factor))
		nodes[i].VNodes = uint16(min(n, math.MaxUint16))
	}
	return nodes
}
