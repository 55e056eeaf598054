package command

import (
	"context"
	"iter"

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
	return s.checkVDI(ctx, h, new(idSet), s.opts.force)
}

// checkWidth is how many objects are compared at once.
const checkWidth = 8

// A checkReport is the JSON form of vdi check.
type checkReport struct {
	Name    string      `json:"name"`
	Objects uint64      `json:"objects"` // compared
	Fixed   []repairRow `json:"fixed"`
	Broken  []string    `json:"broken"` // what could not be repaired, in words
}

// checkVDI compares and repairs the objects of one VDI, but for those in checked,
// to which it adds them. With force it decides between copies that are equally
// new. Its failure says that something could not be repaired.
func (s *session) checkVDI(ctx context.Context, h *proto.InodeHeader, checked *idSet, force bool) error {
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
	var bar *progress
	if !s.opts.json {
		bar = s.newProgress(s.out, s.app.env.StdoutWidth, total<<h.BlockShift, size.Human)
	}
	defer bar.finish()
	c := checker{s: s, ring: placement.NewRing(s.nodes.Nodes), copies: int(h.Copies), force: force}
	report := checkReport{Name: h.Name, Fixed: []repairRow{}, Broken: []string{}}
	ids := s.objectsOf(h)
	for verdict := range remote.Ordered(ids.all(ctx), checkWidth, func(id sheep.ObjectID) verdict {
		if !checked.add(id) {
			return verdict{}
		}
		return c.check(ctx, id)
	}) {
		if ctx.Err() != nil {
			return interrupted()
		}
		s.showVerdict(verdict)
		report.Objects++
		report.Fixed = append(report.Fixed, verdict.fixed...)
		report.Broken = append(report.Broken, verdict.broken...)
		bar.add(1 << h.BlockShift)
	}
	if ids.err != nil {
		return ids.err
	}
	if s.opts.json {
		if err := s.writeJSON(report); err != nil {
			return err
		}
	} else {
		s.print("finish check&repair %s\n", h.Name)
	}
	if len(report.Broken) > 0 {
		return quiet(ExitFailure)
	}
	return nil
}

// showVerdict prints what was found of one object.
func (s *session) showVerdict(v verdict) {
	for _, r := range v.fixed {
		switch {
		case s.opts.json:
		case s.opts.verbose:
			s.print("fixed %s %s at %s by the copy of %s: %s\n", r.What, r.Object, r.Node, r.From, r.Why)
		default:
			s.print("fixed %s %s\n", r.What, r.Object)
		}
	}
	for _, line := range v.broken {
		s.warn("%s", line)
	}
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
