// Package gateway is the front door of object I/O: it makes sure that one
// gateway at a time writes a VDI, and that requests which overlap run in the
// order in which they came.
//
// The first write to a VDI takes its ownership through the cluster log. The
// owner orders all requests to the VDI's data, inode, vmstate and ledger
// objects and passes them down under the generation of its ownership; the other
// gateways forward theirs to the owner. While a VDI has an owner its reads go
// through the owner too, so that nobody reads a write and then its absence. An
// ownership moves only between two living gateways when the owner's own clients
// are idle, or to the executor of a plan: the owner stops admitting, waits for
// what is in flight, flushes and says so in the log.
//
// A change that has begun runs to its end even if the client that asked for it has
// gone, so its context must end with the daemon and name the client's connection
// with sheep.WithCaller. One that still waits for the owner, or for its turn, ends
// with the client.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"sheepdog/gateway/flight"
	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// Cluster is what a gateway needs of the membership.
type Cluster interface {
	Own(ctx context.Context, vdi sheep.VDIID) (cluster.Ownership, error)
	HandOver(ctx context.Context, vdi sheep.VDIID, g sheep.Generation, to sheep.Incarnation) error
	Drained(ctx context.Context, vdi sheep.VDIID, g sheep.Generation) error
	Disown(ctx context.Context, vdi sheep.VDIID, g sheep.Generation) error
	DoubtAbout(vdi sheep.VDIID) cluster.Doubt
	RaiseDoubt(ctx context.Context, vdi sheep.VDIID) error
	SettleDoubt(ctx context.Context, vdi sheep.VDIID, d cluster.Doubt) error
	Lease() error
	VDI(id sheep.VDIID) (sheep.VDI, bool)
}

// Owners sends requests to the gateway that owns a VDI.
type Owners interface {
	Read(ctx context.Context, owner sheep.Node, ref sheep.Ref, p []byte, off uint32) error
	Write(ctx context.Context, owner sheep.Node, ref sheep.Ref, w *sheep.Write) error
	Remove(ctx context.Context, owner sheep.Node, ref sheep.Ref) error
	Flush(ctx context.Context, owner sheep.Node, vdi sheep.VDIID) error
	Decref(ctx context.Context, owner sheep.Node, ref sheep.Ref, generation, count uint32) error
}

// Below is the next link.
type Below interface {
	sheep.Objects
	sheep.Flusher
}

var (
	_ sheep.Objects = (*Gateway)(nil)
	_ sheep.Flusher = (*Gateway)(nil)
)

// retryAfter is how long a request waits for an owner that does not answer or
// does not know yet that it is one, unless the ownership changes before.
const retryAfter = 20 * time.Millisecond

// idleAfter is how long an owner must have seen no request of its own clients
// before it hands a VDI over to a gateway that forwards to it.
const idleAfter = 2 * time.Second

// whole is the end of the range of a request to a whole object.
const whole = math.MaxUint64

// A Gateway serves the object requests of this node's clients and, for the
// VDIs that it owns, those that other gateways forward.
type Gateway struct {
	below   Below
	cluster Cluster
	owners  Owners
	self    sheep.Incarnation
	log     *slog.Logger

	mu     sync.Mutex
	disks  map[sheep.VDIID]*disk // guarded by mu
	tasks  []func(context.Context)
	wakeup chan struct{} // has room for one: tasks is not empty
}

// New returns the gateway of the daemon with the incarnation self.
func New(below Below, c Cluster, owners Owners, self sheep.Incarnation, log *slog.Logger) *Gateway {
	return &Gateway{
		below: below, cluster: c, owners: owners, self: self, log: log,
		disks:  make(map[sheep.VDIID]*disk),
		wakeup: make(chan struct{}, 1),
	}
}

// Run does the work that ownership changes ask for until ctx ends.
func (g *Gateway) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-g.wakeup:
		case <-ctx.Done():
			return nil
		}
		g.mu.Lock()
		tasks := g.tasks
		g.tasks = nil
		g.mu.Unlock()
		for _, task := range tasks {
			wg.Go(func() { task(ctx) })
		}
	}
}

