package recovery

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"sheepdog/sheep"
)

// maxWaiting bounds the objects that are remembered to wait.
const maxWaiting = 10_000

// unknown stands in a waitList for the objects that may be on absent nodes only.
const unknown = sheep.ObjectID(0)

// A Waiting is an object whose copy here cannot be made current yet. Its ID is 0 if
// it stands for objects of which no present node may know.
type Waiting struct {
	ID    sheep.ObjectID
	Since time.Time
	Err   error // why, when it was tried last
}

// A waitList knows the objects that wait.
type waitList struct {
	mu  sync.Mutex
	all map[sheep.ObjectID]Waiting // guarded by mu
}

// note takes note of what came of an attempt at id.
func (l *waitList) note(id sheep.ObjectID, err error) {
	var stale *sheep.StaleEpochError
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		delete(l.all, id)
	case errors.Is(err, errLacking):
	case errors.As(err, &stale), errors.Is(err, context.Canceled), errors.Is(err, sheep.ErrShutdown):
		// It was broken off.
	default:
		w, ok := l.all[id]
		if !ok && len(l.all) >= maxWaiting {
			return
		}
		if !ok {
			w = Waiting{ID: id, Since: time.Now()}
		}
		if l.all == nil {
			l.all = make(map[sheep.ObjectID]Waiting)
		}
		w.Err = err
		l.all[id] = w
	}
}

// keep forgets all but ids, which are ascending.
func (l *waitList) keep(ids []sheep.ObjectID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.all, func(id sheep.ObjectID, _ Waiting) bool {
		_, found := slices.BinarySearch(ids, id)
		return !found && id != unknown
	})
}

// clear forgets all.
func (l *waitList) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.all)
}

// Waiting returns the objects whose copies here cannot be made current yet, those
// that wait longest first, but before them what stands for unknown ones.
func (r *Recoverer) Waiting() []Waiting {
	r.waiting.mu.Lock()
	all := slices.Collect(maps.Values(r.waiting.all))
	r.waiting.mu.Unlock()
	slices.SortFunc(all, func(a, b Waiting) int {
		return cmp.Or(cmp.Compare(min(a.ID, 1), min(b.ID, 1)), a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	return all
}
