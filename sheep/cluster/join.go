package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sheepdog/sheep"
)

// protocolVersion is that of messages and states; members of one cluster have
// the same.
const protocolVersion = 1

// A hello is what a node says of itself when it joins:
//
//	offset  size  field
//	     0     1  protocol version; what follows is laid out by version 1
//	     1     1  1 if the operator gave the number of vnodes
//	     2        node
//	           4  newest epoch of its store
//	           4  newest forced epoch known
//	           4  newest epoch that all its members were complete for
//	           8  time of the epoch
//	              settings
//	              nodes of the epoch
//	           4  number of VDIs that it has to contribute
type hello struct {
	version  uint8
	fixed    bool
	node     sheep.Node
	epoch    sheep.Epoch
	forced   sheep.Epoch
	healed   sheep.Epoch
	time     int64
	settings Settings
	nodes    []sheep.Node
	owed     uint32
}

func (h hello) append(b []byte) []byte {
	b = append(b, h.version)
	b = appendBool(b, h.fixed)
	b = appendNode(b, h.node)
	b = le.AppendUint32(b, uint32(h.epoch))
	b = le.AppendUint32(b, uint32(h.forced))
	b = le.AppendUint32(b, uint32(h.healed))
	b = le.AppendUint64(b, uint64(h.time))
	b = appendSettings(b, h.settings)
	b = appendNodes(b, h.nodes)
	return le.AppendUint32(b, h.owed)
}

// decodeHello is the inverse of append. Of a hello of another version only the
// version is decoded.
func decodeHello(b []byte) (hello, error) {
	if len(b) > MaxJoin {
		return hello{}, errMalformed
	}
	d := &decoder{b: b}
	h := hello{version: d.u8()}
	if h.version != protocolVersion && !d.bad {
		return h, nil
	}
	h.fixed = d.bool()
	h.node = d.node()
	h.epoch = sheep.Epoch(d.u32())
	h.forced = sheep.Epoch(d.u32())
	h.healed = sheep.Epoch(d.u32())
	h.time = int64(d.u64())
	h.settings = d.settings()
	h.nodes = d.nodes()
	h.owed = d.u32()
	return h, d.end()
}

// join admits a node, refuses it, or lets it wait for the end of a cluster
// that shuts down.
func (s *state) join(e Entry, fx *effects) {
	if s.member(e.Member) != nil {
		return
	}
	if s.status == Shutdown {
		s.waiting = append(s.waiting, e)
		return
	}
	h, err := decodeHello(e.Data)
	if err == nil {
		err = s.admissible(h)
	}
	if err != nil {
		fx.refused = append(fx.refused, refusal{e.Member, err})
		return
	}
	m := &member{inc: e.Member, node: h.node, fixed: h.fixed, joined: e.Index}
	s.members = append(s.members, m)
	s.healing.returned(m.node.Addr)
	fx.view = true
	if s.healed < s.epoch && s.settings.Flags&FlagRecycle == 0 {
		m.owed = h.owed // there may be VDIs that only this node knows
	}
	if s.status == OK {
		// The epoch that follows must be newer than any that a store has seen.
		s.epoch = max(s.epoch, h.epoch)
		if e.More {
			s.turnover, fx.view = true, false
		} else {
			s.beginEpoch(e.Time, fx)
		}
		return
	}
	m.owed = h.owed
	s.healed = max(s.healed, h.healed)
	if h.epoch > s.epoch {
		s.adopt(h, fx)
	}
	s.start(e.Time, fx)
}

// admissible returns why the node may not join.
func (s *state) admissible(h hello) error {
	if h.version != protocolVersion {
		return fmt.Errorf("%w: the cluster has version %d, the node %d", sheep.ErrVersion, protocolVersion, h.version)
	}
	if !h.node.Addr.IsValid() {
		return fmt.Errorf("%w: the node has no address", sheep.ErrInvalid)
	}
	for _, m := range s.members {
		if m.node.Addr == h.node.Addr {
			return fmt.Errorf("%w: %v is already a member (incarnation %v)", sheep.ErrInvalid, h.node, m.inc)
		}
	}
	if s.epoch > 0 && h.epoch > 0 && s.settings.Ctime != h.settings.Ctime {
		return fmt.Errorf("%w: the store of %v belongs to another cluster (created %v, this one %v)",
			sheep.ErrInvalid, h.node, h.settings.created(), s.settings.created())
	}
	settings := s.settings
	if h.epoch > s.epoch && s.status == Wait {
		settings = h.settings
	}
	if (s.epoch > 0 || h.epoch > 0) && !settings.fits(h.fixed) {
		return fmt.Errorf("%w: %v", sheep.ErrInvalid, strategyMismatch(h.node, settings))
	}
	if s.status == Wait && h.epoch > 0 && h.epoch == s.epoch && !sameAddrs(s.nodes, h.nodes) {
		return fmt.Errorf("%w: epoch %d of %v has the members %s, here it has %s: the two went on without each other; "+
			"start the nodes of the side to keep first, then the others", sheep.ErrInvalid, h.epoch, h.node, addrs(h.nodes), addrs(s.nodes))
	}
	return nil
}

