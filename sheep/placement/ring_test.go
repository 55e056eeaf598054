package placement_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
)

// nodes returns n nodes of one address from port 7700, each in its own zone.
func nodes(n int) []sheep.Node {
	list := make([]sheep.Node, n)
	for i := range list {
		list[i] = sheep.Node{
			Addr:   netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(7700+i)),
			VNodes: placement.DefaultVNodes,
			Zone:   sheep.ZoneID(i),
		}
	}
	return list
}

func TestPlacementOfTheOriginal(t *testing.T) {
	three := placement.NewRing(nodes(3))
	for id, want := range map[sheep.ObjectID][]int{
		0x0001e92600000000: {1, 2},
		0x0001ec8c00000000: {0, 2},
		0x0001ec8c00000001: {1, 2},
		0x8001ec8c00000000: {1, 2},
		0x0801ec8c00000000: {2, 0},
	} {
		if got := three.Place(id, 2); !slices.Equal(got, want) {
			t.Errorf("%v: got %v, want %v", id, got, want)
		}
	}
	four := placement.NewRing(nodes(4))
	if got, want := four.Place(0x0001e5c000000000, 4), []int{3, 1, 0, 2}; !slices.Equal(got, want) {
		t.Errorf("four strips: got %v, want %v", got, want)
	}
}

// walk places by the words of the rule: all points sorted, each zone once.
func walk(list []sheep.Node, id sheep.ObjectID, n int) []int {
	type point struct {
		hash uint64
		node int
	}
	var points []point
	for i, node := range list {
		ip := sheep.WireAddr(node.Addr.Addr())
		h := placement.Hash(binary.LittleEndian.AppendUint16(ip[:], node.Addr.Port()))
		for range node.VNodes {
			h = placement.Next(h)
			points = append(points, point{h, i})
		}
	}
	slices.SortFunc(points, func(a, b point) int { return cmp.Compare(a.hash, b.hash) })
	first := slices.IndexFunc(points, func(p point) bool { return p.hash >= placement.Hash64(uint64(id)) })
	first = max(first, 0)
	got := []int{}
	taken := map[sheep.ZoneID]bool{}
	for _, p := range slices.Concat(points[first:], points[:first]) {
		if zone := list[p.node].Zone; len(got) < min(n, sheep.MaxCopies) && !taken[zone] {
			taken[zone] = true
			got = append(got, p.node)
		}
	}
	return got
}

func TestPlaceFollowsTheRule(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		list := nodes(1 + rng.IntN(40))
		zones := 1 + rng.IntN(len(list))
		for i := range list {
			list[i].VNodes = uint16(rng.IntN(20)) // some have none
			list[i].Zone = sheep.ZoneID(rng.IntN(zones)) * 77
		}
		ring := placement.NewRing(list)
		for range 50 {
			id, n := sheep.ObjectID(rng.Uint64()), rng.IntN(35)
			if got, want := ring.Place(id, n), walk(list, id, n); !slices.Equal(got, want) {
				t.Fatalf("%d copies of %v on %v: got %v, want %v", n, id, list, got, want)
			}
		}
	}
}

func TestPlaceIsLimitedByZones(t *testing.T) {
	list := nodes(5)
	list[3].Zone = list[2].Zone
	list[4].VNodes = 0
	ring := placement.NewRing(list)
	if got := ring.Zones(); got != 3 {
		t.Errorf("zones: got %d, want 3", got)
	}
	for _, n := range []int{-1, 0, 1, 3, 4, 100} {
		got := ring.Place(1, n)
		if want := max(0, min(n, 3)); len(got) != want {
			t.Errorf("%d copies: got %v, want %d nodes", n, got, want)
		}
		if slices.Contains(got, 4) {
			t.Errorf("%d copies: got %v, with the gateway-only node", n, got)
		}
	}
	many := placement.NewRing(nodes(40))
	if got := len(many.Place(1, 40)); many.Zones() != sheep.MaxCopies || got != sheep.MaxCopies {
		t.Errorf("40 zones: Zones is %d, an object has %d copies; want %d", many.Zones(), got, sheep.MaxCopies)
	}
}

func TestRingsWithoutPoints(t *testing.T) {
	gateways := nodes(2)
	gateways[0].VNodes, gateways[1].VNodes = 0, 0
	for name, ring := range map[string]*placement.Ring{
		"nil": nil, "no nodes": placement.NewRing(nil), "gateways": placement.NewRing(gateways),
	} {
		if got := ring.Place(1, 3); len(got) != 0 || ring.Zones() != 0 {
			t.Errorf("%s: got %v and %d zones", name, got, ring.Zones())
		}
	}
}

func TestRingKeepsItsNodes(t *testing.T) {
	list := nodes(3)
	ring := placement.NewRing(list)
	list[0].Zone = 99
	if got := ring.Nodes(); !slices.Equal(got, nodes(3)) {
		t.Errorf("got %v", got)
	}
}

func TestAppendPlaceKeepsWhatIsThereAndAllocatesNothing(t *testing.T) {
	ring := placement.NewRing(nodes(5))
	want := append([]int{0, 1, 2, 3, 4}, ring.Place(7, 3)...)
	if got := ring.AppendPlace([]int{0, 1, 2, 3, 4}, 7, 3); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	var room [sheep.MaxCopies]int
	if n := testing.AllocsPerRun(100, func() { ring.AppendPlace(room[:0], 7, 3) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAutoVNodes(t *testing.T) {
	const g = 1 << 30
	for _, c := range []struct {
		name  string
		space []uint64
		want  []uint16
	}{
		{"the original's three nodes", []uint64{74929737728, 75625402368, 75575078912}, []uint16{127, 128, 128}},
		{"one node of twice the size", []uint64{2 * g, g}, []uint16{171, 85}},
		{"equal nodes", []uint64{g, g, g}, []uint16{128, 128, 128}},
		{"a gateway does not count", []uint64{g, 0, g}, []uint16{128, 0, 128}},
		{"only gateways", []uint64{0, 0}, []uint16{0, 0}},
		{"a half goes to the even number below", []uint64{257, 255}, []uint16{128, 128}},
		{"a half goes to the even number above", []uint64{259, 253}, []uint16{130, 126}},
		{"a tiny node has none", []uint64{1, 1 << 40}, []uint16{0, 256}},
		{"sums of more than 64 bits", []uint64{math.MaxUint64, math.MaxUint64}, []uint16{128, 128}},
	} {
		t.Run(c.name, func(t *testing.T) {
			list := nodes(len(c.space))
			for i := range list {
				list[i].VNodes, list[i].Space = 7, c.space[i]
			}
			var got []uint16
			for _, n := range placement.AutoVNodes(list) {
				got = append(got, n.VNodes)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if list[0].VNodes != 7 {
				t.Error("the caller's nodes were changed")
			}
		})
	}
}

func BenchmarkAppendPlace(b *testing.B) {
	for _, n := range []int{3, 30, 300} {
		b.Run(fmt.Sprintf("%d nodes", n), func(b *testing.B) {
			ring := placement.NewRing(nodes(n))
			room := make([]int, 0, 3)
			id := sheep.DataObject(0x7c2b25, 0)
			b.ReportAllocs()
			for b.Loop() {
				room = ring.AppendPlace(room[:0], id, 3)
				id++
			}
		})
	}
}

func BenchmarkNewRing(b *testing.B) {
	list := nodes(30)
	for b.Loop() {
		placement.NewRing(list)
	}
}
