package server

import (
	"sync"
)

// A budget bounds the bytes that requests of one class hold. Whoever waits is
// served in the order of arrival.
type budget struct {
	size int64

	mu      sync.Mutex
	used    int64          // guarded by mu
	waiters []budgetWaiter // guarded by mu
}

type budgetWaiter struct {
	n     int64
	ready chan struct{} // closed when n has been taken on the waiter's behalf
}

func newBudget(size int64) *budget { return &budget{size: size} }

// try takes n bytes if nobody has to wait for it. A request larger than the
// whole budget is let in when it is alone.
func (b *budget) try(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiters) > 0 || !b.fits(n) {
		return false
	}
	b.used += n
	return true
}

// take waits for n bytes. It returns false, with nothing taken, if stop is
// closed first.
func (b *budget) take(n int64, stop <-chan struct{}) bool {
	b.mu.Lock()
	if len(b.waiters) == 0 && b.fits(n) {
		b.used += n
		b.mu.Unlock()
		return true
	}
	w := budgetWaiter{n: n, ready: make(chan struct{})}
	b.waiters = append(b.waiters, w)
	b.mu.Unlock()
	select {
	case <-w.ready:
		return true
	case <-stop:
	}
	if !b.withdraw(w) {
		b.put(n) // it was granted meanwhile
	}
	return false
}

// put gives n bytes back.
func (b *budget) put(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	b.grant()
}

// short reports whether somebody is waiting.
func (b *budget) short() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiters) > 0
}

// withdraw removes a waiter. It returns false if the waiter was granted.
func (b *budget) withdraw(w budgetWaiter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.waiters {
		if b.waiters[i].ready == w.ready {
			b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
			b.grant()
			return true
		}
	}
	return false
}

// fits and grant are called with mu held.
func (b *budget) fits(n int64) bool { return b.used == 0 || b.used+n <= b.size }

func (b *budget) grant() {
	for len(b.waiters) > 0 && b.fits(b.waiters[0].n) {
		b.used += b.waiters[0].n
		close(b.waiters[0].ready)
		b.waiters = b.waiters[1:]
	}
}
