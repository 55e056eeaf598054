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

// A budget spreads the work of the background pass over time. Objects are claimed
// one after the other, each with the bytes that it may take; what it turns out not
// to take is given back. The zero budget is unlimited.
type budget struct {
	mu       sync.Mutex
	throttle Throttle
	next     time.Time     // guarded by mu; when the last claim is due by the number of objects
	start    time.Time     // guarded by mu; when it is due by bytes
	paid     time.Time     // guarded by mu; until then what was claimed lasts
	reset    chan struct{} // guarded by mu; closed when throttle changes; nil if nobody waits
	refunded chan struct{} // guarded by mu; closed when bytes are given back; likewise
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
	b.next, b.start, b.paid = time.Time{}, time.Time{}, time.Time{}
	fire(&b.reset)
}

// refund gives back n bytes that were claimed.
func (b *budget) refund(n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.throttle.Rate == 0 || n == 0 {
		return
	}
	d := b.throttle.lasts(n)
	b.start, b.paid = b.start.Add(-d), b.paid.Add(-d)
	fire(&b.refunded)
}

// claim asks for an object that may take n bytes.
func (b *budget) claim(n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, t := time.Now(), b.throttle
	if t.Max > 0 && t.Interval > 0 {
		gap := t.Interval / time.Duration(t.Max)
		if now.Sub(b.next) > gap {
			b.next = now
		}
		b.next = b.next.Add(gap)
	}
	if t.Rate > 0 {
		if b.paid.Before(now) {
			b.paid = now
		}
		b.start = b.paid
		b.paid = b.paid.Add(t.lasts(n))
	}
}

// due returns how long it is until what was claimed last may be begun, and two
// channels: one is closed when that has to be claimed anew, the other when it is
// due earlier.
func (b *budget) due() (left time.Duration, reset, refunded <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ch := range []*chan struct{}{&b.reset, &b.refunded} {
		if *ch == nil {
			*ch = make(chan struct{})
		}
	}
	at := b.next
	if b.start.After(at) {
		at = b.start
	}
	return time.Until(at), b.reset, b.refunded
}

// lasts returns how long n bytes last at the throttle's rate.
func (t Throttle) lasts(n uint64) time.Duration {
	return time.Duration(float64(n) / float64(t.Rate) * float64(time.Second))
}

func fire(ch *chan struct{}) {
	if *ch != nil {
		close(*ch)
		*ch = nil
	}
}
