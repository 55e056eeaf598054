package fanout

import (
	"context"
	"slices"
	"sync"

	"sheepdog/sheep"
)

// maxSurveyed bounds the objects that are remembered as surveyed.
const maxSurveyed = 1 << 16

// A survey knows which objects all holders have looked at in an epoch in which not
// every copy is known to be current. They compare their copies when they are first
// asked for them; one that has taken a write already differs from the others, which
// would then have to fetch the whole object.
type survey struct {
	mu    sync.Mutex
	epoch sheep.Epoch
	done  map[sheep.ObjectID]chan struct{} // of epoch; closed when the holders have answered
}

// begin returns what is closed when the object has been looked at in the epoch, and
// whether the caller has to see to that.
func (s *survey) begin(e sheep.Epoch, id sheep.ObjectID) (done chan struct{}, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != e || len(s.done) >= maxSurveyed {
		s.epoch, s.done = e, make(map[sheep.ObjectID]chan struct{})
	}
	done, ok := s.done[id]
	if !ok {
		done = make(chan struct{})
		s.done[id] = done
	}
	return done, !ok
}

// look has all holders look at their copies of the object before its first write in
// the epoch. What they say is for the write to find out.
func (f *Fanout) look(ctx context.Context, v *nodes, ref sheep.Ref, holders []int) {
	if v.complete || len(holders) < spared {
		return
	}
	if done, mine := f.survey.begin(v.Epoch, ref.ID); mine {
		f.lookAt(ctx, v, ref, slices.Clone(holders))
		close(done)
	} else {
		<-done
	}
}

// lookAt has the holders look at their copies, and waits for their answers.
func (f *Fanout) lookAt(ctx context.Context, v *nodes, ref sheep.Ref, holders []int) {
	ref.IfStale = sheep.StaleRefuses
	var wg sync.WaitGroup
	for _, i := range holders {
		wg.Go(func() { _ = f.readFrom(ctx, v, i, ref, make([]byte, 1), 0) })
	}
	wg.Wait()
}
