package command

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/scrub"
)

// A checker compares copies.
type checker struct {
	s      *session
	ring   *placement.Ring
	copies int
	force  bool // decide between copies that are equally new
}

// A repairRow is a copy that was replaced; its JSON form is fixed.
type repairRow struct {
	Object string `json:"object"`
	What   string `json:"what"` // replica or missing: there was a copy that differed, or none
	Node   string `json:"node"` // host:port, whose copy was replaced
	From   string `json:"from"` // host:port, whose copy it is now
	Why    string `json:"why"`  // that one
}

// A verdict is what was found of one object.
type verdict struct {
	fixed  []repairRow // what was repaired
	broken []string    // what could not be
}

func broken(format string, args ...any) verdict {
	return verdict{broken: []string{fmt.Sprintf(format, args...)}}
}

// looks is how often the copies of an object that is being written are compared
// before that is given up.
const looks = 5

// check compares the copies of object id and repairs them.
func (c *checker) check(ctx context.Context, id sheep.ObjectID) verdict {
	copies := c.look(ctx, id)
	for range looks {
		if scrub.Same(copies) {
			return verdict{}
		}
		again := c.look(ctx, id)
		if scrub.Unchanged(copies, again) {
			return c.repair(ctx, id, again)
		}
		copies = again
	}
	if slices.ContainsFunc(copies, func(c scrub.Copy) bool { return c.Err != nil }) {
		return c.repair(ctx, id, copies)
	}
	return broken("object %v is being written, it cannot be checked now", id)
}

// look asks each node that should have a copy what is in it.
func (c *checker) look(ctx context.Context, id sheep.ObjectID) []scrub.Copy {
	holders := c.ring.Place(id, c.copies)
	return slices.Collect(remote.Ordered(slices.Values(holders), len(holders), func(at int) scrub.Copy {
		n := c.ring.Nodes()[at]
		report, err := c.s.Copy(ctx, n, id, c.s.epoch)
		return scrub.Copy{Node: n, CopyReport: report, Err: err}
	}))
}

// repair replaces the copies that differ from the right one.
func (c *checker) repair(ctx context.Context, id sheep.ObjectID, copies []scrub.Copy) verdict {
	var v verdict
	present := 0
	for _, copied := range copies {
		if copied.Err != nil {
			v.broken = append(v.broken, fmt.Sprintf("failed to check object %v at %v: %s", id, copied.Node, remote.Text(copied.Err)))
		} else if copied.Exists() {
			present++
		}
	}
	decision := scrub.Judge(copies, c.force)
	if decision.Right < 0 {
		text := fmt.Sprintf("no majority of %v: %s", id, decision.Why)
		if present == 0 {
			text = fmt.Sprintf("no node has %v", id)
		}
		v.broken = append(v.broken, text)
		return v
	}
	right := copies[decision.Right].Node
	for _, i := range decision.Wrong {
		wrong := copies[i]
		row := repairRow{Object: id.String(), What: "replica", Node: wrong.Node.String(), From: right.String(), Why: decision.Why}
		if !wrong.Exists() {
			row.What = "missing"
		}
		if err := c.s.Repair(ctx, wrong.Node, right, id, c.s.epoch); err != nil {
			v.broken = append(v.broken, fmt.Sprintf("failed to repair object %v at %v: %s", id, wrong.Node, remote.Text(err)))
			continue
		}
		v.fixed = append(v.fixed, row)
	}
	return v
}

// An idSet remembers which data objects have been checked: snapshots and clones
// share them. Other objects belong to one VDI.
type idSet struct {
	mu    sync.Mutex
	words map[sheep.VDIID][]uint64 // guarded by mu; bit i of word w is the object 64w+i
}

// add reports whether id was not in the set, to which it belongs from now on.
func (s *idSet) add(id sheep.ObjectID) bool {
	if id.Kind() != sheep.KindData {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.words == nil {
		s.words = make(map[sheep.VDIID][]uint64)
	}
	word, bit := int(id.Index()/64), uint64(1)<<(id.Index()%64)
	words := s.words[id.VDI()]
	if word >= len(words) {
		words = append(words, make([]uint64, word+1-len(words))...)
		s.words[id.VDI()] = words
	}
	if words[word]&bit != 0 {
		return false
	}
	words[word] |= bit
	return true
}
