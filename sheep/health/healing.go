package health

import (
	"slices"
	"strings"
	"time"

	"sheepdog/sheep/proto"
)

// healing says what waits for nodes that are absent, and which nodes an operator
// has spoken about.
func (r *Report) healing(all []answer) {
	var objects uint64
	var names []string
	left := proto.Forever
	for _, a := range all {
		if a.healing.Later == 0 {
			continue
		}
		objects += a.healing.Later
		for _, n := range a.healing.Absent {
			left = min(left, n.Left)
			if name := n.Node.String(); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) > 0 {
		until := "until it is back"
		if left != proto.Forever {
			until = "another " + left.Round(time.Second).String()
		}
		r.find(Degraded, "healing waits for %s %s: %d copies are missing meanwhile", strings.Join(names, " and "), until, objects)
	}
	if len(all) == 0 {
		return
	}
	for _, m := range all[0].healing.Maintained {
		r.find(OK, "node %v is being maintained", m.Node)
	}
	for _, n := range all[0].healing.Drained {
		r.find(OK, "node %v is to hold nothing: dog node drain %v --undo", n, n)
	}
}
