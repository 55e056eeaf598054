package command

import (
	"context"
	"errors"
)

// clusterCheck compares and repairs the copies of all VDIs. Then it looks for
// objects that none of them refers to.
func clusterCheck(ctx context.Context, s *session) error {
	all, err := s.headers(ctx)
	if err != nil {
		return s.listFailed(err)
	}
	var damaged error
	checked := new(idSet)
	for _, h := range all {
		if ctx.Err() != nil {
			return interrupted()
		}
		if h.Snapshot() {
			s.print("fix snapshot %s (id: %d, tag: \"%s\")\n", h.Name, h.SnapID, h.Tag)
		} else {
			s.print("fix vdi %s\n", h.Name)
		}
		err := s.checkVDI(ctx, h, checked, false)
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
	return s.checkLeaks(ctx, damaged)
}
