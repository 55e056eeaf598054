package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"sheepdog/gateway/flight"
	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// A disk is what the gateway knows of one VDI with requests or an owner.
type disk struct {
	id    sheep.VDIID
	order order

	mu        sync.Mutex
	own       cluster.Ownership // as the log says; guarded by mu
	changed   chan struct{}     // closed and replaced when own changes
	inflight  int               // requests admitted and not released
	quiet     chan struct{}     // if not nil, closed when inflight drops to 0
	lastLocal time.Time         // of a request of this node's own clients
	leaving   bool              // a hand-over of own.Generation has been proposed
	securing  bool              // Secure flushes it
}

// An admission says what is to be done with a request.
type admission struct {
	owned      bool // serve it here under generation, and release the disk
	generation sheep.Generation
	remote     sheep.Node      // else, if valid, the owner
	changed    <-chan struct{} // closed when the ownership changes
}

// disk returns the state of vdi.
func (g *Gateway) disk(vdi sheep.VDIID) *disk {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := g.disks[vdi]
	if d == nil {
		d = &disk{id: vdi, changed: make(chan struct{})}
		g.disks[vdi] = d
	}
	return d
}

// Ownership takes note of a change in the cluster log. It does not wait.
func (g *Gateway) Ownership(vdi sheep.VDIID, old, now cluster.Ownership) {
	d := g.disk(vdi)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.own, d.leaving = now, false
	close(d.changed)
	d.changed = make(chan struct{})
	if now.Draining && old.Owner == g.self && !old.Draining {
		g.later(func(ctx context.Context) { g.drain(ctx, d, old.Generation) })
	}
}

// unheard has the next client that flushes be told, through whichever gateway, that
// writes were lost, if lost says so: it is the error of a flush that no client waits
// for. Until the log has that, flushes here go on to fail.
func (g *Gateway) unheard(ctx context.Context, d *disk, lost error) {
	if !errors.Is(lost, sheep.ErrLostWrites) {
		return
	}
	if err := g.cluster.RaiseDoubt(ctx, d.id); err == nil {
		sheep.Told(lost)
	} else if ctx.Err() == nil {
		g.log.Error("cannot tell the cluster that writes were lost", "vdi", d.id, "err", err)
	}
}

// FlushOwned flushes every VDI that this gateway owns, and gives it up: it is
// about to leave.
func (g *Gateway) FlushOwned(ctx context.Context) error {
	g.mu.Lock()
	disks := slices.Collect(maps.Values(g.disks))
	g.mu.Unlock()
	var errs []error
	for _, d := range disks {
		if own, _ := d.now(); own.Owner == g.self {
			errs = append(errs, g.disown(ctx, d, own))
		}
	}
	return errors.Join(errs...)
}

// Secure flushes every VDI that this gateway owns, without waiting: a member has
// left, perhaps with copies, and what the others have only in memory should not
// depend on their luck. If writes are lost already the next client to flush is told.
func (g *Gateway) Secure() {
	g.mu.Lock()
	disks := slices.Collect(maps.Values(g.disks))
	g.mu.Unlock()
	for _, d := range disks {
		d.mu.Lock()
		flush := d.own.Owner == g.self && !d.securing
		d.securing = d.securing || flush
		d.mu.Unlock()
		if flush {
			g.later(func(ctx context.Context) { g.secure(ctx, d) })
		}
	}
}

func (g *Gateway) secure(ctx context.Context, d *disk) {
	err := g.below.Flush(ctx, d.id)
	d.mu.Lock()
	d.securing = false
	d.mu.Unlock()
	switch {
	case errors.Is(err, sheep.ErrLostWrites):
		g.log.Error("writes were lost with nodes that have left", "vdi", d.id, "err", err)
		g.unheard(ctx, d, err)
	case err != nil && ctx.Err() == nil:
		g.log.Warn("cannot flush a VDI after a node has left", "vdi", d.id, "err", err)
	}
}

// disown flushes a VDI and gives it up, if it is not wanted for something else.
func (g *Gateway) disown(ctx context.Context, d *disk, own cluster.Ownership) error {
	free := !own.Plan && !own.Draining
	if free {
		d.mu.Lock()
		d.leaving = true
		d.mu.Unlock()
		if err := d.waitQuiet(ctx); err != nil {
			return fmt.Errorf("give VDI %v up: %w", d.id, err)
		}
	}
	err := g.below.Flush(ctx, d.id)
	g.unheard(ctx, d, err)
	if err == nil && free {
		err = g.cluster.Disown(ctx, d.id, own.Generation)
	}
	return err
}

// later has Run run task.
func (g *Gateway) later(task func(context.Context)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tasks = append(g.tasks, task)
	select {
	case g.wakeup <- struct{}{}:
	default:
	}
}

