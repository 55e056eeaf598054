package command

import "context"

// nbdResize tells the kernel the size of the disk behind a device.
func nbdResize(ctx context.Context, s *session) error {
	d, err := s.attached(s.name())
	if err != nil {
		return err
	}
	if _, err := s.app.env.Host.Resize(ctx, d.Index, s.opts.nbd.addrs); err != nil {
		return nbdFailed(err)
	}
	return nil
}
