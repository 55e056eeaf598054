package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"sheepdog/sheep"
)

// keepBeating renews the lease until ctx is done.
func (d *Driver) keepBeating(ctx context.Context) {
	tick := time.NewTicker(d.cfg.Beat)
	defer tick.Stop()
	var ahead goal
	for {
		if err := d.renew(ctx, &ahead); err != nil && ctx.Err() == nil {
			d.cfg.Log.Error("the lease of this node is not renewed", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// renew writes a heartbeat. If the lease has run out meanwhile, the others may
// be about to expel this process: it counts again only when the log says that
// it came back first.
func (d *Driver) renew(ctx context.Context, ahead *goal) error {
	last := d.beat.Load()
	if last == 0 {
		return nil // expelled
	}
	if err := d.healthy(ahead); err != nil {
		return err
	}
	now := boottime()
	if now-last >= int64(d.cfg.Lease) {
		if err := d.wake(ctx, now); err != nil {
			return err
		}
	}
	if err := d.present(); err != nil {
		select {
		case d.lost <- err:
		default:
		}
		return err
	}
	if err := d.member.beat(now); err != nil {
		return err
	}
	d.beat.CompareAndSwap(last, now) // unless this process was expelled
	return nil
}

// present returns an error if somebody has removed this process's file, so that
// the others cannot but take it for dead, or the log.
func (d *Driver) present() error {
	d.mu.Lock()
	generation := d.turned
	d.mu.Unlock()
	if _, err := d.dir.Stat(memberName(d.self)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("local cluster: %w: somebody removed %s from %s", sheep.ErrCluster, memberName(d.self), d.path)
	}
	if _, err := d.dir.Stat(logName(generation)); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if gens, err := generations(d.dir); err != nil || len(gens) > 0 {
		return nil // tidied up after this process looked
	}
	return fmt.Errorf("local cluster: %w: somebody removed %s from %s", sheep.ErrCluster, logName(generation), d.path)
}

// wake logs that this process is back, and waits until it has read that.
func (d *Driver) wake(ctx context.Context, now int64) error {
	done := make(chan struct{})
	if err := d.append(recordWake, le.AppendUint64(nil, uint64(now)), done); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// healthy returns why this process should be taken for dead, if it should: it
// does not get on with the log, or its store does not answer.
func (d *Driver) healthy(g *goal) error {
	now := boottime()
	d.mu.Lock()
	if d.cur == nil {
		d.mu.Unlock()
		return errNotMember
	}
	reached := d.turned != g.generation || max(d.scanned, d.done.Load()) >= g.size
	if reached {
		fi, err := d.cur.file.Stat()
		if err != nil {
			d.mu.Unlock()
			return err
		}
		*g = goal{d.turned, fi.Size(), now}
	}
	d.mu.Unlock()
	if late := time.Duration(now - g.since); late > d.cfg.Lease/2 {
		return fmt.Errorf("%w: behind the log for %v", sheep.ErrCluster, late.Round(time.Millisecond))
	}
	if d.health != nil {
		return d.health()
	}
	return nil
}

// A goal is a length of the log that a process has to come to.
type goal struct {
	generation uint64
	size       int64
	since      int64 // when the log had the length
}

// leaseCheck is for how long Lease trusts what it found. Asking CLOCK_BOOTTIME
// takes a system call, the clock that the runtime uses does not. The latter
// stops while the machine sleeps, but so does everybody who could expel this
// process, and the lease ends long before anybody may.
const leaseCheck = time.Millisecond

// Lease implements cluster.Driver.
func (d *Driver) Lease() error {
	last := d.beat.Load()
	if last == 0 {
		return errNotMember
	}
	now := time.Since(d.created)
	if at := d.checked.Load(); at != 0 && now-time.Duration(at) < leaseCheck {
		return nil
	}
	if boottime()-last >= int64(d.cfg.Lease) {
		return errLapsed
	}
	d.checked.Store(int64(now))
	return nil
}
