package fanout

import (
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
)

// An expectation is where objects would be if the nodes that are absent were
// back.
type expectation struct {
	nodes []sheep.Node
	ring  *placement.Ring
}

// expect returns the expectation of a view, nil if nobody is absent.
func (v *nodes) expect() *expectation {
	if len(v.Absences) == 0 {
		return nil
	}
	all := v.With(v.Absences)
	return &expectation{all, placement.NewRing(all)}
}

// prefer moves those of the holders to the front that hold the object whoever is
// absent, and returns how many that are. The others hold it in the place of absent
// nodes: to read from one that has not been asked before means that it fetches the
// object, which is what healing waits with.
func (v *nodes) prefer(ref sheep.Ref, holders []int) int {
	if v.expected == nil {
		return len(holders)
	}
	var room [sheep.MaxCopies]int
	places := v.expected.ring.AppendPlace(room[:0], ref.ID, ref.Policy.Width())
	n := 0
	for k, i := range holders {
		addr := v.Nodes[i].Addr
		if slices.ContainsFunc(places, func(p int) bool { return v.expected.nodes[p].Addr == addr }) {
			holders[n], holders[k] = i, holders[n]
			n++
		}
	}
	if n == 0 {
		return len(holders)
	}
	return n
}
