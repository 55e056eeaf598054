package command

import "context"

// nbdDetach ends a device.
func nbdDetach(ctx context.Context, s *session) error {
	d, err := s.attached(s.name())
	if err != nil {
		return err
	}
	if err := s.app.env.Host.Detach(ctx, d.Index, s.opts.force); err != nil {
		return nbdFailed(err)
	}
	return nil
}
