package replica

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// steps runs n steps of background work that take a tenth of a second each, all at
// once, and returns how long that took and how many ran at the same time.
func steps(r *Replica, n int) (took time.Duration, most int32) {
	var running, peak atomic.Int32
	var wg sync.WaitGroup
	began := time.Now()
	for range n {
		wg.Go(func() {
			_ = r.Background(context.Background(), func() error {
				peak.Store(max(peak.Load(), running.Add(1)))
				time.Sleep(100 * time.Millisecond)
				running.Add(-1)
				return nil
			})
		})
	}
	wg.Wait()
	return time.Since(began), peak.Load()
}

func TestBackgroundWorkGivesWayToClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Replica{courtesy: newCourtesy()}
		if took, most := steps(r, 4); took != 100*time.Millisecond || most != 4 {
			t.Errorf("alone: %v, %d at once; want all of it at once", took, most)
		}
		stop := make(chan struct{})
		var clients sync.WaitGroup
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					r.courtesy.served.Add(1)
				}
			}
		})
		steps(r, 1)
		if took, most := steps(r, 4); took != 1200*time.Millisecond || most != 1 {
			t.Errorf("beside clients: %v, %d at once; want one after the other, each with a pause", took, most)
		}
		close(stop)
		clients.Wait()
		time.Sleep(time.Second)
		if took, most := steps(r, 4); took != 100*time.Millisecond || most != 4 {
			t.Errorf("when the clients have gone: %v, %d at once; want all of it at once", took, most)
		}
	})
}

func TestBackgroundWorkGivesWayToTheClientsOfOtherNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Replica{courtesy: newCourtesy()}
		time.Sleep(time.Minute)
		r.NoteBusy()
		if took, most := steps(r, 4); took != 1200*time.Millisecond || most != 1 {
			t.Errorf("%v, %d at once; want one after the other, each with a pause", took, most)
		}
		time.Sleep(time.Second)
		if took, most := steps(r, 4); took != 100*time.Millisecond || most != 4 {
			t.Errorf("when they have gone: %v, %d at once; want all of it at once", took, most)
		}
	})
}

func TestBackgroundWorkThatWaitsForItsTurnEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Replica{courtesy: newCourtesy()}
		steps(r, 1)
		r.courtesy.served.Add(1000)
		r.courtesy.lane <- struct{}{}
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		time.AfterFunc(time.Second, func() { cancel(gone) })
		err := r.Background(ctx, func() error { t.Error("it has run"); return nil })
		if !errors.Is(err, gone) {
			t.Errorf("got %v, want %v", err, gone)
		}
	})
}
