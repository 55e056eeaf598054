package cluster

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
)

// How long the copies of a node that has left are waited for, which nodes are
// being maintained, and which are to have no data. The log says when somebody
// left; when a time is over each node decides by its own clock, because nothing
// but work depends on it.

// NoEnd is the length of a maintenance that only its end ends.
const NoEnd time.Duration = math.MaxInt64

// unsetDelay is the delay of a cluster whose operator has not set one.
const unsetDelay = -1

// healing is what the log says of it.
type healing struct {
	delay       int64            // nanoseconds, or unsetDelay
	absences    []absence        // ascending by address
	maintenance []maintenance    // likewise
	drained     []netip.AddrPort // likewise
}

// An absence is a node that stores data and has left.
type absence struct {
	node  sheep.Node // as it was given
	since int64      // Entry.Time of its leave
}

// A maintenance says that the departure of a node is meant.
type maintenance struct {
	addr  netip.AddrPort
	until int64 // as Entry.Time; 0 means no end
}

// An Absence is a node that has left the cluster and may come back with the
// copies that it has.
type Absence struct {
	Node       sheep.Node    // as it had joined
	Since      time.Time     // by the clock of who noticed
	Patience   time.Duration // so long its copies are not made anew elsewhere; NoEnd is for ever
	Maintained bool          // its departure was meant
}

// A Maintenance is a node whose departure starts no healing.
type Maintenance struct {
	Addr  netip.AddrPort
	Until time.Time // zero if it has no end
}

func newHealing() healing { return healing{delay: unsetDelay} }

// missed takes note of a member that has left. Nobody waits for one that was to
// have no data.
func (h *healing) missed(gone *member, time int64) {
	if gone.node.VNodes == 0 || slices.Contains(h.drained, gone.node.Addr) {
		return
	}
	h.absences = slices.DeleteFunc(h.absences, func(a absence) bool { return a.node.Addr == gone.node.Addr })
	h.absences = append(h.absences, absence{gone.node, time})
	slices.SortFunc(h.absences, func(a, b absence) int { return sheep.CompareAddr(a.node.Addr, b.node.Addr) })
}

// returned takes note of a node that has joined, which ends its maintenance.
func (h *healing) returned(addr netip.AddrPort) {
	h.absences = slices.DeleteFunc(h.absences, func(a absence) bool { return a.node.Addr == addr })
	h.maintenance = slices.DeleteFunc(h.maintenance, func(m maintenance) bool { return m.addr == addr })
}

// nextLife returns what outlasts the end of all members.
func (h *healing) nextLife() healing {
	return healing{delay: h.delay, drained: h.drained}
}

// appendHealing appends what d.healing reads.
func appendHealing(b []byte, h healing) []byte {
	b = le.AppendUint64(b, uint64(h.delay))
	b = appendList(b, h.absences, func(b []byte, a absence) []byte {
		return le.AppendUint64(appendNode(b, a.node), uint64(a.since))
	})
	b = appendList(b, h.maintenance, func(b []byte, m maintenance) []byte {
		return le.AppendUint64(appendAddr(b, m.addr), uint64(m.until))
	})
	return appendList(b, h.drained, appendAddr)
}

func (d *decoder) healing() healing {
	return healing{
		delay:       int64(d.u64()),
		absences:    list(d, nodeSize+8, func(d *decoder) absence { return absence{d.node(), int64(d.u64())} }),
		maintenance: list(d, 9, func(d *decoder) maintenance { return maintenance{d.addr(), int64(d.u64())} }),
		drained:     list(d, 1, (*decoder).addr),
	}
}

