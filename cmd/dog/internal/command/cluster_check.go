package command

import (
	"context"
	"errors"
)

// clusterCheck compares and repairs the copies of all VDIs.
func clusterCheck(ctx context.Context, s *session) error {
	all, err := s.headers(ctx)
	if err != nil {
		return s.listFailed(err)
	}
	var damaged error
	for _, h := range all {
		if ctx.Err() != nil {
			return interrupted()
		}
		if h.Snapshot() {
			s.print("fix snapshot %s (id: %d, tag: \"%s\")\n", h.Name, h.SnapID, h.Tag)
		} else {
			s.print("fix vdi %s\n", h.Name)
		}
		err := s.checkVDI(ctx, h)
		if f, ok := errors.AsType[*failure](err); ok {
			for _, line := range f.lines {
				s.warn("%s", line)
			}
			err = quiet(f.status)
		}
		if err != nil {
			damaged = err
		}
	}
	// Objects that no VDI refers to any more are not looked for yet; they
	// belong here, after every VDI has been checked.
	return damaged
}
