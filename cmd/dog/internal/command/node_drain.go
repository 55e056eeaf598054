package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/size"
)

// nodeDrain has a node hold nothing any more and shows how its data moves to the
// others, until nothing depends on it.
func nodeDrain(ctx context.Context, s *session) error {
	n, err := s.findNode(s.args[0])
	if err != nil {
		return err
	}
	if s.opts.undo {
		if err := s.Drain(ctx, n, true); err != nil {
			return requestFailed(err)
		}
		s.print("Node %v is to hold as much as its weight says.\n", n)
		return nil
	}
	h, err := s.Healing(ctx, "")
	if err != nil {
		return requestFailed(err)
	}
	if h.Bits&proto.HealingDisabled != 0 {
		return fail(ExitFailure, "Recovery is disabled, no data would move: dog cluster recover enable")
	}
	if !h.IsDrained(n) {
		if err := s.drainable(ctx, n); err != nil {
			return err
		}
		if err := s.Drain(ctx, n, false); err != nil {
			switch remote.Result(err) {
			case proto.ResultHalt:
				return fail(ExitFailure, "The other nodes have too few zones for all copies")
			case proto.ResultInvalid:
				return fail(ExitFailure, "No node that stores data is at %v", n)
			}
			return requestFailed(err)
		}
	}
	return s.followDrain(ctx, n)
}

// drainable returns why the other nodes cannot take over what n holds.
func (s *session) drainable(ctx context.Context, n sheep.Node) error {
	if n.VNodes == 0 {
		return fail(ExitFailure, "No node that stores data is at %v", n)
	}
	others := slices.DeleteFunc(slices.Clone(s.nodes.Nodes), func(o sheep.Node) bool { return o.Addr == n.Addr || o.VNodes == 0 })
	zones := make(map[sheep.ZoneID]bool)
	for _, o := range others {
		zones[o.Zone] = true
	}
	states, err := s.States(ctx)
	if err != nil {
		return failed(err, "Failed to get the states of the VDIs: %s", remote.Text(err))
	}
	short, want := 0, 0
	for _, v := range states {
		if p, err := sheep.PolicyFromWire(v.Copies, v.CopyPolicy); err == nil && !v.Deleted && p.Width() > len(zones) {
			short++
			want = max(want, p.Width())
		}
	}
	if short > 0 {
		return fail(ExitFailure, "%d disks and snapshots want up to %d copies, and the other nodes are in %d zones", short, want, len(zones))
	}
	return s.spacious(ctx, n, others)
}

// spacious returns an error if the others have no room for what n has.
func (s *session) spacious(ctx context.Context, n sheep.Node, others []sheep.Node) error {
	total, free, err := s.Space(ctx, n)
	if err != nil {
		return failed(err, "Failed to get the space of node %v: %s", n, remote.Text(err))
	}
	var room uint64
	for _, o := range others {
		_, f, err := s.Space(ctx, o)
		if err != nil {
			return failed(err, "Failed to get the space of node %v: %s", o, remote.Text(err))
		}
		room += f
	}
	if used := total - min(free, total); used > room && !s.opts.force {
		return fail(ExitFailure, "Node %v has %s of data and the others have room for %s (-f drains it all the same)", n, size.Human(used), size.Human(room))
	}
	return nil
}

// followDrain shows the progress of all nodes until nothing depends on n.
func (s *session) followDrain(ctx context.Context, n sheep.Node) error {
	var bar *progress
	var told string
	for {
		h, err := s.Healing(ctx, "")
		switch {
		case err == nil && !h.IsDrained(n):
			return fail(ExitFailure, "The drain of node %v was undone", n)
		case err == nil && h.Bits&proto.HealingDisabled != 0:
			return fail(ExitFailure, "Recovery was disabled, no data moves any more: dog cluster recover enable")
		case err == nil && h.Bits&proto.HealingAll != 0:
			bar.finish()
			s.print("Nothing depends on node %v any more, it may be stopped.\n", n)
			return nil
		case err != nil && ctx.Err() != nil:
			return s.drainInterrupted(n)
		case err != nil:
			return requestFailed(err)
		}
		done, total := s.moved(ctx)
		if bar == nil {
			bar = s.newProgress(s.out, s.app.env.StdoutWidth, total, func(n uint64) string { return fmt.Sprint(n) })
		}
		if bar != nil && total > 0 && done < total { // the end is not when the objects are done
			bar.total = max(bar.total, total)
			bar.set(done)
		}
		if waits := absenceLines(h); waits != "" && told == "" && h.Later > 0 {
			told = waits
			s.warn("%s", waits[:len(waits)-1])
		}
		if err := s.app.env.Pause(ctx, time.Second); err != nil {
			if errors.Is(err, context.Canceled) {
				return s.drainInterrupted(n)
			}
			return err
		}
	}
}

func (s *session) drainInterrupted(n sheep.Node) error {
	return fail(ExitSystem, "Interrupted. The drain goes on: 'dog node drain %v' shows it, --undo ends it", n)
}

// moved returns how many objects the nodes have and should have, together. A node
// that does not answer counts for nothing.
func (s *session) moved(ctx context.Context) (done, total uint64) {
	members, err := s.Membership(ctx)
	if err != nil {
		return 0, 0
	}
	for h := range remote.Ordered(slices.Values(members.Nodes), queryWidth, func(n sheep.Node) proto.Healing {
		h, _ := s.Healing(ctx, remote.Address(n)) // none counts for nothing
		return h
	}) {
		done += h.Finished
		total += h.Total
	}
	return done, total
}