// show puts h into a view. otherwise is the delay if none is set.
func (h *healing) show(v *View, otherwise time.Duration) {
	v.HealDelay = otherwise
	if h.delay != unsetDelay {
		v.HealDelay = time.Duration(h.delay)
	}
	v.Drained = slices.Clone(h.drained)
	for _, m := range h.maintenance {
		v.Maintenance = append(v.Maintenance, Maintenance{m.addr, unixTime(m.until)})
	}
	for _, a := range h.absences {
		shown := Absence{Node: a.node, Since: unixTime(a.since), Patience: v.HealDelay}
		if i := slices.IndexFunc(h.maintenance, func(m maintenance) bool { return m.addr == a.node.Addr }); i >= 0 {
			left := NoEnd
			if until := h.maintenance[i].until; until != 0 {
				left = time.Duration(until - a.since)
			}
			shown.Maintained = left > v.HealDelay
			shown.Patience = max(v.HealDelay, left)
		}
		v.Absences = append(v.Absences, shown)
	}
}

// Stores reports whether the member of v that is n stores data. One that is
// drained still does, though it is to hold nothing.
func (v *View) Stores(n sheep.Node) bool {
	return n.VNodes > 0 || slices.Contains(v.Drained, n.Addr)
}

// With returns the nodes of v as they would be if the nodes of away were
// members, too.
func (v *View) With(away []Absence) []sheep.Node {
	nodes := make([]sheep.Node, 0, len(v.Members)+len(away))
	for _, m := range v.Members {
		nodes = append(nodes, m.Node)
	}
	for _, a := range away {
		nodes = append(nodes, a.Node)
	}
	return effective(nodes, v.Drained, v.Settings)
}

// effective returns nodes sorted and with the vnodes that placement uses.
func effective(nodes []sheep.Node, drained []netip.AddrPort, s Settings) []sheep.Node {
	for i, n := range nodes {
		if slices.Contains(drained, n.Addr) {
			nodes[i].VNodes, nodes[i].Space = 0, 0
		}
	}
	slices.SortFunc(nodes, func(a, b sheep.Node) int { return sheep.CompareAddr(a.Addr, b.Addr) })
	if s.Flags&FlagAutoVNode != 0 {
		return placement.AutoVNodes(nodes)
	}
	return nodes
}

// setDelayMsg sets the delay of healing.
type setDelayMsg struct{ delay int64 }

func (setDelayMsg) kind() messageKind        { return kindSetDelay }
func (m setDelayMsg) append(b []byte) []byte { return le.AppendUint64(b, uint64(m.delay)) }

func (m setDelayMsg) apply(s *state, _ *member, _ *Entry, fx *effects) error {
	if err := s.serving(); err != nil {
		return err
	}
	if m.delay < 0 {
		return fmt.Errorf("%w: a delay of %v", sheep.ErrInvalid, time.Duration(m.delay))
	}
	fx.view = fx.view || s.healing.delay != m.delay
	s.healing.delay = m.delay
	return nil
}

// maintainMsg begins or ends the maintenance of a node.
type maintainMsg struct {
	addr     netip.AddrPort
	on       bool
	duration int64 // nanoseconds from the entry on; 0 means no end
}

func (maintainMsg) kind() messageKind { return kindMaintain }

func (m maintainMsg) append(b []byte) []byte {
	return le.AppendUint64(appendBool(appendAddr(b, m.addr), m.on), uint64(m.duration))
}

func (m maintainMsg) apply(s *state, _ *member, e *Entry, fx *effects) error {
	if err := s.serving(); err != nil {
		return err
	}
	h := &s.healing
	if m.duration < 0 || m.on && !s.knowsStorage(m.addr) {
		return fmt.Errorf("%w: no node that stores data is or was at %v", sheep.ErrInvalid, m.addr)
	}
	h.maintenance = slices.DeleteFunc(h.maintenance, func(o maintenance) bool { return o.addr == m.addr })
	if m.on {
		var until int64
		if m.duration != 0 {
			until = e.Time + min(m.duration, math.MaxInt64-max(e.Time, 0))
		}
		h.maintenance = append(h.maintenance, maintenance{m.addr, until})
		slices.SortFunc(h.maintenance, func(a, b maintenance) int { return sheep.CompareAddr(a.addr, b.addr) })
	}
	fx.view = true
	return nil
}

