package command

import (
	"context"

	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// clusterRecoverForce makes the cluster run without the members that are
// missing.
func clusterRecoverForce(ctx context.Context, s *session) error {
	lost := s.lostMajority(ctx)
	if !s.opts.force {
		if err := s.confirm(forceQuestion + lost.warning() + sure); err != nil {
			return err
		}
	}
	if err := s.forceResult(s.ForceRecover(ctx)); err != nil || lost == nil {
		return err
	}
	return s.awaitSurvivors(ctx, lost)
}

const forceQuestion = "Caution! Please try starting all the cluster nodes normally before\n" +
	"forcing a recovery: what only the missing nodes have will be lost.\n\n" +
	"It is meant for two cases:\n" +
	"  - nodes of the last epoch are gone for good; or\n" +
	"  - nodes refuse to start after a shutdown.\n\n"

// forceResult returns the failure of a request to force recovery.
func (s *session) forceResult(err error) error {
	if remote.Result(err) == proto.ResultForceRecover {
		return fail(ExitFailure, "failed to execute request, %s", remote.Text(err))
	}
	return s.recoverResult(err)
}

// recoverResult returns the failure of a request that controls recovery.
func (s *session) recoverResult(err error) error {
	if err == nil || unreachable(err) {
		return err
	}
	return fail(ExitFailure, "Response's result: %s", remote.Text(err))
}

// clusterRecoverEnable has the cluster recover after membership changes.
func clusterRecoverEnable(ctx context.Context, s *session) error {
	if err := s.Simple(ctx, proto.OpEnableRecover, ""); err != nil {
		return s.recoverResult(err)
	}
	s.print("Cluster recovery: enable\n")
	return nil
}

// clusterRecoverDisable has the cluster not recover after membership changes.
func clusterRecoverDisable(ctx context.Context, s *session) error {
	if err := s.Simple(ctx, proto.OpDisableRecover, ""); err != nil {
		return s.recoverResult(err)
	}
	s.print("Cluster recovery: disable\n")
	return nil
}
