package recovery

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/store"
)

// A lack is an object that this node is to hold and has to fetch. Until it has,
// the other holders go on writing: what they change is noted, and read again.
type lack struct {
	changes []extent // not yet read
	noted   bool     // there have been some
	closed  bool     // the copy is about to be current: writes wait for it
}

// An extent is the bytes from off up to end.
type extent struct{ off, end uint32 }

// maxChanges is how many changes of an object are told apart.
const maxChanges = 64

// lacks reports whether the object is to be fetched.
func (r *Recoverer) lacks(ref sheep.Ref) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.openLocked(ref) != nil
}

// Note takes note of a change that the other holders have made.
func (r *Recoverer) Note(ref sheep.Ref, off, n uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.openLocked(ref)
	if l == nil {
		return false
	}
	if l.changes = append(l.changes, extent{off, off + n}); len(l.changes) > maxChanges {
		l.changes = merged(l.changes)
	}
	l.noted = true
	r.missed[ref.ID] = true
	r.touched.add(ref.ID)
	return true
}

// openLocked returns what there is to note of the object, or nil. The caller holds
// r.mu.
func (r *Recoverer) openLocked(ref sheep.Ref) *lack {
	l := r.lacking[ref.ID]
	if l == nil || l.closed || r.view == nil || r.view.Epoch != ref.Epoch {
		return nil
	}
	return l
}

// startNoting has changes of the object noted from now on, because it is to be fetched in
// epoch e. It reports whether they are: not those of a copy that was written in that
// epoch itself, which could later pass for one that has them.
func (r *Recoverer) startNoting(id sheep.ObjectID, e sheep.Epoch) bool {
	info, err := r.store.Stat(id)
	if !errors.Is(err, sheep.ErrNoObject) && (err != nil || info.WriteEpoch >= e) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.view.Epoch != e {
		return false
	}
	if r.lacking[id] == nil {
		r.lacking[id] = new(lack)
	}
	return true
}

// forgetChanges says that what has been noted of the object will be read.
func (r *Recoverer) forgetChanges(id sheep.ObjectID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.lacking[id]; l != nil {
		l.changes = nil
	}
}

// noted reports whether anything has been noted of the object in this epoch.
func (r *Recoverer) noted(id sheep.ObjectID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lacking[id]
	return l != nil && l.noted
}

// takeChanges returns what has been noted of the object, and forgets it. If that is
// nothing, or last says so, nothing more is noted.
func (r *Recoverer) takeChanges(id sheep.ObjectID, last bool) []extent {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lacking[id]
	if l == nil {
		return nil
	}
	changes := l.changes
	l.changes, l.closed = nil, last || len(changes) == 0
	return merged(changes)
}

// outstandingLocked returns an object that this node is to hold in epoch e, which is
// that of the view, and whose copy is distrusted or to be fetched; later is left out.
// The caller holds r.mu.
func (r *Recoverer) outstandingLocked(e sheep.Epoch, later map[sheep.ObjectID]bool) (sheep.ObjectID, bool) {
	open := func(id sheep.ObjectID) bool { return !later[id] && r.holderLocked(id, e) }
	for id := range r.suspects {
		if open(id) {
			return id, true
		}
	}
	for id := range r.lacking {
		if open(id) {
			return id, true
		}
	}
	return 0, false
}

// giveUp has nothing more noted of the object, which could not be made current.
// Whatever was noted, the next attempt will find.
func (r *Recoverer) giveUp(id sheep.ObjectID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.lacking, id)
}

// merged returns the same bytes in fewer extents, in order; in one if they would
// still be too many.
func merged(all []extent) []extent {
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b extent) int { return cmp.Compare(a.off, b.off) })
	kept := all[:1]
	for _, x := range all[1:] {
		if last := &kept[len(kept)-1]; x.off <= last.end {
			last.end = max(last.end, x.end)
		} else {
			kept = append(kept, x)
		}
	}
	if len(kept) > maxChanges/2 {
		return []extent{{kept[0].off, kept[len(kept)-1].end}}
	}
	return kept
}

// catchUp fetches the objects whose writes were noted: others have them, in fewer
// copies than they should.
func (r *Recoverer) catchUp(ctx context.Context) {
	for {
		id, err := r.touched.next(ctx)
		if err != nil {
			return
		}
		view, changed := r.current()
		if r.holds(sheep.Ref{ID: id, Policy: r.policy(id)}, view) != nil {
			continue // not in this epoch
		}
		if err := r.replica.Background(ctx, func() error {
			_, err := r.verify(store.Unhurried(ctx), id, view, true)
			return err
		}); err == nil {
			continue
		}
		r.touched.add(id)
		select {
		case <-changed:
		case <-time.After(retryPass):
		case <-ctx.Done():
		}
	}
}

// A queue is objects in the order in which they came, each once.
type queue struct {
	mu    sync.Mutex
	order []sheep.ObjectID        // guarded by mu
	in    map[sheep.ObjectID]bool // guarded by mu
	ready chan struct{}           // has room for one: there may be some
}

func newQueue() *queue {
	return &queue{in: make(map[sheep.ObjectID]bool), ready: make(chan struct{}, 1)}
}

func (q *queue) add(id sheep.ObjectID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.in[id] {
		return
	}
	q.in[id] = true
	q.order = append(q.order, id)
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// next waits for the next object, or until ctx ends.
func (q *queue) next(ctx context.Context) (sheep.ObjectID, error) {
	for ctx.Err() == nil {
		if id, ok := q.take(); ok {
			return id, nil
		}
		select {
		case <-q.ready:
		case <-ctx.Done():
		}
	}
	return 0, context.Cause(ctx)
}

func (q *queue) take() (id sheep.ObjectID, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return 0, false
	}
	id, q.order = q.order[0], q.order[1:]
	delete(q.in, id)
	return id, true
}
