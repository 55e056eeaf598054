// Scale tells what a cluster of a thousand nodes would be like.
//
// It places ten million objects by the very rings that the daemons use and
// counts what each node would hold, and what would move when a node comes or
// goes, beside the least that must move. It also has the state of the cluster,
// as every daemon keeps it, live through the joins of all nodes, and measures
// what an epoch costs each of them. No daemon runs.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
)

func main() {
	nodes := flag.Int("nodes", 1000, "nodes, each a zone")
	objects := flag.Int("objects", 10_000_000, "objects of 4 MiB")
	copies := flag.Int("copies", 3, "copies of each")
	flag.Parse()
	if flag.NArg() > 0 || *nodes < 10 || *nodes > 6144 || *objects < 1 || *copies < 1 || *copies > sheep.MaxCopies {
		fmt.Fprintln(os.Stderr, "scale: at least 10 nodes, 1 object and 1 copy")
		os.Exit(2)
	}
	var t table
	t.row("", "value")
	t.row("---", "---:")
	t.row("nodes, objects, copies", fmt.Sprintf("%d, %d, %d", *nodes, *objects, *copies))
	measurePlacement(&t, *nodes, *objects, *copies)
	if err := measureMembership(&t, *nodes); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
	fmt.Print(t.String())
}

// A table is written as Markdown.
type table struct{ strings.Builder }

func (t *table) row(cells ...string) { t.WriteString("| " + strings.Join(cells, " | ") + " |\n") }

// node returns the node with the number. Every fourth has disks of twice the size
// if the sizes are mixed.
func node(i int, mixed bool) sheep.Node {
	space := uint64(4 << 40)
	if mixed && i%4 == 0 {
		space *= 2
	}
	addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	return sheep.Node{Addr: netip.AddrPortFrom(addr, 7000), Zone: sheep.ZoneID(i + 1), VNodes: placement.DefaultVNodes, Space: space}
}

func nodesOf(n int, mixed bool) []sheep.Node {
	all := make([]sheep.Node, n)
	for i := range all {
		all[i] = node(i, mixed)
	}
	slices.SortFunc(all, func(a, b sheep.Node) int { return sheep.CompareAddr(a.Addr, b.Addr) })
	return placement.AutoVNodes(all)
}

// object returns the id of the object with the number: of disks of 4096 objects.
func object(i int) sheep.ObjectID {
	return sheep.DataObject(placement.HashName(fmt.Sprint("disk", i/4096)), uint32(i%4096))
}

func measurePlacement(t *table, nodes, objects, copies int) {
	ids := make([]sheep.ObjectID, objects)
	for i := range ids {
		ids[i] = object(i)
	}
	for _, mixed := range []bool{false, true} {
		what := "nodes alike"
		if mixed {
			what = "every fourth node of twice the size"
		}
		all := nodesOf(nodes, mixed)
		load, took := loads(all, ids, copies)
		t.row(what+": load against weight, standard deviation", percent(deviation(load)))
		t.row(what+": fullest node, against its weight", percent(slices.Max(load)-1))
		if !mixed {
			t.row("time to place an object", fmt.Sprintf("%.0f ns", float64(took.Nanoseconds())/float64(objects)))
		}
	}
	all := nodesOf(nodes, false)
	before := placement.NewRing(all)
	for _, change := range []struct {
		what  string
		nodes []sheep.Node
		least float64
	}{
		{"a node leaves", all[1:], 1 / float64(nodes)},
		{"a node joins", nodesOf(nodes+1, false), 1 / float64(nodes+1)},
	} {
		share := moved(before, placement.NewRing(change.nodes), ids, copies)
		t.row(change.what+": copies that must be made, least possible", fmt.Sprintf("%s, %s", percent(share), percent(change.least)))
	}
}

// loads returns how many copies each node has, against what its weight says, and
// how long that took.
func loads(nodes []sheep.Node, ids []sheep.ObjectID, copies int) ([]float64, time.Duration) {
	ring := placement.NewRing(nodes)
	count := make([]int, len(nodes))
	var room [sheep.MaxCopies]int
	began := time.Now()
	for _, id := range ids {
		for _, at := range ring.AppendPlace(room[:0], id, copies) {
			count[at]++
		}
	}
	took := time.Since(began)
	weights := 0
	for _, n := range nodes {
		weights += int(n.VNodes)
	}
	load := make([]float64, len(nodes))
	for i, n := range nodes {
		load[i] = float64(count[i]) * float64(weights) / float64(n.VNodes) / float64(len(ids)*copies)
	}
	return load, took
}

func deviation(load []float64) float64 {
	sum := 0.0
	for _, l := range load {
		sum += (l - 1) * (l - 1)
	}
	return math.Sqrt(sum / float64(len(load)))
}

// moved returns the share of copies that have no node of before in after.
func moved(before, after *placement.Ring, ids []sheep.ObjectID, copies int) float64 {
	same := make([]int, len(after.Nodes())) // the number in before, or -1
	for i, n := range after.Nodes() {
		at, ok := slices.BinarySearchFunc(before.Nodes(), n, func(a, b sheep.Node) int { return sheep.CompareAddr(a.Addr, b.Addr) })
		if same[i] = at; !ok {
			same[i] = -1
		}
	}
	var old, now [sheep.MaxCopies]int
	made, all := 0, 0
	for _, id := range ids {
		was := before.AppendPlace(old[:0], id, copies)
		for _, at := range after.AppendPlace(now[:0], id, copies) {
			all++
			if !slices.Contains(was, same[at]) {
				made++
			}
		}
	}
	return float64(made) / float64(max(all, 1))
}

func percent(f float64) string { return fmt.Sprintf("%.2f %%", 100*f) }

// middle returns the median of times.
func middle(times []time.Duration) time.Duration {
	slices.SortFunc(times, cmp.Compare)
	return times[len(times)/2]
}
