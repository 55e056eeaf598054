package command

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/size"
)

// vdiCheck compares the copies of a VDI's objects and repairs them.
func vdiCheck(ctx context.Context, s *session) error {
	h, err := s.open(ctx, s.name(), s.opts.snapshot)
	if err != nil {
		return also(err, "FATAL: no inode objects")
	}
	if s.opts.exist {
		return s.checkExistence(ctx, h)
	}
	return s.checkVDI(ctx, h)
}

// checkWidth is how many objects are compared at once.
const checkWidth = 8

// checkVDI compares and repairs the objects of one VDI. Its failure says that
// something could not be repaired.
func (s *session) checkVDI(ctx context.Context, h *proto.InodeHeader) error {
	policy, err := h.Policy()
	if err != nil {
		return fail(ExitFailure, "%v", err)
	}
	if policy.Erasure() && zones(s.nodes.Nodes) < policy.Width() {
		return fail(ExitFailure, "ABORT: Not enough active zones for consistency-checking erasure coded VDI")
	}
	if policy.Erasure() {
		return fail(ExitFailure, "%s: check of an erasure coded VDI: not supported yet", s.app.env.Program)
	}
	total, err := s.count(ctx, h)
	if err != nil {
		return err
	}
	bar := s.newProgress(s.out, s.app.env.StdoutWidth, total<<h.BlockShift, size.Human)
	defer bar.finish()
	c := checker{s: s, ring: placement.NewRing(s.nodes.Nodes), copies: int(h.Copies)}
	damaged := false
	ids := s.objectsOf(h)
	for verdict := range remote.Ordered(ids.all(ctx), checkWidth, func(id sheep.ObjectID) verdict {
		return c.check(ctx, id)
	}) {
		if ctx.Err() != nil {
			return interrupted()
		}
		for _, line := range verdict.fixed {
			s.print("%s\n", line)
		}
		for _, line := range verdict.broken {
			s.warn("%s", line)
			damaged = true
		}
		bar.add(1 << h.BlockShift)
	}
	if ids.err != nil {
		return ids.err
	}
	s.print("finish check&repair %s\n", h.Name)
	if damaged {
		return quiet(ExitFailure)
	}
	return nil
}

// vdiObjects are the objects of a VDI: its inode with what belongs to that, its
// data objects wherever they came from, and the saved state of its virtual machine.
type vdiObjects struct {
	s   *session
	h   *proto.InodeHeader
	err error // why the list that all has yielded ends early
}

func (s *session) objectsOf(h *proto.InodeHeader) *vdiObjects { return &vdiObjects{s: s, h: h} }

// all yields the objects.
func (v *vdiObjects) all(ctx context.Context) iter.Seq[sheep.ObjectID] {
	return func(yield func(sheep.ObjectID) bool) { v.list(ctx, yield) }
}

func (v *vdiObjects) list(ctx context.Context, yield func(sheep.ObjectID) bool) {
	unread := func(err error) error {
		return failed(err, "Failed to read object %v %s", sheep.InodeObject(v.h.VDI), remote.Text(err))
	}
	nodes, err := v.s.TreeNodes(ctx, v.h)
	if err != nil {
		v.err = unread(err)
		return
	}
	for _, id := range append([]sheep.ObjectID{sheep.InodeObject(v.h.VDI)}, nodes...) {
		if !yield(id) {
			return
		}
	}
	for o, err := range v.s.Objects(ctx, v.h) {
		if err != nil {
			v.err = unread(err)
			return
		}
		if !yield(sheep.DataObject(o.VDI, o.Index)) {
			return
		}
	}
	if !v.h.Snapshot() {
		return
	}
	for n := uint64(0); n<<v.h.BlockShift < v.h.VMStateSize && n < proto.MaxMapEntries; n++ {
		if !yield(sheep.VMStateObject(v.h.VDI, uint32(n))) {
			return
		}
	}
}

// count returns how many objects a VDI has.
func (s *session) count(ctx context.Context, h *proto.InodeHeader) (uint64, error) {
	ids, n := s.objectsOf(h), uint64(0)
	for range ids.all(ctx) {
		n++
	}
	return n, ids.err
}

// A checker compares copies.
type checker struct {
	s      *session
	ring   *placement.Ring
	copies int
}

// A verdict is what was found of one object.
type verdict struct {
	fixed  []string // what was repaired
	broken []string // what could not be
}

func broken(format string, args ...any) verdict {
	return verdict{broken: []string{fmt.Sprintf(format, args...)}}
}

// A copyState is one node's copy.
type copyState struct {
	node    sheep.Node
	present bool
	digest  remote.Digest
	err     error
}