// adopt takes over the history of a joiner that has seen a newer epoch. Members
// that do not fit it are refused after all.
func (s *state) adopt(h hello, fx *effects) {
	s.settings, s.epoch, s.forced, s.epochTime = h.settings, h.epoch, h.forced, h.time
	s.nodes = slices.Clone(h.nodes)
	slices.SortFunc(s.nodes, func(a, b sheep.Node) int { return sheep.CompareAddr(a.Addr, b.Addr) })
	s.members = slices.DeleteFunc(s.members, func(m *member) bool {
		if s.settings.fits(m.fixed) {
			return false
		}
		reason := fmt.Errorf("%w: %v", sheep.ErrInvalid, strategyMismatch(m.node, s.settings))
		fx.refused = append(fx.refused, refusal{m.inc, reason})
		return true
	})
}

// start begins service if all members of the newest epoch are present and
// everybody has told what VDIs there are. The epoch stays if nothing changed
// since the cluster stopped as a whole.
func (s *state) start(time int64, fx *effects) {
	if s.status != Wait || s.epoch == 0 || !s.ready() {
		return
	}
	present := s.present()
	for _, n := range s.nodes {
		if !slices.ContainsFunc(present, func(p sheep.Node) bool { return p.Addr == n.Addr }) {
			return
		}
	}
	same := !s.started && slices.EqualFunc(s.nodes, present, func(a, b sheep.Node) bool {
		return a.Addr == b.Addr && a.VNodes == b.VNodes && a.Zone == b.Zone
	})
	s.status, s.started = OK, true
	fx.view = true
	if same {
		s.nodes = present
		s.noteZones()
	} else {
		s.beginEpoch(time, fx)
	}
	s.resume(fx)
}

// ready reports whether all members have contributed their VDIs.
func (s *state) ready() bool {
	return !slices.ContainsFunc(s.members, func(m *member) bool { return m.owed > 0 })
}

// leave removes a member and what only it could do.
func (s *state) leave(e Entry, fx *effects) {
	s.waiting = slices.DeleteFunc(s.waiting, func(w Entry) bool { return w.Member == e.Member })
	i := slices.IndexFunc(s.members, func(m *member) bool { return m.inc == e.Member })
	if i < 0 {
		return
	}
	gone := s.members[i]
	hadStorage := hasStorage(s.present())
	s.members = slices.Delete(s.members, i, i+1)
	fx.view = true
	if s.status == OK && !s.stopping {
		s.healing.missed(gone, e.Time)
	}
	s.unlockGone(gone)
	s.doubtGone(gone)
	s.disownGone(gone.inc, fx)
	s.passTurn(gone.inc, fx)
	switch {
	case len(s.members) == 0:
		s.restart(e, fx)
	case s.status == OK && hadStorage && !hasStorage(s.present()):
		s.status = Wait // gateways alone must not become the newest epoch
	case s.status == OK && e.More:
		// Nobody may be alive to remember the epoch without the node, and no data
		// depends on it.
		s.turnover, fx.view = true, false
	case s.status == OK:
		s.beginEpoch(e.Time, fx)
	default:
		s.start(e.Time, fx)
	}
}

// restart forgets everything when the last member has gone, but the open plan,
// and which epoch was the newest: what else there is the stores tell. Nodes that
// waited for the end of the shutdown join.
func (s *state) restart(last Entry, fx *effects) {
	waiting := s.waiting
	fresh := newState()
	fresh.index = s.index
	fresh.plans = s.plans[:min(len(s.plans), 1)]
	fresh.healing = s.healing.nextLife()
	fresh.deadlines = s.deadlines
	if !last.Fork {
		fresh.former = s.formerLife()
	}
	*s = *fresh
	for _, e := range waiting {
		e.Index = s.index
		s.join(e, fx)
	}
}

// fits reports whether a node with given or with automatic vnodes may be part
// of a cluster with the settings.
func (s Settings) fits(fixed bool) bool { return fixed == (s.Flags&FlagAutoVNode == 0) }

func strategyMismatch(n sheep.Node, s Settings) string {
	if s.Flags&FlagAutoVNode != 0 {
		return fmt.Sprintf("%v has a given number of vnodes, the cluster has automatic weights", n)
	}
	return fmt.Sprintf("%v has automatic weight, the cluster has given numbers of vnodes", n)
}

func (s Settings) created() string {
	return time.Unix(int64(s.Ctime>>32), int64(uint32(s.Ctime))).UTC().Format(time.DateTime)
}

func sameAddrs(a, b []sheep.Node) bool {
	if len(a) != len(b) {
		return false
	}
	for _, n := range b {
		if !slices.ContainsFunc(a, func(m sheep.Node) bool { return m.Addr == n.Addr }) {
			return false
		}
	}
	return true
}

func addrs(nodes []sheep.Node) string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.String()
	}
	return strings.Join(names, ", ")
}
