package cluster

import (
	"fmt"
	"slices"
	"strings"

	"sheepdog/sheep"
)

// A state is all that the members agree on after some entry of the log. It
// changes by apply alone, which is a function of the state and the entry and
// of nothing else.
type state struct {
	index     uint64 // of the last entry
	status    Status
	started   bool // has been OK since there were no members
	stopping  bool // shuts down when the open plan is done
	settings  Settings
	epoch     sheep.Epoch
	epochTime int64
	forced    sheep.Epoch
	healed    sheep.Epoch  // the newest epoch that all its members were complete for
	nodes     []sheep.Node // of epoch
	deaths    []death      // since every copy was known to be current
	spans     []span       // of the epochs since then
	moved     bool         // objects, since then, to nodes that joined or weigh more

	// turnover says that the entry before was one with More: there is an epoch
	// to begin.
	turnover bool

	former      formerLife
	recoveryOff bool
	healing     healing
	deadlines   deadlines
	members     []*member // in the order of their joins
	waiting     []Entry   // joins that wait for the end of a cluster that shuts down
	vdis        vdiTable
	owners      map[sheep.VDIID]owner
	plans       []*plan // the first one is open
}

// A member is a daemon that has joined and not left.
type member struct {
	inc      sheep.Incarnation
	node     sheep.Node // VNodes as given
	fixed    bool       // VNodes were given by the operator
	joined   uint64
	owed     uint32 // VDIs that it has still to contribute
	complete sheep.Epoch
	proposed sequence
}

// effects tell the runtime what an entry has changed.
type effects struct {
	view     bool // anything that a View shows, but for VDIs
	epoch    bool // there is a new epoch
	format   bool
	shutdown bool
	refused  []refusal
	owners   []ownerChange
	turn     *turn // the open plan has an executor that is to start
	done     []planDone
	reply    *reply // to the proposer of a message
}

type refusal struct {
	member sheep.Incarnation
	reason error
}

type reply struct {
	member    sheep.Incarnation
	seq       uint64
	err       error
	ownership Ownership // of the VDI that the message was about, after it
	plan      bool      // the message was a plan; its outcome comes later
}

func newState() *state {
	return &state{status: Wait, vdis: newVDITable(), owners: map[sheep.VDIID]owner{}, healing: newHealing()}
}

// apply applies the next entry. Entries that make no sense have no effect.
func (s *state) apply(e Entry) effects {
	var fx effects
	if e.Index <= s.index {
		return fx
	}
	s.index = e.Index
	turnover := s.turnover
	s.turnover = false
	switch e.Kind {
	case EntryJoin:
		s.join(e, &fx)
	case EntryLeave:
		s.leave(e, &fx)
	case EntryMessage:
		s.message(e, &fx)
	}
	s.turnover = s.turnover || turnover && e.More
	if turnover && s.status == OK && !fx.epoch && !s.turnover {
		s.beginEpoch(e.Time, &fx) // the next life was refused
	}
	return fx
}

// message applies what a member proposed, once.
func (s *state) message(e Entry, fx *effects) {
	m := s.member(e.Member)
	if m == nil {
		return
	}
	seq, msg, err := decodeMessage(e.Data)
	if err != nil || !m.proposed.add(seq) {
		return
	}
	fx.reply = &reply{member: m.inc, seq: seq}
	fx.reply.err = msg.apply(s, m, &e, fx)
}

func (s *state) member(inc sheep.Incarnation) *member {
	for _, m := range s.members {
		if m.inc == inc {
			return m
		}
	}
	return nil
}

// serving returns the error of requests that need a running cluster.
func (s *state) serving() error {
	v := View{Status: s.status, Epoch: s.epoch}
	return v.Serving()
}

// beginEpoch makes the present members those of a new epoch.
func (s *state) beginEpoch(time int64, fx *effects) {
	s.epoch++
	s.epochTime = time
	present := s.present()
	s.noteMoves(present)
	s.nodes = present
	s.noteZones()
	for _, m := range s.members {
		m.complete = 0
	}
	fx.epoch, fx.view = true, true
}

// present returns the nodes of the members, sorted, with effective vnodes.
func (s *state) present() []sheep.Node {
	nodes := make([]sheep.Node, len(s.members))
	for i, m := range s.members {
		nodes[i] = m.node
	}
	return effective(nodes, s.healing.drained, s.settings)
}

func hasStorage(nodes []sheep.Node) bool {
	return slices.ContainsFunc(nodes, func(n sheep.Node) bool { return n.VNodes > 0 })
}

// String prints the effects as the scripts of the tests show them.
func (fx effects) String() string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, r := range fx.refused {
		add("refused %x: %v", uint64(r.member), r.reason)
	}
	if fx.format {
		add("format")
	}
	if fx.epoch {
		add("epoch")
	} else if fx.view {
		add("view")
	}
	if fx.shutdown {
		add("shutdown")
	}
	for _, o := range fx.owners {
		add("owner of %v: %v -> %v", o.vid, o.old, o.new)
	}
	for _, d := range fx.done {
		add("done %d %q %v", d.index, d.result, d.err)
	}
	if t := fx.turn; t != nil {
		add("turn %d for %x retry=%t", t.index, uint64(t.executor), t.retry)
	}
	if fx.reply != nil && fx.reply.err != nil {
		add("error: %v", fx.reply.err)
	}
	return strings.Join(out, "; ")
}
