package vdi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"sheepdog/sheep"
)

// Refresh learns what others have done: a larger size, a snapshot, and what is in
// the map. It fails with sheep.ErrNoVDI if the VDI has gone.
func (d *Disk) Refresh(ctx context.Context) error {
	_, err := d.refresh(ctx)
	return err
}

// refresh returns the head as well.
func (d *Disk) refresh(ctx context.Context) (*head, error) {
	op := d.op()
	defer d.done(op)
	for try := 1; ; try++ {
		h := d.head.Load()
		if h == nil {
			return nil, ErrDiskClosed
		}
		h.cache.forgetAll()
		err := h.alive(ctx, op)
		if err == nil {
			var size uint64
			if size, err = h.readSize(ctx); err == nil {
				d.grow(size)
				return h, nil
			}
		}
		if next := d.again(ctx, h, 0, err); next != nil || try == patience {
			return nil, h.fail("refresh", 0, errors.Join(next, lastly(err, next)))
		}
	}
}

// readSize returns the size that the inode has.
func (h *head) readSize(ctx context.Context) (uint64, error) {
	var b [8]byte
	if err := h.host.Read(ctx, h.ref(), b[:], sizeField); err != nil {
		return 0, fmt.Errorf("read inode of VDI %v: %w", h.vdi.ID, err)
	}
	return min(binary.LittleEndian.Uint64(b[:]), h.maxSize()), nil
}

func (h *head) maxSize() uint64 { return MaxSize(h.vdi.BlockShift, h.vdi.Hyper) }

// Resize makes the disk larger. A smaller size is refused with sheep.ErrInvalid.
func (d *Disk) Resize(ctx context.Context, size uint64) error {
	if _, err := d.beginWrite("resize", 0, 0); err != nil {
		return err
	}
	for try := 1; ; try++ {
		h, err := d.refresh(ctx)
		if err != nil {
			return err
		}
		switch now := d.size.Load(); {
		case size == now:
			return nil
		case size < now:
			return h.fail("resize", 0, fmt.Errorf("%w: it cannot shrink from %d to %d bytes", sheep.ErrInvalid, now, size))
		case size > h.maxSize():
			return h.fail("resize", 0, fmt.Errorf("%w: %d bytes are more than %d", sheep.ErrInvalid, size, h.maxSize()))
		}
		// A snapshot that is taken now has the size, and the head has not: then
		// the next round gives it to the head.
		w := sheep.Write{Off: sizeField, Data: binary.LittleEndian.AppendUint64(nil, size), Durable: true}
		if err := d.host.Write(ctx, h.ref(), &w); err != nil {
			return h.fail("resize", 0, err)
		}
		now, err := d.refresh(ctx)
		if err != nil || now == h || try == patience {
			return err
		}
	}
}
