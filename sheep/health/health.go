// Package health says how a cluster is, for people and for monitors.
//
// A diagnosis asks every node what it knows of itself and compares the nodes
// with what the disks want. Its verdict is one word, and the worst that was
// found decides; each thing that was found is a reason, in words. It is there to
// be asked when all else fails, so it never fails itself: who does not answer is
// a finding.
package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/listing"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/size"
)

// A Level is how well a cluster is, from good to bad.
type Level int

// The levels.
const (
	OK          Level = iota
	Recovering        // copies are being made or compared
	Degraded          // it serves, but has lost redundancy or soon will
	Stopped           // it does not serve: unformatted, waiting for members, or shutting down
	Unreachable       // no sheep answers
)

func (l Level) String() string {
	return [...]string{"ok", "recovering", "degraded", "stopped", "unreachable"}[l]
}

// NearlyFull is the part of a node's space, in percent, from which on it is worth
// a warning.
const NearlyFull = 90

// A Report is what a diagnosis has found.
type Report struct {
	Level   Level
	Reasons []string // in the order in which they were found; also what is merely worth knowing

	VDIs       []VDI            // those with objects that are not as they should be, ascending
	Unreadable []sheep.ObjectID // the objects that nobody can read at present, ascending
	Plans      uint64           // cluster operations that are open
}

func (r *Report) find(l Level, format string, args ...any) {
	r.Level = max(r.Level, l)
	r.Reasons = append(r.Reasons, fmt.Sprintf(format, args...))
}

// Diagnose asks the nodes of the cluster, until ctx is done.
func Diagnose(ctx context.Context, c *remote.Cluster) Report {
	var r Report
	members, err := c.Membership(ctx)
	if err != nil {
		r.find(Unreachable, "no sheep answers: %v", err)
		return r
	}
	epochs, state, err := c.Epochs(ctx, members.Epoch, len(members.Nodes))
	switch {
	case err != nil:
		r.find(Unreachable, "the state of the cluster is not known: %v", err)
	case state != nil:
		r.find(Stopped, "%s", remote.Text(state))
	case len(epochs) > 0:
		r.epochs(epochs)
	}
	if err == nil && state == nil {
		r.redundancy(ctx, c, members.Nodes)
		r.nodes(ctx, c, members.Nodes)
	}
	return r
}

// epochs says what the history tells.
func (r *Report) epochs(epochs []proto.EpochRecord) {
	if epochs[0].RecoveryDisabled {
		r.find(Degraded, "recovery is disabled: dog cluster recover enable")
	}
	if len(epochs) < 2 {
		return
	}
	for _, n := range epochs[1].Nodes {
		if !slices.ContainsFunc(epochs[0].Nodes, func(o sheep.Node) bool { return o.Addr == n.Addr }) {
			r.find(OK, "node %v is gone since epoch %d, %s", n, epochs[0].Epoch, epochs[0].Time.Format(time.DateTime))
		}
	}
}

// redundancy says whether there are nodes for all copies.
func (r *Report) redundancy(ctx context.Context, c *remote.Cluster, nodes []sheep.Node) {
	states, err := c.States(ctx)
	if err != nil {
		r.find(Degraded, "the disks are not known: %v", err)
		return
	}
	have, short, want := zones(nodes), 0, 0
	for _, s := range states {
		p, err := sheep.PolicyFromWire(s.Copies, s.CopyPolicy)
		if err == nil && !s.Deleted && p.Width() > have {
			short++
			want = max(want, p.Width())
		}
	}
	if short > 0 {
		r.find(Degraded, "%d disks and snapshots want up to %d copies, and there are %d zones", short, want, have)
	}
}

// zones returns in how many zones the nodes store data.
func zones(nodes []sheep.Node) int {
	seen := make(map[sheep.ZoneID]bool)
	for _, n := range nodes {
		if n.VNodes > 0 {
			seen[n.Zone] = true
		}
	}
	return len(seen)
}

// askWidth is how many nodes are asked at once.
const askWidth = 16

// An answer is what a node has said.
type answer struct {
	node     sheep.Node
	recovery proto.RecoveryState
	waiting  proto.WaitingList
	space    listing.Space
	full     string // near full, or full
	damage   proto.DamageReport
	scrub    proto.ScrubReport
	healing  proto.Healing
	err      error
}

// nodes asks every node how it is.
func (r *Report) nodes(ctx context.Context, c *remote.Cluster, nodes []sheep.Node) {
	ask := func(n sheep.Node) answer {
		a := answer{node: n}
		if a.recovery, a.err = c.Recovery(ctx, remote.Address(n)); a.err != nil {
			return a
		}
		if a.recovery.Active {
			if a.waiting, a.err = c.Waiting(ctx, remote.Address(n)); a.err != nil {
				return a
			}
		}
		a.healing, _ = c.Healing(ctx, remote.Address(n)) // C's daemons have none
		size, free, err := c.Space(ctx, n)
		a.space, a.err = listing.SpaceOf(size, free), err
		if room, err := c.Room(ctx, remote.Address(n)); err == nil { // C's daemons do not tell
			a.full, a.space = room.Full(), listing.SpaceOf(room.Size, room.Free)
		}
		a.scrub, _ = c.Scrub(ctx, remote.Address(n))
		a.damage, _ = c.Damage(ctx, remote.Address(n))
		return a
	}
	var all []answer
	var d damage
	for a := range remote.Ordered(slices.Values(nodes), askWidth, ask) {
		all = append(all, a)
		r.node(a)
		d.add(a.damage)
	}
	r.damage(d, func(id sheep.VDIID) string {
		h, err := c.Header(ctx, id)
		if err != nil {
			return ""
		}
		return h.Name
	})
	r.suspects(ctx, c)
	r.healing(all)
}

// node says what a node's answer tells. A node that counts its objects and finds
// none, as each does after a format, recovers nothing.
func (r *Report) node(a answer) {
	since := func(w proto.WaitingObject) string { return time.Unix(w.Since, 0).Format(time.DateTime) }
	waiting := a.waiting.Objects
	unknown := len(waiting) > 0 && waiting[0].ID == 0
	if unknown {
		r.find(Degraded, "node %v is not done with recovery since %s: %s", a.node, since(waiting[0]), waiting[0].Reason)
		waiting = waiting[1:]
		a.waiting.Total--
	}
	switch {
	case errors.Is(a.err, sheep.ErrWaitForFormat):
	case a.err != nil:
		r.find(Degraded, "node %v does not answer: %v", a.node, a.err)
	case len(waiting) > 0:
		r.find(Degraded, "node %v cannot make %d objects current, the first of them since %s: %s",
			a.node, a.waiting.Total, since(waiting[0]), waiting[0].Reason)
	case (unknown || a.healing.Later > 0) && a.recovery.Finished+a.healing.Later >= a.recovery.Total: // it does nothing
	case a.recovery.Active && a.recovery.Total > 0:
		r.find(Recovering, "node %v is in recovery: %d of %d objects", a.node, a.recovery.Finished, a.recovery.Total)
	}
	switch used := listing.Percent(a.space.Used, a.space.Size); {
	case a.full != "":
		r.find(Degraded, "the disk of node %v is %s, %s are free", a.node, a.full, size.Human(a.space.Free))
	case used >= NearlyFull:
		r.find(Degraded, "node %v is full to %d %%", a.node, used)
	}
	if n := len(a.scrub.Left); n > 0 {
		r.find(Degraded, "the copies of %d objects differ, and only a person can tell which is right; the first is %v: dog vdi check", n, a.scrub.Left[0])
	}
}
