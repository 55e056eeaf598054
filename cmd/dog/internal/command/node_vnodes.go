package command

import (
	"context"
	"strconv"
)

// nodeVNodesSet sets the number of vnodes of the node.
func nodeVNodesSet(ctx context.Context, s *session) error {
	n, err := strconv.ParseUint(s.args[0], 10, 16)
	if err != nil || n == 0 {
		return fail(ExitUsage, "Invalid number of vnodes '%s': must be an integer between 1 and 65535", s.args[0])
	}
	if err := s.SetVNodes(ctx, uint16(n)); err != nil {
		f := failed(err, "Failed to execute request")
		if f.status == ExitFailure {
			f.status = exitRefused
		}
		return f
	}
	return nil
}

// exitRefused is the status when a node refuses a number of vnodes; a test of
// C Sheepdog's knows it.
const exitRefused = 255
