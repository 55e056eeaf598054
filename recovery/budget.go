package recovery

import (
	"sync"
	"time"
)

// A Throttle limits the background pass: to Max objects in Interval, and to Rate
// bytes a second that are fetched. What is zero does not limit.
type Throttle struct {
	Max      uint32
	Interval time.Duration
	Rate     uint64
}

// A budget spreads the work of the background pass over time. The zero budget is
// unlimited.
type budget struct {
	mu       sync.Mutex
	throttle Throttle
	next     time.Time     // guarded by mu; when the last object was due
	paid     time.Time     // guarded by mu; until then what was fetched lasts
	changed  chan struct{} // guarded by mu; closed when throttle changes; nil if nobody waits
}

func (b *budget) get() Throttle {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.throttle
}

func (b *budget) set(t Throttle) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.throttle = t
	b.next, b.paid = time.Time{}, time.Time{}
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// spend takes note that n bytes were fetched.
func (b *budget) spend(n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.throttle.Rate == 0 || n == 0 {
		return
	}
	if now := time.Now(); b.paid.Before(now) {
		b.paid = now
	}
	b.paid = b.paid.Add(time.Duration(float64(n) / float64(b.throttle.Rate) * float64(time.Second)))
}

// due returns how long it is until the next object may be begun, and what is
// closed if that changes. With claim the next object is another than before.
func (b *budget) due(claim bool) (time.Duration, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	now := time.Now()
	if t := b.throttle; claim && t.Max > 0 && t.Interval > 0 {
		gap := t.Interval / time.Duration(t.Max)
		if now.Sub(b.next) > gap {
			b.next = now
		}
		b.next = b.next.Add(gap)
	}
	at := b.next
	if b.paid.After(at) {
		at = b.paid
	}
	return at.Sub(now), b.changed
}