// Read fills p from offset off of the object, after the writes to the same
// range that came before.
func (g *Gateway) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	return g.read(ctx, ref, p, off, true)
}

func (g *Gateway) read(ctx context.Context, ref sheep.Ref, p []byte, off uint32, forward bool) error {
	d := g.disk(ref.ID.VDI())
	for {
		a, err := d.admitRead(ctx, g, forward)
		if err != nil {
			return err
		}
		switch {
		case a.owned:
			err = g.readInOrder(ctx, d, ref, p, off)
			d.release()
		case a.remote.Addr.IsValid():
			if !forward {
				return &sheep.NotOwnerError{VDI: d.id, Owner: a.remote}
			}
			flight.Of(ctx).AsksOwner(a.remote)
			if err = g.owners.Read(ctx, a.remote, ref, p, off); transient(err) {
				if err = d.waitChange(ctx, a.changed); err == nil {
					continue
				}
			}
		default:
			err = g.below.Read(ctx, ref, p, off)
		}
		if err == nil {
			err = g.cluster.Lease()
		}
		return err
	}
}

// readInOrder is read at the owner.
func (g *Gateway) readInOrder(ctx context.Context, d *disk, ref sheep.Ref, p []byte, off uint32) error {
	t, err := d.order.enter(ctx, ref.ID, uint64(off), uint64(off)+uint64(len(p)), false)
	if err != nil {
		return err
	}
	defer d.order.leave(ref.ID, t)
	return g.below.Read(ctx, ref, p, off)
}

// Write changes the object, after the requests to the same range that came before.
func (g *Gateway) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	return g.asOwner(ctx, ref.ID.VDI(),
		func(d *disk, gen sheep.Generation) error { return g.write(ctx, d, gen, ref, w) },
		func(owner sheep.Node) error { return g.owners.Write(ctx, owner, ref, w) })
}

// Remove removes the object, after the requests to it that came before.
func (g *Gateway) Remove(ctx context.Context, ref sheep.Ref) error {
	return g.asOwner(ctx, ref.ID.VDI(),
		func(d *disk, gen sheep.Generation) error { return g.remove(ctx, d, gen, ref) },
		func(owner sheep.Node) error { return g.owners.Remove(ctx, owner, ref) })
}

// Flush makes what was answered durable, at the owner if there is one.
func (g *Gateway) Flush(ctx context.Context, vdi sheep.VDIID) error {
	d := g.disk(vdi)
	for {
		a, err := d.admitRead(ctx, g, true)
		if err != nil {
			return err
		}
		switch {
		case a.owned:
			err = g.flush(ctx, d)
			d.release()
		case a.remote.Addr.IsValid():
			flight.Of(ctx).AsksOwner(a.remote)
			if err = g.owners.Flush(ctx, a.remote, vdi); transient(err) {
				if err = d.waitChange(ctx, a.changed); err == nil {
					continue
				}
			}
		default:
			err = g.flush(ctx, d)
		}
		return err
	}
}

// asOwner runs local under this gateway's ownership of vdi, taking it if it is
// free, or remote with the gateway that has it. Without remote it returns a
// *sheep.NotOwnerError instead.
func (g *Gateway) asOwner(ctx context.Context, vdi sheep.VDIID,
	local func(*disk, sheep.Generation) error, remote func(owner sheep.Node) error) error {
	d := g.disk(vdi)
	for {
		a, err := d.admitWrite(ctx, g, true)
		if err != nil {
			return err
		}
		if a.owned {
			err := local(d, a.generation)
			d.release()
			return err
		}
		if remote == nil {
			return &sheep.NotOwnerError{VDI: vdi, Owner: a.remote}
		}
		flight.Of(ctx).AsksOwner(a.remote)
		if err := remote(a.remote); !transient(err) {
			return err
		}
		if err := d.waitChange(sheep.Caller(ctx), a.changed); err != nil {
			return err
		}
	}
}

