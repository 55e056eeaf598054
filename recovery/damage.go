package recovery

import (
	"cmp"
	"errors"
	"slices"
	"sync"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A todo is the objects of the latest pass.
type todo struct {
	mu       sync.Mutex
	schedule // guarded by mu
}

func (t *todo) set(s schedule) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.schedule = s
}

func (t *todo) get() schedule {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.schedule
}

// Damage returns the objects whose copies on this node, or anywhere, are not as
// they should be, the worst first, as far as this node knows.
func (r *Recoverer) Damage() []proto.Damaged {
	classes := make(map[sheep.ObjectID]proto.DamageClass)
	view, _ := r.current()
	if view == nil {
		return nil
	}
	if !r.Settled(view.Epoch) {
		r.unsettled(classes)
	}
	for _, w := range r.Waiting() {
		switch {
		case w.ID == unknown:
		case errors.Is(w.Err, errNoCopy), errors.Is(w.Err, sheep.ErrAgain):
			classes[w.ID] = proto.Unreadable
		case errors.Is(w.Err, sheep.ErrNoSpace):
			classes[w.ID] = max(classes[w.ID], proto.Degraded)
		default:
			classes[w.ID] = max(classes[w.ID], proto.Unrepaired)
		}
	}
	all := make([]proto.Damaged, 0, len(classes))
	for id, class := range classes {
		all = append(all, proto.Damaged{ID: id, Class: class})
	}
	slices.SortFunc(all, func(a, b proto.Damaged) int {
		return cmp.Or(cmp.Compare(b.Class, a.Class), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// unsettled adds the objects whose copies here are not known to be current.
func (r *Recoverer) unsettled(classes map[sheep.ObjectID]proto.DamageClass) {
	s := r.todo.get()
	r.mu.Lock()
	var open []sheep.ObjectID
	for _, ids := range [][]sheep.ObjectID{s.now, s.later} {
		for _, id := range ids {
			if !r.trustedLocked(id) {
				open = append(open, id)
			}
		}
	}
	for id := range r.suspects {
		if r.holderLocked(id, r.view.Epoch) {
			classes[id] = proto.Unrepaired
		}
	}
	r.mu.Unlock()
	for _, id := range open {
		class := proto.Degraded
		if r.store.Has(id) {
			class = proto.Unrepaired // it may have missed writes
		}
		classes[id] = max(classes[id], class)
	}
}
