package command

import (
	"context"
	"strconv"

	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// nodeKill stops a daemon.
func nodeKill(ctx context.Context, s *session) error {
	addr := "" // the node that is asked
	switch {
	case len(s.args) == 0 && !s.opts.local:
		return fail(ExitUsage, "please specify -l option or node id")
	case len(s.args) > 0 && s.opts.local:
		return fail(ExitUsage, "don't use -l option and specify node id at the same time")
	case len(s.args) > 0:
		id, err := strconv.Atoi(s.args[0])
		if err != nil {
			return fail(ExitUsage, "Invalid node id '%s', please specify a numeric value", s.args[0])
		}
		if id < 0 || id >= len(s.nodes.Nodes) {
			return fail(ExitUsage, "Invalid node id '%d'", id)
		}
		addr = remote.Address(s.nodes.Nodes[id])
	}
	if err := s.Simple(ctx, proto.OpKillNode, addr); err != nil {
		return requestFailed(err)
	}
	return nil
}
