package command

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"sheepdog/sheep/listing"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/size"
)

// A recoveryRow is a node in recovery; its JSON form is fixed.
type recoveryRow struct {
	nodeRow
	Finished uint64 `json:"finished"` // objects
	Total    uint64 `json:"total"`

	Bytes  uint64  `json:"bytes"`      // fetched
	Left   uint64  `json:"bytes_left"` // at most
	Rate   uint64  `json:"bytes_per_second"`
	ETA    float64 `json:"eta_seconds"`     // 0 if not known
	Later  uint64  `json:"waiting_objects"` // for absent nodes
	Awaits float64 `json:"waits_seconds"`   // for them, still; -1 is for ever

	active  bool
	err     error
	healing proto.Healing
}

// nodeRecoveryInfo shows which nodes are in recovery.
func nodeRecoveryInfo(ctx context.Context, s *session) error {
	switch {
	case s.opts.progress:
		return s.followRecovery(ctx)
	case s.opts.watch && !s.opts.json:
		return s.watchRecovery(ctx)
	}
	rows, status := s.recoveryRows(ctx)
	if s.opts.json {
		if err := s.writeJSON(rows); err != nil {
			return err
		}
	} else {
		s.printRecoveries(rows)
	}
	if status != ExitSuccess {
		return quiet(status)
	}
	return nil
}

// recoveryRows asks all nodes, and returns those that are in recovery. It warns of
// nodes that do not answer.
func (s *session) recoveryRows(ctx context.Context) (rows []recoveryRow, status int) {
	rows = []recoveryRow{}
	for r := range remote.Ordered(slices.Values(s.nodeRows()), queryWidth, func(n nodeRow) recoveryRow {
		state, err := s.Recovery(ctx, remote.Address(s.nodes.Nodes[n.ID]))
		r := recoveryRow{nodeRow: n, Finished: state.Finished, Total: state.Total, active: state.Active, err: err}
		if r.active {
			r.heal(s.Healing(ctx, remote.Address(s.nodes.Nodes[n.ID])))
		}
		return r
	}) {
		if r.err != nil {
			f := failed(r.err, "Failed to get recovery state of node %d: %s", r.ID, remote.Text(r.err))
			s.warn("%v", f)
			status = f.status
		} else if r.active {
			rows = append(rows, r)
		}
	}
	return rows, status
}

func (s *session) printRecoveries(rows []recoveryRow) {
	if !s.opts.raw {
		s.print("%s", listing.Recoveries)
	}
	for _, r := range rows {
		s.printRecovery(r)
	}
}

// watchRecovery shows all nodes that are in recovery, every second, until none can
// go on. On a terminal each picture takes the place of the one before.
func (s *session) watchRecovery(ctx context.Context) error {
	for lines := 0; ; {
		rows, status := s.recoveryRows(ctx)
		switch {
		case status != ExitSuccess:
			lines = 0 // a warning follows them
		case lines > 0 && s.app.env.StdoutWidth > 0:
			s.print("\x1b[%dA\x1b[J", lines)
		}
		s.printRecoveries(rows)
		if err := s.out.Flush(); err != nil {
			return fail(ExitSystem, "Failed to write the output: %v", err)
		}
		if !slices.ContainsFunc(rows, recoveryRow.goesOn) && status == ExitSuccess {
			return nil
		}
		lines = strings.Count(listing.Recoveries, "\n") + len(rows)
		if err := s.app.env.Pause(ctx, time.Second); err != nil {
			return nil // an interrupt is how watching ends
		}
		var err error
		if s.nodes, err = s.Membership(ctx); err != nil {
			return requestFailed(err)
		}
	}
}

// goesOn reports whether the node has something to do but wait.
func (r recoveryRow) goesOn() bool { return !waits(r.healing) || r.Finished+r.Later < r.Total }

func (s *session) printRecovery(r recoveryRow) {
	n := s.nodes.Nodes[r.ID]
	if s.opts.raw {
		s.print("%d %v %d %d %d %d\n", r.ID, n, r.VNodes, r.Zone, r.Finished, r.Total)
		return
	}
	line := listing.Recovery(r.ID, n, proto.RecoveryState{Finished: r.Finished, Total: r.Total})
	s.print("%s%s\n", strings.TrimSuffix(line, "\n"), r.details())
}

// heal takes note of what C Sheepdog does not tell.
func (r *recoveryRow) heal(h proto.Healing, err error) {
	if err != nil {
		return
	}
	r.healing = h
	r.Bytes, r.Left, r.Rate, r.ETA, r.Later = h.Bytes, h.Left, h.Rate, h.ETA.Seconds(), h.Later
	if left := leastLeft(h); left == proto.Forever {
		r.Awaits = -1
	} else if h.Later > 0 {
		r.Awaits = left.Seconds()
	}
}

// leastLeft returns how long it is until the first of the absent nodes is not
// waited for any more.
func leastLeft(h proto.Healing) time.Duration {
	if h.Later == 0 || len(h.Absent) == 0 {
		return 0
	}
	return slices.MinFunc(h.Absent, func(a, b proto.AbsentNode) int { return cmp.Compare(a.Left, b.Left) }).Left
}

