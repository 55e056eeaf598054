package local

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// Propose implements cluster.Driver.
func (d *Driver) Propose(_ context.Context, data []byte) error {
	if len(data) > cluster.MaxMessage {
		return fmt.Errorf("propose: %w: %d bytes", sheep.ErrInvalid, len(data))
	}
	if err := d.append(recordMessage, slices.Clone(data), nil); err != nil {
		return fmt.Errorf("propose: %w", err)
	}
	return nil
}

// append logs a record, which is read back sooner or later unless this process
// is expelled before. It keeps data. done, if not nil, is closed when the
// record is read back, or will not be because Run has returned.
func (d *Driver) append(kind uint8, data []byte, done chan struct{}) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.err != nil:
		return d.err
	case d.cur == nil:
		return errNotMember
	}
	d.number++
	w := &write{kind: kind, time: time.Now().UnixNano(), data: data, done: done}
	if err := d.writeLocked(d.number, w); err != nil {
		return err
	}
	d.pending[d.number] = w
	signal(d.kick)
	return nil
}

func (d *Driver) writeLocked(number uint64, w *write) error {
	r := record{kind: w.kind, author: d.self, number: number, time: w.time, data: w.data}
	d.encoded = r.append(d.encoded[:0], d.cur.salt)
	return d.cur.write(d.encoded)
}

// readBack notes that a record of this process was read.
func (d *Driver) readBack(number uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.pending[number]; w != nil {
		delete(d.pending, number)
		w.finish()
	}
}

func (w *write) finish() {
	if w.done != nil {
		close(w.done)
	}
}

// Sync implements cluster.Driver. Whatever was logged before the call is in the
// generation that this process reads, below its present size, or in a later one,
// and then the former ends below that size.
func (d *Driver) Sync(ctx context.Context) error {
	for {
		again, err := d.syncGeneration(ctx)
		if err != nil {
			return fmt.Errorf("sync: %w", err)
		}
		if !again {
			return nil
		}
	}
}

// syncGeneration waits until the present generation is applied up to its size
// now. It returns true if it ended before.
func (d *Driver) syncGeneration(ctx context.Context) (again bool, err error) {
	d.mu.Lock()
	if d.cur == nil {
		err := cmp.Or(d.err, errNotMember)
		d.mu.Unlock()
		return false, err
	}
	generation := d.cur.generation
	fi, err := d.cur.file.Stat()
	d.mu.Unlock()
	if err != nil {
		return false, err
	}
	signal(d.kick)
	for {
		d.mu.Lock()
		scanned, turned, failed := d.scanned, d.turned, d.err
		if d.moved == nil {
			d.moved = make(chan struct{})
		}
		moved := d.moved
		d.mu.Unlock()
		switch {
		case failed != nil:
			return false, failed
		case turned != generation:
			return true, nil
		case scanned >= fi.Size():
			return false, nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// applied notes how far the present generation is applied.
func (d *Driver) applied(end int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.scanned = end
	d.wakeLocked()
}

func (d *Driver) wakeLocked() {
	if d.moved != nil {
		close(d.moved)
		d.moved = nil
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