// knowsStorage reports whether a node that stores data is a member, or is
// absent.
func (s *state) knowsStorage(addr netip.AddrPort) bool {
	return slices.ContainsFunc(s.members, func(m *member) bool { return m.node.Addr == addr && m.node.VNodes > 0 }) ||
		slices.ContainsFunc(s.healing.absences, func(a absence) bool { return a.node.Addr == addr })
}

// drainMsg has a node hold nothing from now on, or as much as its weight says.
type drainMsg struct {
	addr netip.AddrPort
	on   bool
}

func (drainMsg) kind() messageKind        { return kindDrain }
func (m drainMsg) append(b []byte) []byte { return appendBool(appendAddr(b, m.addr), m.on) }

func (m drainMsg) apply(s *state, _ *member, e *Entry, fx *effects) error {
	if err := s.serving(); err != nil {
		return err
	}
	h := &s.healing
	i := slices.Index(h.drained, m.addr)
	switch {
	case m.on == (i >= 0):
		return nil
	case !m.on:
		h.drained = slices.Delete(h.drained, i, i+1)
	default:
		if err := s.drainable(m.addr); err != nil {
			return err
		}
		h.drained = append(h.drained, m.addr)
		slices.SortFunc(h.drained, sheep.CompareAddr)
	}
	fx.view = true
	if slices.ContainsFunc(s.members, func(o *member) bool { return o.node.Addr == m.addr }) {
		s.beginEpoch(e.Time, fx)
	}
	return nil
}

// drainable returns why the other nodes cannot do without the one at addr.
func (s *state) drainable(addr netip.AddrPort) error {
	zones := make(map[sheep.ZoneID]bool)
	found := false
	for _, m := range s.members {
		switch {
		case m.node.VNodes == 0:
		case m.node.Addr == addr:
			found = true
		case !slices.Contains(s.healing.drained, m.node.Addr):
			zones[m.node.Zone] = true
		}
	}
	if !found {
		return fmt.Errorf("%w: no node that stores data is at %v", sheep.ErrInvalid, addr)
	}
	if want := s.widest(); len(zones) < want {
		return fmt.Errorf("%w: %d zones for %d copies", sheep.ErrHalt, len(zones), want)
	}
	return nil
}

// widest returns in how many zones the objects of some VDI are to be.
func (s *state) widest() int {
	widest := 1
	if p, err := sheep.PolicyFromWire(s.settings.Copies, s.settings.CopyPolicy); err == nil {
		widest = p.Width()
	}
	for _, st := range s.vdis.all {
		if !st.vdi.Deleted {
			widest = max(widest, st.vdi.Policy.Width())
		}
	}
	return widest
}

// SetHealDelay sets how long the copies of a node that has left are waited for
// before they are made anew.
func (c *Cluster) SetHealDelay(ctx context.Context, d time.Duration) error {
	return c.command(ctx, "set the delay of healing", setDelayMsg{int64(d)})
}

// Maintain has the departure of the node at addr, which may be absent already,
// start no healing before d is over or the node has come back; d is NoEnd or
// positive. Zero ends that.
func (c *Cluster) Maintain(ctx context.Context, addr netip.AddrPort, d time.Duration) error {
	m := maintainMsg{addr: addr, on: d != 0, duration: int64(d)}
	if d == NoEnd {
		m.duration = 0
	}
	return c.command(ctx, fmt.Sprintf("maintenance of %v", addr), m)
}

// Drain has the node at addr hold no data in a new epoch, or with undo as much
// as its weight says. sheep.ErrHalt means that the others have too few zones for
// all copies.
func (c *Cluster) Drain(ctx context.Context, addr netip.AddrPort, undo bool) error {
	return c.command(ctx, fmt.Sprintf("drain %v", addr), drainMsg{addr, !undo})
}