// details returns what follows C's columns.
func (r *recoveryRow) details() string {
	var b strings.Builder
	if r.Total > 0 {
		fmt.Fprintf(&b, "  %d/%d objects", r.Finished, r.Total)
	}
	if r.Bytes > 0 {
		fmt.Fprintf(&b, ", %s fetched", size.Human(r.Bytes))
	}
	if r.Left > 0 && r.Rate > 0 {
		fmt.Fprintf(&b, ", %s/s", size.Human(r.Rate))
	}
	if r.ETA >= 1 {
		fmt.Fprintf(&b, ", %s left", shortDuration(r.healing.ETA))
	}
	if waits(r.healing) {
		fmt.Fprintf(&b, "; %s", waitText(r.healing))
	}
	return b.String()
}

// waits reports whether there are objects that wait for absent nodes.
func waits(h proto.Healing) bool { return h.Later > 0 && len(h.Absent) > 0 }

// waitText says what waits for absent nodes.
func waitText(h proto.Healing) string {
	var names []string
	for _, a := range h.Absent {
		names = append(names, a.Node.String())
	}
	if leastLeft(h) == proto.Forever {
		return fmt.Sprintf("%d objects wait until %s is back", h.Later, strings.Join(names, " or "))
	}
	return fmt.Sprintf("%d objects wait for %s for %s", h.Later, strings.Join(names, " and "), shortDuration(leastLeft(h)))
}

// followRecovery shows how the recovery of the node goes until it is done.
func (s *session) followRecovery(ctx context.Context) error {
	var bar *progress
	phase := proto.RecoveryPhase(math.MaxUint32)
	for {
		state, err := s.Recovery(ctx, "")
		if err != nil {
			return requestFailed(err)
		}
		if h, err := s.Healing(ctx, ""); err == nil && waits(h) && h.Finished+h.Later >= h.Total {
			bar.finish()
			s.print("%s\n", waitText(h))
			return nil
		}
		if !state.Active {
			bar.finish()
			return nil
		}
		if state.Phase != phase {
			phase = state.Phase
			switch phase {
			case proto.RecoveryPreparing:
				s.print("preparing a checked object list...\n")
			case proto.RecoveryNotifying:
				s.print("notifying a completion of recovery...\n")
			}
		}
		if phase == proto.RecoveryRunning {
			if bar == nil {
				bar = s.newProgress(s.out, s.app.env.StdoutWidth, state.Total, func(n uint64) string { return fmt.Sprint(n) })
			}
			bar.set(state.Finished)
		}
		if err := s.app.env.Pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

// A waitingRow is an object that a node cannot make current; its JSON form is
// fixed.
type waitingRow struct {
	nodeRow
	Object string `json:"object"` // empty for those of which no present node may know
	Since  int64  `json:"since"`  // seconds since 1970
	Reason string `json:"reason"`
}

// nodeRecoveryWaiting shows the objects that recovery cannot make current yet.
func nodeRecoveryWaiting(ctx context.Context, s *session) error {
	type answer struct {
		node nodeRow
		list proto.WaitingList
		err  error
	}
	rows := []waitingRow{}
	status := ExitSuccess
	if !s.opts.raw && !s.opts.json {
		s.print("  Id   Object            Since                Reason\n")
	}
	for a := range remote.Ordered(slices.Values(s.nodeRows()), queryWidth, func(n nodeRow) answer {
		list, err := s.Waiting(ctx, remote.Address(s.nodes.Nodes[n.ID]))
		return answer{n, list, err}
	}) {
		if a.err != nil {
			f := failed(a.err, "Failed to get what node %d waits for: %s", a.node.ID, remote.Text(a.err))
			s.warn("%v", f)
			status = f.status
			continue
		}
		for _, o := range a.list.Objects {
			row := waitingRow{nodeRow: a.node, Since: o.Since, Reason: o.Reason}
			if o.ID != 0 {
				row.Object = o.ID.String()
			}
			rows = append(rows, row)
			s.printWaiting(row)
		}
		if more := int(a.list.Total) - len(a.list.Objects); more > 0 {
			s.warn("node %d has %d more", a.node.ID, more)
		}
	}
	if s.opts.json {
		if err := s.writeJSON(rows); err != nil {
			return err
		}
	}
	if status != ExitSuccess {
		return quiet(status)
	}
	return nil
}

func (s *session) printWaiting(r waitingRow) {
	reason := strings.ReplaceAll(r.Reason, "\n", "; ")
	switch {
	case s.opts.json:
	case s.opts.raw:
		s.print("%d %s %d %s\n", r.ID, cmp.Or(r.Object, "-"), r.Since, reason)
	default:
		s.print("%4d   %-16s  %s  %s\n", r.ID, cmp.Or(r.Object, "any other"), time.Unix(r.Since, 0).In(s.app.env.Location).Format(time.DateTime), reason)
	}
}
