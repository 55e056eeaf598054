package command

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"sheepdog/sheep/listing"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// A recoveryRow is a node in recovery; its JSON form is fixed.
type recoveryRow struct {
	nodeRow
	Finished uint64 `json:"finished"` // objects
	Total    uint64 `json:"total"`

	active bool
	err    error
}

// nodeRecoveryInfo shows which nodes are in recovery.
func nodeRecoveryInfo(ctx context.Context, s *session) error {
	if s.opts.progress {
		return s.followRecovery(ctx)
	}
	if !s.opts.raw && !s.opts.json {
		s.print("%s", listing.Recoveries)
	}
	rows := []recoveryRow{}
	status := ExitSuccess
	for r := range remote.Ordered(slices.Values(s.nodeRows()), queryWidth, func(n nodeRow) recoveryRow {
		state, err := s.Recovery(ctx, remote.Address(s.nodes.Nodes[n.ID]))
		return recoveryRow{nodeRow: n, Finished: state.Finished, Total: state.Total, active: state.Active, err: err}
	}) {
		if r.err != nil {
			f := failed(r.err, "Failed to get recovery state of node %d: %s", r.ID, remote.Text(r.err))
			s.warn("%v", f)
			status = f.status
			continue
		}
		if !r.active {
			continue
		}
		rows = append(rows, r)
		s.printRecovery(r)
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

func (s *session) printRecovery(r recoveryRow) {
	n := s.nodes.Nodes[r.ID]
	switch {
	case s.opts.json:
	case s.opts.raw:
		s.print("%d %v %d %d %d %d\n", r.ID, n, r.VNodes, r.Zone, r.Finished, r.Total)
	default:
		s.print("%s", listing.Recovery(r.ID, n, proto.RecoveryState{Finished: r.Finished, Total: r.Total}))
	}
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

// nodeGetThrottle shows how recovery is held back.
func nodeGetThrottle(ctx context.Context, s *session) error {
	t, err := s.Throttle(ctx)
	if err != nil {
		return requestFailed(err)
	}
	s.print("max (%d), interval (%d)\n", t.Max, t.Interval)
	return nil
}

// nodeSetThrottle holds recovery back.
func nodeSetThrottle(ctx context.Context, s *session) error {
	most, err := strconv.ParseUint(s.args[0], 10, 32)
	if err != nil {
		return fail(ExitUsage, "Invalid max (%s)", s.args[0])
	}
	if len(s.args) < 2 {
		return fail(ExitUsage, "Invalid interval max (%d), interval ((null))", most)
	}
	interval, err := strconv.ParseUint(s.args[1], 10, 63)
	if err != nil {
		return fail(ExitUsage, "Invalid interval (%s)", s.args[1])
	}
	if (most == 0) != (interval == 0) {
		return fail(ExitUsage, "Invalid interval max (%d), interval (%d)", most, interval)
	}
	if err := s.SetThrottle(ctx, proto.Throttle{Max: uint32(most), Interval: interval}); err != nil {
		return requestFailed(err)
	}
	return nil
}

// A waitingRow is an object that a node cannot make current; its JSON form is
// fixed.
type waitingRow struct {
	nodeRow
	Object string `json:"object"`
	Since  int64  `json:"since"` // seconds since 1970
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
			row := waitingRow{a.node, o.ID.String(), o.Since, o.Reason}
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
		s.print("%d %s %d %s\n", r.ID, r.Object, r.Since, reason)
	default:
		s.print("%4d   %s  %s  %s\n", r.ID, r.Object, time.Unix(r.Since, 0).In(s.app.env.Location).Format(time.DateTime), reason)
	}
}
