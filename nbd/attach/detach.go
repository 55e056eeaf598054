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

// Resize tells the kernel the size that the export has now and returns it. It
// asks the given servers, or else the one that the device was attached to.
func (h Host) Resize(ctx context.Context, index uint32, addrs []Address) (uint64, error) {
	d, err := h.Device(index)
	if err != nil {
		return 0, err
	}
	addrs, export, err := d.source(addrs)
	if err != nil {
		return 0, err
	}
	var info Info
	var failed []error
	for _, a := range addrs {
		if info, err = Stat(ctx, a, export); err == nil {
			break
		}
		failed = append(failed, err)
	}
	if err != nil {
		return 0, all(failed)
	}
	k, err := h.kernel(ctx)
	if err != nil {
		return 0, err
	}
	defer k.Close()
	size := info.Size &^ (sector - 1)
	if err := k.Reconfigure(ctx, index, Connection{Size: size, Backend: d.URI}); err != nil {
		return 0, fmt.Errorf("resize %s: the kernel refuses: %w", d.Path, err)
	}
	return size, nil
}

// source returns the servers of the device and the name of its export.
func (d Device) source(addrs []Address) ([]Address, string, error) {
	if d.URI == "" {
		return nil, "", fmt.Errorf("%s: the kernel does not know what it is attached to", d.Path)
	}
	at, export, err := ParseURI(d.URI)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", d.Path, err)
	}
	if len(addrs) == 0 {
		addrs = []Address{at}
	}
	return addrs, export, nil
}
