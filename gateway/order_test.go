package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"sheepdog/sheep"
)

func TestOverlappingRequestsWaitInOrder(t *testing.T) {
	tests := []struct {
		name   string
		first  [3]uint64 // from, to, write
		second [3]uint64
		waits  bool
	}{
		{"a read waits for an earlier write to its range", [3]uint64{0, 8, 1}, [3]uint64{4, 12, 0}, true},
		{"a write waits for an earlier read of its range", [3]uint64{0, 8, 0}, [3]uint64{4, 12, 1}, true},
		{"a write waits for an earlier write", [3]uint64{0, 8, 1}, [3]uint64{0, 8, 1}, true},
		{"reads share a range", [3]uint64{0, 8, 0}, [3]uint64{0, 8, 0}, false},
		{"neighbours do not wait", [3]uint64{0, 8, 1}, [3]uint64{8, 16, 1}, false},
		{"a whole-object request waits for any other", [3]uint64{100, 101, 0}, [3]uint64{0, whole, 1}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var o order
				id := sheep.DataObject(1, 2)
				p, _ := o.enter(t.Context(), id, tt.first[0], tt.first[1], tt.first[2] == 1)
				entered := make(chan *place, 1)
				go func() {
					q, _ := o.enter(t.Context(), id, tt.second[0], tt.second[1], tt.second[2] == 1)
					entered <- q
				}()
				synctest.Wait()
				if got := len(entered) == 0; got != tt.waits {
					t.Errorf("second request waits: got %v, want %v", got, tt.waits)
				}
				o.leave(id, p)
				o.leave(id, <-entered)
				if len(o.lines) != 0 {
					t.Errorf("%d lines are left behind", len(o.lines))
				}
			})
		})
	}
}

func TestWhoGoesWhileItWaitsIsOutOfLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o order
		id := sheep.DataObject(1, 2)
		first, _ := o.enter(t.Context(), id, 0, 8, true)
		client, leave := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		left := make(chan error, 1)
		go func() {
			_, err := o.enter(sheep.WithCaller(t.Context(), client), id, 0, 16, true)
			left <- err
		}()
		synctest.Wait()
		third := make(chan *place, 1)
		go func() {
			p, _ := o.enter(t.Context(), id, 8, 16, true)
			third <- p
		}()
		synctest.Wait()
		leave(gone)
		if err := <-left; !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
		o.leave(id, <-third) // nobody is before it any more
		o.leave(id, first)
		if len(o.lines) != 0 {
			t.Errorf("%d lines are left behind", len(o.lines))
		}
	})
}

// Random writers and readers of one object: a reader must never see a range
// that a writer is changing.
func TestOrderExcludesConflicts(t *testing.T) {
	const size = 64
	var (
		o       order
		mu      sync.Mutex
		writers [size]int
		readers [size]int
		wg      sync.WaitGroup
	)
	id := sheep.DataObject(1, 0)
	client, leave := context.WithCancel(t.Context())
	defer leave()
	for w := range 8 {
		rng := rand.New(rand.NewPCG(7, uint64(w)))
		wg.Go(func() {
			for i := range 500 {
				from := rng.IntN(size)
				to := from + 1 + rng.IntN(size-from)
				write := rng.IntN(2) == 0
				ctx := t.Context()
				if rng.IntN(4) == 0 {
					ctx = client
				}
				p, err := o.enter(ctx, id, uint64(from), uint64(to), write)
				if err != nil {
					continue
				}
				if w == 0 && i == 250 {
					leave() // in the middle, while others wait
				}
				mu.Lock()
				for i := from; i < to; i++ {
					if writers[i] > 0 || write && readers[i] > 0 {
						t.Errorf("byte %d is in use", i)
					}
					if write {
						writers[i]++
					} else {
						readers[i]++
					}
				}
				mu.Unlock()
				mu.Lock()
				for i := from; i < to; i++ {
					if write {
						writers[i]--
					} else {
						readers[i]--
					}
				}
				mu.Unlock()
				o.leave(id, p)
			}
		})
	}
	wg.Wait()
}
