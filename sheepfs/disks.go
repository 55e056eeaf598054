package sheepfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/vdi"
)

// disks are the disks that processes have open. All who have a disk open share one
// vdi.Disk: they see one map, and a flush by one of them covers the writes of all.
// The first who may write takes the lock of a disk in clusters that lock, and the
// last gives it back.
type disks struct {
	roaming  *client.Roaming
	patience time.Duration // with the cluster when a disk is closed
	log      *slog.Logger

	mu     sync.Mutex
	slots  map[selection]*diskSlot // guarded by mu; those with users
	closed bool                    // guarded by mu
}

// A diskSlot is the place of a disk that is open, or being opened or closed.
type diskSlot struct {
	sel   selection
	users int // guarded by disks.mu

	turn    chan struct{} // has room for one: whoever opens or closes
	current *openDisk     // of whoever has the turn; nil if none is open
}

func newDisks(r *client.Roaming, patience time.Duration, log *slog.Logger) *disks {
	return &disks{roaming: r, patience: patience, log: log, slots: make(map[selection]*diskSlot)}
}

// open returns the disk of sel. Who wants to write becomes a writer, of whom only
// one sheepfs has any in clusters that lock. The caller releases what it gets.
func (s *disks) open(ctx context.Context, sel selection, write bool) (*openDisk, error) {
	slot, err := s.enter(sel)
	if err != nil {
		return nil, err
	}
	d, err := s.join(ctx, slot, write)
	if err != nil {
		s.leave(slot)
	}
	return d, err
}

// join makes the caller a user of the slot's disk, opening it if none is open.
func (s *disks) join(ctx context.Context, slot *diskSlot, write bool) (*openDisk, error) {
	if err := slot.take(ctx); err != nil {
		return nil, err
	}
	defer slot.give()
	d := slot.current
	if d != nil {
		switch err := d.refresh(ctx); {
		case errors.Is(err, sheep.ErrNoVDI):
			d = nil // another disk has the name by now; those who have the old one open find out
		case err != nil:
			return nil, err
		}
	}
	if d == nil {
		var err error
		if d, err = s.openAnew(ctx, slot); err != nil {
			return nil, err
		}
	}
	if write {
		if err := d.beginWriting(ctx); err != nil {
			return nil, errors.Join(err, d.end(ctx))
		}
		d.writers++
	}
	d.users++
	slot.current = d
	return d, nil
}

// openAnew opens the disk of the slot, whose turn the caller has.
func (s *disks) openAnew(ctx context.Context, slot *diskSlot) (d *openDisk, err error) {
	d = &openDisk{disks: s, slot: slot, looking: make(chan struct{}, 1)}
	d.host = client.NewObjects(d)
	d.Disk, err = vdi.OpenDisk(ctx, d.host, slot.sel.name, slot.sel.version.Tag, slot.sel.version.ID, vdi.DiskConfig{})
	if err != nil {
		return nil, err
	}
	d.refreshed.Store(time.Now().UnixNano())
	return d, nil
}

// beginWriting takes the lock for the first writer, and then looks at what was
// done until it was there.
func (d *openDisk) beginWriting(ctx context.Context) error {
	if d.ReadOnly() {
		return sheep.ErrReadOnly
	}
	if l := d.lock.Load(); l != nil {
		return l.Err()
	}
	l, err := d.disks.roaming.Lock(ctx, d.slot.sel.name)
	if err != nil {
		return err
	}
	d.lock.Store(l)
	return d.refresh(ctx)
}

// release gives the disk back. The last writer makes durable what was written and
// gives the lock back, the last user closes the disk.
func (d *openDisk) release(write bool) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), d.disks.patience, errPatience)
	defer cancel()
	d.slot.turn <- struct{}{}
	defer d.disks.leave(d.slot)
	defer d.slot.give()
	if write {
		d.writers--
	}
	d.users--
	return d.end(ctx)
}

// end ends what nobody needs any more. The caller has the slot's turn.
func (d *openDisk) end(ctx context.Context) (err error) {
	if d.users == 0 {
		if d.slot.current == d {
			d.slot.current = nil
		}
		err = d.Close(ctx)
	}
	if l := d.lock.Load(); l != nil && d.writers == 0 {
		if d.users > 0 {
			err = d.Flush(ctx)
		}
		err = errors.Join(err, l.Release(ctx, d.headNow(ctx)))
		d.lock.Store(nil)
	}
	return err
}

// headNow returns the head of the disk's name, which the lock moves on to when a
// snapshot is taken.
func (d *openDisk) headNow(ctx context.Context) sheep.VDIID {
	if v, err := d.host.Lookup(ctx, d.slot.sel.name, "", 0); err == nil {
		return v.ID
	}
	return d.VDI().ID
}

// close makes everything durable that was written, and gives all locks back,
// whoever has the disks open.
func (s *disks) close() error {
	s.mu.Lock()
	s.closed = true
	var open []*diskSlot
	for _, slot := range s.slots {
		open = append(open, slot)
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(context.Background(), s.patience, errPatience)
	defer cancel()
	errs := make([]error, len(open))
	var wg sync.WaitGroup
	for i, slot := range open {
		wg.Go(func() { errs[i] = slot.close(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *diskSlot) close(ctx context.Context) error {
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("close VDI %q: %w", s.sel.name, err)
	}
	defer s.give()
	d := s.current
	if d == nil || d.writers == 0 {
		return nil
	}
	err := d.Flush(ctx)
	if l := d.lock.Load(); l != nil { // it stays, so that nobody writes without it
		err = errors.Join(err, l.Release(ctx, d.headNow(ctx)))
	}
	return err
}

// enter returns the slot of sel, with the caller as one of its users.
func (s *disks) enter(sel selection) (*diskSlot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("open VDI %q: %w", sel.name, fs.ErrClosed)
	}
	slot := s.slots[sel]
	if slot == nil {
		slot = &diskSlot{sel: sel, turn: make(chan struct{}, 1)}
		s.slots[sel] = slot
	}
	slot.users++
	return slot, nil
}

// leave undoes enter.
func (s *disks) leave(slot *diskSlot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot.users--; slot.users == 0 {
		delete(s.slots, slot.sel)
	}
}

// take waits for the turn.
func (s *diskSlot) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *diskSlot) give() { <-s.turn }