// drain waits for the requests in flight under the generation mine, flushes,
// and lets the next owner in.
func (g *Gateway) drain(ctx context.Context, d *disk, mine sheep.Generation) {
	if err := d.waitQuiet(ctx); err != nil {
		return
	}
	if err := g.below.Flush(ctx, d.id); err != nil {
		g.log.Error("cannot flush a VDI that is handed over", "vdi", d.id, "err", err)
		g.unheard(ctx, d, err)
	}
	if err := g.cluster.Drained(ctx, d.id, mine); err != nil && ctx.Err() == nil {
		g.log.Error("cannot tell the cluster that a VDI is drained", "vdi", d.id, "err", err)
	}
}

// admitWrite admits a request that needs the ownership while its caller is there.
// One of this node's own clients takes it if it is free. One that another gateway
// forwards, unless it is for Exclusive, does not wait here, because only that one
// learns when its client goes.
func (d *disk) admitWrite(ctx context.Context, g *Gateway, local bool) (admission, error) {
	if a, ok := d.granted(ctx); ok {
		return a, nil
	}
	caller := sheep.Caller(ctx)
	for {
		if caller.Err() != nil {
			return admission{}, fmt.Errorf("write to VDI %v: %w", d.id, context.Cause(caller))
		}
		d.mu.Lock()
		own, changed := d.own, d.changed
		settled := !own.Draining && !own.Plan
		if own.Owner == g.self && settled && !d.leaving {
			d.inflight++
			d.noteLocal(local)
			d.mu.Unlock()
			return admission{owned: true, generation: own.Generation}, nil
		}
		d.mu.Unlock()
		switch {
		case own.Owner != 0 && own.Owner != g.self && settled:
			return admission{remote: own.Node, changed: changed}, nil
		case !local:
			return admission{}, &sheep.NotOwnerError{VDI: d.id}
		case own.Owner == 0:
			flight.Of(ctx).Waits(flight.Log, 0, nil)
			if _, err := g.cluster.Own(caller, d.id); err != nil {
				return admission{}, fmt.Errorf("take the ownership of VDI %v: %w", d.id, err)
			}
		default:
			if err := d.waitChange(caller, changed); err != nil {
				return admission{}, err
			}
		}
	}
}

// admitRead admits a request that goes to the owner if there is one and
// straight down otherwise.
func (d *disk) admitRead(ctx context.Context, g *Gateway, local bool) (admission, error) {
	if a, ok := d.granted(ctx); ok {
		return a, nil
	}
	for {
		d.mu.Lock()
		own, changed := d.own, d.changed
		if own.Owner == g.self && !own.Draining && !own.Plan {
			d.inflight++
			d.noteLocal(local)
			d.mu.Unlock()
			return admission{owned: true, generation: own.Generation}, nil
		}
		d.mu.Unlock()
		switch {
		case own.Owner == 0:
			return admission{}, nil
		case own.Draining: // the gateway before may still have writes in flight
			flight.Of(ctx).Waits(flight.HandOver, 0, nil)
			if err := d.waitChange(ctx, changed); err != nil {
				return admission{}, err
			}
		case own.Plan:
			return admission{}, nil
		default:
			return admission{remote: own.Node, changed: changed}, nil
		}
	}
}

// noteLocal notes a request of this node's own clients. The caller holds d.mu.
func (d *disk) noteLocal(local bool) {
	if local {
		d.lastLocal = time.Now()
	}
}

// granted admits a request that is part of another, or of a plan.
func (d *disk) granted(ctx context.Context) (admission, bool) {
	gr := grantOf(ctx)
	if gr == nil {
		return admission{}, false
	}
	gen := gr.Generation(d.id)
	if gen == 0 {
		return admission{}, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inflight++
	return admission{owned: true, generation: gen}, true
}

// release ends a request that was admitted as owned.
func (d *disk) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inflight--; d.inflight == 0 && d.quiet != nil {
		close(d.quiet)
		d.quiet = nil
	}
}

// waitQuiet returns when no request is in flight.
func (d *disk) waitQuiet(ctx context.Context) error {
	d.mu.Lock()
	if d.inflight == 0 {
		d.mu.Unlock()
		return nil
	}
	if d.quiet == nil {
		d.quiet = make(chan struct{})
	}
	quiet := d.quiet
	d.mu.Unlock()
	select {
	case <-quiet:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// now returns the ownership and what is closed when it changes.
func (d *disk) now() (cluster.Ownership, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.own, d.changed
}

// waitChange returns when the ownership has changed, or after a moment: the
// owner may only not have answered.
func (d *disk) waitChange(ctx context.Context, changed <-chan struct{}) error {
	timer := time.NewTimer(retryAfter)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return fmt.Errorf("wait for the owner of VDI %v: %w", d.id, context.Cause(ctx))
	}
	return nil
}
