package attach

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Detach ends a device after it has written back what the kernel has cached for
// it. It refuses with ErrBusy while the device is mounted or otherwise in use,
// unless force is set; then nothing is written back either.
func (h Host) Detach(ctx context.Context, index uint32, force bool) error {
	d, err := h.Device(index)
	if err != nil {
		return err
	}
	if !force {
		if err := writeBack(d.Path); err != nil {
			return err
		}
	}
	k, err := h.kernel(ctx)
	if err != nil {
		return err
	}
	defer k.Close()
	err = k.Disconnect(ctx, index)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("detach %s: %w: run it as root", d.Path, ErrRights)
	}
	if err != nil {
		return fmt.Errorf("detach %s: the kernel refuses: %w", d.Path, err)
	}
	return nil
}

// writeBack claims a device for itself, which works if nobody else has, and has
// the kernel write what it has cached.
func writeBack(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s: %w: unmount it first", path, ErrBusy)
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
