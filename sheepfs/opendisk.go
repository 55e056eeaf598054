package sheepfs

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/vdi"
)

// An openDisk is a disk with those who have it open. As the Doer that its requests
// go through, it uses the lock as long as there are writers.
type openDisk struct {
	*vdi.Disk

	host    *client.Objects
	disks   *disks
	slot    *diskSlot
	users   int                         // of whoever has the slot's turn
	writers int                         // of whoever has the slot's turn; users who may write
	lock    atomic.Pointer[client.Lock] // nil while there are no writers

	refreshed atomic.Int64  // when others' changes were looked for
	looking   chan struct{} // has room for one: whoever looks for them
	flushes   shared        // to make durable
	faults    atomic.Uint64 // how many flushes have failed
}

var _ client.Doer = (*openDisk)(nil)

// Do sends a request.
func (d *openDisk) Do(ctx context.Context, h proto.Header, payload, into []byte) (proto.Response, []byte, error) {
	if l := d.lock.Load(); l != nil {
		return l.Do(ctx, h, payload, into)
	}
	return d.disks.roaming.Do(ctx, h, payload, into)
}

// refresh looks for what others have done.
func (d *openDisk) refresh(ctx context.Context) error {
	now := time.Now().UnixNano()
	err := d.Refresh(ctx)
	if err == nil {
		d.refreshed.Store(now)
	}
	return err
}

// use prepares a request. Without a lock others may write the disk, and what is
// remembered of it holds for a second; a lock has to be ours still.
func (d *openDisk) use(ctx context.Context, write bool) error {
	if l := d.lock.Load(); l != nil {
		if err := l.Err(); err != nil && write {
			return err
		}
		if l.Held() {
			return nil
		}
	}
	if time.Since(time.Unix(0, d.refreshed.Load())) < fresh {
		return nil
	}
	select {
	case d.looking <- struct{}{}:
		defer func() { <-d.looking }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if time.Since(time.Unix(0, d.refreshed.Load())) < fresh {
		return nil
	}
	return d.refresh(ctx)
}

// sizeNow returns the size, also if somebody else has just changed it.
func (d *openDisk) sizeNow(ctx context.Context) (uint64, error) {
	if d.ReadOnly() {
		return d.Size(), nil
	}
	h, err := vdi.ReadHeader(ctx, d.host, d.VDI())
	if err != nil && !errors.Is(err, sheep.ErrNoObject) {
		return 0, err
	}
	if err != nil || h.Name == "" || h.SnapTime != 0 || h.Size > d.Size() {
		err = d.refresh(ctx)
	}
	return d.Size(), err
}

// sync makes durable what was written before. Each user who calls it hears once of
// each failure since its own last call, told by what it has seen. There is one
// flush at a time, which many may share: of two at once one alone would hear of a
// failure that concerns both.
func (d *openDisk) sync(ctx context.Context, seen *atomic.Uint64) error {
	_, err := d.flushes.do(ctx, d.bounded, func(ctx context.Context) (content, error) {
		err := d.Flush(ctx)
		if err != nil {
			d.faults.Add(1)
		}
		return nil, err
	})
	now := d.faults.Load()
	if seen.Swap(now) != now && err == nil {
		err = fmt.Errorf("%w: a flush before has failed", sheep.ErrIO)
	}
	return err
}

// bounded runs fn for as long as an operation may take.
func (d *openDisk) bounded(fn func(context.Context)) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), d.disks.patience, errPatience)
	defer cancel()
	fn(ctx)
}
