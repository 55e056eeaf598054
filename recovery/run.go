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
	"sheepdog/sheep/store"
)

// page is how many object ids are asked for at a time.
const page = 4096

// A waitNote is what the log has been told of objects left for later.
type waitNote struct {
	epoch   sheep.Epoch
	objects int
}

// retryPass is how long it is until a pass that failed is repeated.
const retryPass = time.Second

// Run gathers intents after departures and works through the objects that this
// node should hold, until ctx ends.
func (r *Recoverer) Run(ctx context.Context) error {
	var other sync.WaitGroup
	defer other.Wait()
	other.Go(func() { r.catchUp(ctx) })
	for {
		view, changed := r.current()
		var again <-chan time.Time
		if view != nil && view.Status == cluster.OK && view.Epoch != 0 {
			recheck, err := r.pass(ctx, view)
			if err != nil {
				r.log.Info("recovery is not complete", "epoch", view.Epoch, "err", err)
				recheck = retryPass
			}
			if recheck < cluster.NoEnd {
				again = time.After(recheck)
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

// Throttle returns the limit of the background pass.
func (r *Recoverer) Throttle() Throttle { return r.budget.get() }

// SetThrottle limits the background pass from now on.
func (r *Recoverer) SetThrottle(t Throttle) { r.budget.set(t) }

// pass verifies every object that this node should hold in the epoch of view,
// and declares the node complete. If it leaves objects for later, the node is
// not complete, and another pass is needed after recheck at the latest; what is
// left is verified when a request needs it, as ever.
func (r *Recoverer) pass(ctx context.Context, view *cluster.View) (recheck time.Duration, err error) {
	if err := r.gathered(ctx, view); err != nil {
		return 0, err
	}
	if r.settled.Load() == uint32(view.Epoch) {
		r.progress.end()
		return cluster.NoEnd, r.purge(view)
	}
	if view.RecoveryDisabled {
		return cluster.NoEnd, r.purge(view)
	}
	ids, err := r.wanted(ctx, view)
	if err != nil {
		return 0, err
	}
	r.waiting.keep(ids)
	lacking := r.untrusted(view, ids)
	s, err := r.plan(ctx, view, lacking)
	if err != nil {
		return 0, err
	}
	known := r.allKnown(ctx, view)
	r.waiting.note(unknown, known)
	r.begin(len(ids), s)
	r.todo.set(s)
	if err := r.verifyAll(ctx, view, s.now); err != nil {
		return 0, err
	}
	if len(s.later) > 0 {
		if known == nil {
			r.settleBut(view, s.later)
		}
		if told := (waitNote{view.Epoch, len(s.later)}); told != r.told {
			r.told = told
			r.log.Info("healing waits for absent nodes", "epoch", view.Epoch, "objects", len(s.later), "left", s.recheck.Round(time.Second))
		}
		return s.recheck, nil
	}
	if known != nil {
		return 0, known
	}
	if err := r.declareComplete(ctx, view); err != nil {
		return 0, err
	}
	r.progress.end()
	return cluster.NoEnd, nil
}

// untrusted returns those of ids whose copies are not known to be current.
func (r *Recoverer) untrusted(view *cluster.View, ids []sheep.ObjectID) []sheep.ObjectID {
	var lacking []sheep.ObjectID
	for part := range slices.Chunk(ids, page) { // not to stop requests for long
		r.mu.Lock()
		for _, id := range part {
			if r.view.Epoch != view.Epoch || !r.trustedLocked(id) {
				lacking = append(lacking, id)
			}
		}
		r.mu.Unlock()
	}
	return lacking
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
		if n.Addr == r.self || !view.Stores(n) {
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
	ids, err := r.store.IDs(0)
	if err != nil {
		return nil, err
	}
	for _, n := range view.Nodes {
		if n.Addr == r.self || !view.Stores(n) {
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
				size := uint64(r.ref(id, 0).Size)
				err := r.replica.Background(ctx, func() error {
					n, err := r.verify(store.Unhurried(ctx), id, view, true)
					r.budget.refund(size - min(n, size))
					return err
				})
				mu.Lock()
				if first == nil {
					first = err
				}
				mu.Unlock()
				r.progress.step(err == nil, uint32(size))
			}
		})
	}
	err := r.feed(ctx, view, ids, work)
	close(work)
	wg.Wait()
	return errors.Join(err, first)
}

// feed hands ids to the workers, no faster than the budget allows, until the
// epoch is over.
func (r *Recoverer) feed(ctx context.Context, view *cluster.View, ids []sheep.ObjectID, work chan<- sheep.ObjectID) error {
	for i, id := range ids {
		if err := r.await(ctx, view, id); err != nil {
			return fmt.Errorf("interrupted after %d of %d objects: %w", i, len(ids), err)
		}
		select {
		case work <- id:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// await returns nil when the budget has room for the object, an error when what is
// to be done has changed.
func (r *Recoverer) await(ctx context.Context, view *cluster.View, id sheep.ObjectID) error {
	for claim := true; ; {
		now, changed := r.current()
		if now.Epoch != view.Epoch || now.RecoveryDisabled || !slices.Equal(now.Absences, view.Absences) {
			return sheep.ErrAgain
		}
		if claim {
			r.budget.claim(uint64(r.ref(id, 0).Size))
			claim = false
		}
		delay, reset, refunded := r.budget.due()
		if delay <= 0 {
			return nil
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-reset:
			claim = true
		case <-refunded:
		case <-changed:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		timer.Stop()
	}
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
	if id, some := r.outstandingLocked(view.Epoch, nil); some { // since its turn
		r.mu.Unlock()
		return fmt.Errorf("the copy of object %v is not current: %w", id, sheep.ErrAgain)
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
	p := r.progress.read(time.Now())
	r.log.Info("every copy of this node is current", "epoch", view.Epoch, "fetched", p.Objects, "bytes", p.Bytes)
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
	ids, err := r.store.IDs(0)
	if err != nil {
		return err
	}
	for _, id := range ids {
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
		err = nil
	}
	if err == nil {
		r.mu.Lock()
		delete(r.missed, id)
		r.mu.Unlock()
	}
	return err
}
