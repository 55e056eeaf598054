package command

import (
	"context"

	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// clusterShutdown stops all daemons.
func clusterShutdown(ctx context.Context, s *session) error {
	err := s.Simple(ctx, proto.OpShutdown, "")
	if unreachable(err) {
		return fail(ExitSystem, "failed to execute request")
	}
	if err != nil {
		return fail(ExitFailure, "failed to execute request, %s", remote.Text(err))
	}
	return nil
}