// looks is how often the copies of an object that is being written are compared
// before that is given up.
const looks = 5

// check compares the copies of object id and repairs them.
func (c *checker) check(ctx context.Context, id sheep.ObjectID) verdict {
	copies := c.look(ctx, id)
	for range looks {
		if same(copies) {
			return verdict{}
		}
		again := c.look(ctx, id)
		if slices.Equal(copies, again) {
			return c.repair(ctx, id, copies)
		}
		copies = again
	}
	if slices.ContainsFunc(copies, func(c copyState) bool { return c.err != nil }) {
		return c.repair(ctx, id, copies)
	}
	return broken("object %v is being written, it cannot be checked now", id)
}

// look asks each node that should have a copy for its digest.
func (c *checker) look(ctx context.Context, id sheep.ObjectID) []copyState {
	var copies []copyState
	holders := c.ring.Place(id, c.copies)
	for state := range remote.Ordered(slices.Values(holders), len(holders), func(at int) copyState {
		n := c.ring.Nodes()[at]
		digest, err := c.s.Hash(ctx, n, id, c.s.epoch)
		if remote.Result(err) == proto.ResultNoObject {
			return copyState{node: n}
		}
		return copyState{node: n, present: err == nil, digest: digest, err: err}
	}) {
		copies = append(copies, state)
	}
	return copies
}

// same reports whether all copies are there and equal.
func same(copies []copyState) bool {
	for _, c := range copies {
		if !c.present || c.digest != copies[0].digest {
			return false
		}
	}
	return len(copies) > 0
}

// repair replaces the copies that differ from most of those that there are.
func (c *checker) repair(ctx context.Context, id sheep.ObjectID, copies []copyState) verdict {
	var v verdict
	votes, present := make(map[remote.Digest]int), 0
	for _, state := range copies {
		if state.err != nil {
			v.broken = append(v.broken, fmt.Sprintf("failed to check object %v at %v: %s", id, state.node, remote.Text(state.err)))
		}
		if state.present {
			votes[state.digest]++
			present++
		}
	}
	best := slices.IndexFunc(copies, func(c copyState) bool { return c.present && 2*votes[c.digest] > present })
	switch {
	case present == 0:
		v.broken = append(v.broken, fmt.Sprintf("no node has %v", id))
		return v
	case best < 0:
		v.broken = append(v.broken, fmt.Sprintf("no majority of %v", id))
		return v
	}
	good := copies[best]
	for _, state := range copies {
		if state.err != nil || state.present && state.digest == good.digest {
			continue
		}
		what := "replica"
		if !state.present {
			what = "missing"
		}
		if err := c.s.Repair(ctx, state.node, good.node, id, c.s.epoch); err != nil {
			v.broken = append(v.broken, fmt.Sprintf("failed to repair object %v at %v: %s", id, state.node, remote.Text(err)))
			continue
		}
		v.fixed = append(v.fixed, fmt.Sprintf("fixed %s %v", what, id))
	}
	return v
}

// existBatch is how many objects a node is asked about at once.
const existBatch = 8192

// checkExistence only looks whether all copies are there.
func (s *session) checkExistence(ctx context.Context, h *proto.InodeHeader) error {
	ring := placement.NewRing(s.nodes.Nodes)
	wanted := make([][]sheep.ObjectID, len(s.nodes.Nodes))
	lost := 0
	ask := func(at int) error {
		n, batch := s.nodes.Nodes[at], wanted[at]
		if len(batch) == 0 {
			return nil
		}
		absent, err := s.Missing(ctx, n, batch)
		if err != nil {
			return failed(err, "Failed to ask %v which objects it has: %s", n, remote.Text(err))
		}
		for _, id := range absent {
			s.print("[%v] oid %v is missing.\n", n, id)
		}
		lost += len(absent)
		wanted[at] = batch[:0]
		return nil
	}
	ids := s.objectsOf(h)
	for id := range ids.all(ctx) {
		for _, at := range ring.Place(id, int(h.Copies)) {
			if wanted[at] = append(wanted[at], id); len(wanted[at]) == existBatch {
				if err := ask(at); err != nil {
					return err
				}
			}
		}
	}
	if ids.err != nil {
		return ids.err
	}
	for at := range wanted {
		if err := ask(at); err != nil {
			return err
		}
	}
	if lost > 0 {
		s.print("%s lost %d object(s).\n", h.Name, lost)
		return quiet(ExitFailure)
	}
	s.print("%s is fine, no object is missing.\n", h.Name)
	return nil
}
