package command

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// defaultCopies is the redundancy of a cluster that was given none.
const defaultCopies = 3

// caution draws the warning that comes before questions of consequence.
func caution(lines ...string) string {
	drawing := []string{`    __`, `   ()'` + "`" + `;`, `   /\|` + "`", `  /  |   `, `(/_)_|_  `}
	at := len(drawing) - len(lines)
	for i, line := range lines {
		drawing[at+i] = fmt.Sprintf("%-9s%s", drawing[at+i], line)
	}
	return strings.Join(drawing, "\n")
}

const sure = "Are you sure you want to continue? [yes/no]: "

// clusterFormat makes a new, empty cluster of the nodes.
func clusterFormat(ctx context.Context, s *session) error {
	if err := s.checkStrategy(ctx); err != nil {
		return err
	}
	policy := sheep.Replicated(defaultCopies)
	if s.opts.hasPolicy {
		policy = s.opts.policy
	}
	if have := zones(s.nodes.Nodes); policy.Width() > have {
		if err := s.confirm(fmt.Sprintf("Number of copies (%d) is larger than number of zones (%d).\n%s", policy.Width(), have, sure)); err != nil {
			return err
		}
	}
	if !s.opts.force {
		if err := s.confirmLoss(ctx); err != nil {
			return err
		}
	}
	if err := s.checkStore(ctx); err != nil {
		return err
	}
	s.print("using backend %s store\n", s.opts.store)
	copies, copyPolicy := policy.Wire()
	body := proto.ClusterBody{
		Ctime: proto.WireTime(s.app.env.Now()), Copies: copies, CopyPolicy: copyPolicy,
		Flags: s.formatFlags(), BlockShift: s.opts.shift,
	}
	if err := s.Format(ctx, s.opts.store, body); err != nil {
		f := failed(err, "Format failed: %s", remote.Text(err))
		if remote.Result(err) != proto.ResultNotSupported {
			f.status = ExitSystem
		}
		return f
	}
	return nil
}

// checkStrategy refuses a strategy for vnodes that is not the nodes'.
func (s *session) checkStrategy(ctx context.Context) error {
	for _, n := range s.nodes.Nodes {
		info, err := s.Info(ctx, remote.Address(n))
		if err != nil {
			return failed(err, "Failed to get the information of node %v: %s", n, remote.Text(err))
		}
		auto := info.Flags&proto.ClusterAutoVNodes != 0
		if auto && s.opts.fixedVNodes {
			return fail(ExitFailure, "Can not apply the option of '-V', because there are vnode strategy of sheep is auto in the cluster")
		}
		if !auto && !s.opts.fixedVNodes {
			return fail(ExitFailure, "Need to specify the option of '-V', because there are vnode strategy of sheep is fixed in the cluster")
		}
	}
	return nil
}

// confirmLoss asks before VDIs are lost.
func (s *session) confirmLoss(ctx context.Context) error {
	used, err := s.Used(ctx)
	if err != nil {
		return failed(err, "Failed to find out whether the cluster is empty: %s", remote.Text(err))
	}
	if len(bytes.Trim(used, "\x00")) == 0 {
		return nil
	}
	return s.confirm(caution("Caution! The cluster is not empty.", sure))
}

// checkStore refuses a store that the daemons do not have.
func (s *session) checkStore(ctx context.Context) error {
	list, err := s.Stores(ctx)
	if err != nil || slices.Contains(strings.Fields(list), s.opts.store) {
		return nil // without a list, the daemon has the say
	}
	s.print("Available stores:\n%s\n%s\n", strings.Repeat("-", 39), list)
	return fail(ExitSystem, "Format failed: %s", proto.ResultNoStore)
}

func (s *session) formatFlags() proto.ClusterFlags {
	var flags proto.ClusterFlags
	for _, f := range []struct {
		on   bool
		flag proto.ClusterFlags
	}{
		{s.opts.strict, proto.ClusterStrict},
		{!s.opts.fixedVNodes, proto.ClusterAutoVNodes},
		{s.opts.lock, proto.ClusterLock},
		{s.opts.recycle, proto.ClusterRecycleVIDs},
		{s.opts.avoidDiskFull, proto.ClusterAvoidDiskFull},
	} {
		if f.on {
			flags |= f.flag
		}
	}
	return flags
}