func (g *Gateway) write(ctx context.Context, d *disk, gen sheep.Generation, ref sheep.Ref, w *sheep.Write) error {
	if v, ok := g.cluster.VDI(d.id); ok && v.Snapshot && ref.ID.Kind() == sheep.KindData {
		// It was frozen while the request waited for its turn.
		return fmt.Errorf("write object %v: %w", ref.ID, sheep.ErrReadOnly)
	}
	from, to := uint64(w.Off), uint64(w.Off)+uint64(w.Len())
	if w.Create {
		from, to = 0, whole
	}
	t, err := d.order.enter(ctx, ref.ID, from, to, true)
	if err != nil {
		return err
	}
	defer d.order.leave(ref.ID, t)
	ref.Generation = gen
	if w.From != nil {
		return g.copyOnWrite(ctx, ref, w)
	}
	return g.below.Write(ctx, ref, w)
}

func (g *Gateway) remove(ctx context.Context, d *disk, gen sheep.Generation, ref sheep.Ref) error {
	t, err := d.order.enter(ctx, ref.ID, 0, whole, true)
	if err != nil {
		return err
	}
	defer d.order.leave(ref.ID, t)
	ref.Generation = gen
	return g.below.Remove(ctx, ref)
}

// copyOnWrite creates the object from the bytes of another and the write.
func (g *Gateway) copyOnWrite(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	merged := sheep.Write{Data: w.Data, Create: true, Durable: w.Durable, After: w.After}
	if w.Off != 0 || w.Len() != ref.Size {
		merged.Data = make([]byte, ref.Size)
		if err := g.Read(ctx, *w.From, merged.Data, 0); err != nil {
			return err
		}
		if w.Zero != 0 {
			clear(merged.Data[w.Off : w.Off+w.Zero])
		} else {
			copy(merged.Data[w.Off:], w.Data)
		}
	} else if w.Zero != 0 {
		merged.Zero = w.Zero
	}
	return g.below.Write(ctx, ref, &merged)
}

// flush flushes a VDI that this gateway owns or nobody does. What the log doubts is
// settled when the client has been told.
func (g *Gateway) flush(ctx context.Context, d *disk) error {
	doubt := g.cluster.DoubtAbout(d.id)
	err := g.below.Flush(ctx, d.id)
	if err != nil && !errors.Is(err, sheep.ErrLostWrites) {
		return err
	}
	blind := func(forget func()) error {
		return &sheep.LostWritesError{VDI: d.id, Why: "all nodes that held some deferred writes may be gone", Forget: forget}
	}
	if doubt.Since == 0 {
		if err == nil && g.cluster.DoubtAbout(d.id).Blind {
			return blind(func() {}) // of losses that were found meanwhile; it may be about later writes, too
		}
		return err
	}
	settle := func() {
		g.later(func(ctx context.Context) { // not before the answer: to tell twice is better than not at all
			if err := g.cluster.SettleDoubt(ctx, d.id, doubt); err != nil && ctx.Err() == nil {
				g.log.Error("cannot tell the cluster that a client knows of lost writes", "vdi", d.id, "err", err)
			}
		})
	}
	lost, ok := errors.AsType[*sheep.LostWritesError](err)
	switch {
	case ok:
		forget := lost.Forget
		lost.Forget = func() { forget(); settle() }
	case doubt.Blind:
		err = blind(settle)
	default:
		settle() // the owner knows that nothing was lost
	}
	return err
}

// transient reports whether another try, with whoever owns the VDI by then, may
// succeed after an owner has answered with err.
func transient(err error) bool {
	_, stale := errors.AsType[*sheep.StaleEpochError](err)
	return stale || sheep.IsAny(err, sheep.ErrNotOwner, sheep.ErrStaleOwner,
		sheep.ErrNetwork, sheep.ErrWaitForJoin, sheep.ErrShutdown, sheep.ErrKilled, sheep.ErrCluster)
}
