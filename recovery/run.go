package recovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// page is how many object ids are asked for at a time.
const page = 4096

// A Progress is how far the background pass of an epoch has come.
type Progress struct {
	Running  bool   // not every copy is known to be current, and recovery is not disabled
	Finished uint64 // objects known to be current
	Total    uint64 // objects that this node should hold
}

type progress struct {
	mu sync.Mutex
	Progress
}

// A Throttle limits the background pass to Max objects in Interval. The zero
// Throttle does not limit.
type Throttle struct {
	Max      uint32
	Interval time.Duration
}

type throttle struct {
	mu sync.Mutex
	Throttle
}

// Run gathers intents after departures and works through the objects that this
// node should hold, until ctx ends.
func (r *Recoverer) Run(ctx context.Context) error {
	for {
		view, changed := r.current()
		var again <-chan time.Time
		if view != nil && view.Status == cluster.OK && view.Epoch != 0 {
			if err := r.pass(ctx, view); err != nil {
				r.log.Info("recovery is not complete", "epoch", view.Epoch, "err", err)
				again = time.After(time.Second)
			}
		}
		select {
		case <-again:
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// Progress returns how far the background pass has come.
func (r *Recoverer) Progress() Progress {
	view, _ := r.current()
	r.progress.mu.Lock()
	defer r.progress.mu.Unlock()
	p := r.progress.Progress
	p.Running = view != nil && view.Status == cluster.OK && view.Epoch != 0 && !view.RecoveryDisabled && !r.Settled(view.Epoch)
	return p
}

// Throttle returns the limit of the background pass.
func (r *Recoverer) Throttle() Throttle {
	r.throttle.mu.Lock()
	defer r.throttle.mu.Unlock()
	return r.throttle.Throttle
}

// SetThrottle limits the background pass from now on.
func (r *Recoverer) SetThrottle(t Throttle) {
	r.throttle.mu.Lock()
	defer r.throttle.mu.Unlock()
	r.throttle.Throttle = t
}

// pass verifies every object that this node should hold in the epoch of view,
// and declares the node complete.
func (r *Recoverer) pass(ctx context.Context, view *cluster.View) error {
	if err := r.gathered(ctx, view); err != nil {
		return err
	}
	if r.settled.Load() == uint32(view.Epoch) || view.RecoveryDisabled {
		return r.purge(view)
	}
	ids, err := r.wanted(ctx, view)
	if err != nil {
		return err
	}
	r.waiting.keep(ids)
	r.setProgress(Progress{Total: uint64(len(ids))})
	if err := errors.Join(r.verifyAll(ctx, view, ids), r.allKnown(ctx, view)); err != nil {
		return err
	}
	if err := r.declareComplete(ctx, view); err != nil {
		return err
	}
	r.setProgress(Progress{})
	return nil
}

// allKnown returns nil if the members together store every object that there
// is, so that an object which none of them has does not exist.
func (r *Recoverer) allKnown(ctx context.Context, view *cluster.View) error {
	var epochs [][]sheep.Node
	for e := max(view.HealedEpoch, view.ForcedEpoch, 1); e < view.Epoch; e++ {
		nodes := r.nodesOf(ctx, view, e)
		if nodes == nil {
			return fmt.Errorf("nobody knows the members of epoch %d: %w", e, sheep.ErrAgain)
		}
		epochs = append(epochs, nodes)
	}
	return accounted(epochs, view.Nodes, r.fewestCopies())
}

// fewestCopies returns the smallest number of copies that any object has when
// there are nodes enough.
func (r *Recoverer) fewestCopies() int {
	fewest := r.policy(sheep.AttrObject(0, 0)).Width()
	for _, v := range r.cluster.VDIs() {
		fewest = min(fewest, v.Policy.Width())
	}
	return fewest
}

// gathered returns once the objects that a departed member's writes may have
// left unequal are known and no longer trusted.
func (r *Recoverer) gathered(ctx context.Context, view *cluster.View) error {
	r.mu.Lock()
	last := r.pending
	r.mu.Unlock()
	if last == 0 {
		return nil
	}
	hot, err := r.replica.Intents(ctx, view.Epoch) // when what was admitted before has been applied
	if err != nil {
		return fmt.Errorf("intents of this node: %w", err)
	}
	for _, n := range view.Nodes {
		if n.Addr == r.self || n.VNodes == 0 {
			continue
		}
		ids, err := r.peers.Intents(ctx, peer(view, n), view.Epoch)
		if err != nil {
			return fmt.Errorf("intents of %v: %w", n, err)
		}
		hot = append(hot, ids...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.view.Epoch != view.Epoch || r.pending == 0 {
		return nil
	}
	r.pending = 0
	for _, id := range hot {
		if current := min(r.currentLocked(id), last); current > 0 {
			delete(r.verified, id)
			r.suspects[id] = current
		}
	}
	r.wake()
	return nil
}

// wanted returns the objects stored anywhere that this node should hold.
func (r *Recoverer) wanted(ctx context.Context, view *cluster.View) ([]sheep.ObjectID, error) {
	ids := r.store.IDs(0)
	for _, n := range view.Nodes {
		if n.Addr == r.self || n.VNodes == 0 {
			continue
		}
		for from := sheep.ObjectID(0); ; {
			got, err := r.peers.List(ctx, peer(view, n), view.Epoch, from, page)
			if err != nil {
				return nil, fmt.Errorf("objects of %v: %w", n, err)
			}
			ids = append(ids, got...)
			if len(got) < page {
				break
			}
			from = got[len(got)-1] + 1
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	ids = slices.AppendSeq(ids, maps.Keys(r.suspects)) // nobody may have them any more
	slices.Sort(ids)
	ids = slices.Compact(ids)
	return slices.DeleteFunc(ids, func(id sheep.ObjectID) bool {
		return r.view.Epoch != view.Epoch || !r.holderLocked(id, view.Epoch)
	}), nil
}

// verifyAll verifies ids, several at a time. It goes on after an object that
// cannot be verified yet and reports the first such.
func (r *Recoverer) verifyAll(ctx context.Context, view *cluster.View, ids []sheep.ObjectID) error {
	work := make(chan sheep.ObjectID)
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error // guarded by mu
	)
	for range r.workers {
		wg.Go(func() {
			for id := range work {
				err := r.replica.Background(ctx, func() error { return r.verify(ctx, id, view) })
				mu.Lock()
				if first == nil {
					first = err
				}
				mu.Unlock()
				r.step()
			}
		})
	}
	err := r.feed(ctx, view, ids, work)
	close(work)
	wg.Wait()
	return errors.Join(err, first)
}

// feed hands ids to the workers, no faster than the throttle allows, until the
// epoch is over.
func (r *Recoverer) feed(ctx context.Context, view *cluster.View, ids []sheep.ObjectID, work chan<- sheep.ObjectID) error {
	for i, id := range ids {
		now, changed := r.current()
		if now.Epoch != view.Epoch || now.RecoveryDisabled {
			return fmt.Errorf("interrupted after %d of %d objects: %w", i, len(ids), sheep.ErrAgain)
		}
		if t := r.Throttle(); t.Max > 0 && t.Interval > 0 {
			select {
			case <-time.After(t.Interval / time.Duration(t.Max)):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		select {
		case work <- id:
		case <-changed:
			select {
			case work <- id:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// declareComplete records that every copy of this node is current in the epoch
// of view, and tells the cluster.
func (r *Recoverer) declareComplete(ctx context.Context, view *cluster.View) error {
	if err := r.store.FlushAll(ctx); err != nil {
		return fmt.Errorf("make recovered objects durable: %w", err)
	}
	r.mu.Lock()
	if r.view.Epoch != view.Epoch || r.pending != 0 {
		r.mu.Unlock()
		return sheep.ErrAgain
	}
	for id := range r.suspects { // since their turn
		if r.holderLocked(id, view.Epoch) {
			r.mu.Unlock()
			return fmt.Errorf("object %v was distrusted meanwhile: %w", id, sheep.ErrAgain)
		}
	}
	r.complete, r.claimed = view.Epoch, view.Epoch
	clear(r.verified)
	clear(r.suspects)
	r.forgetBefore(view.Epoch)
	r.settled.Store(uint32(view.Epoch))
	r.mu.Unlock()
	if err := r.store.SetComplete(view.Epoch); err != nil {
		return fmt.Errorf("record that epoch %d is complete: %w", view.Epoch, err)
	}
	r.log.Info("every copy of this node is current", "epoch", view.Epoch)
	if err := r.cluster.MarkComplete(ctx, view.Epoch); err != nil {
		return fmt.Errorf("tell the cluster that epoch %d is complete: %w", view.Epoch, err)
	}
	return nil
}

// forgetBefore forgets the placements of older epochs, which decide nothing
// once this node is complete. The caller holds r.mu.
func (r *Recoverer) forgetBefore(e sheep.Epoch) {
	for epoch := range r.rings {
		if epoch < e {
			delete(r.rings, epoch)
			delete(r.members, epoch)
		}
	}
}

// purge removes the copies that no longer belong here once every member is
// complete for the epoch.
func (r *Recoverer) purge(view *cluster.View) error {
	if r.purged == view.Epoch || !view.Complete() {
		return nil
	}
	for _, id := range r.store.IDs(0) {
		if err := r.purgeOne(view, id); err != nil {
			return fmt.Errorf("remove surplus copy of %v: %w", id, err)
		}
	}
	r.purged = view.Epoch
	return nil
}

// purgeOne removes the copy of id if it does not belong here. It looks under
// the object's lock: in a later epoch, in which it may belong here again, the
// copy is verified under that lock before anybody uses it.
func (r *Recoverer) purgeOne(view *cluster.View, id sheep.ObjectID) error {
	defer r.locks.lock(id)()
	r.mu.Lock()
	keep := r.view.Epoch != view.Epoch || r.holderLocked(id, view.Epoch)
	r.mu.Unlock()
	if keep {
		return nil
	}
	_, err := r.store.Remove(id, view.Epoch)
	if errors.Is(err, sheep.ErrNoObject) {
		return nil
	}
	return err
}

func (r *Recoverer) setProgress(p Progress) {
	r.progress.mu.Lock()
	defer r.progress.mu.Unlock()
	r.progress.Progress = p
}

func (r *Recoverer) step() {
	r.progress.mu.Lock()
	defer r.progress.mu.Unlock()
	r.progress.Finished++
}
