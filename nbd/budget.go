package nbd

import "sync"

// A budget is the memory that all requests of a server share. A connection may
// hold at most as much as it leaves free: one that hoards gets half, n that
// hoard get 1/(n+1) each, and there is always as much for one more.
type budget struct {
	total   int64
	perConn int64

	mu      sync.Mutex
	used    int64    // guarded by mu
	waiting []*share // guarded by mu; first come, first asked
}

// A share is what one connection holds of a budget. Only the connection's
// reader takes; anybody may give back.
type share struct {
	of   *budget
	used int64         // guarded by of.mu
	want int64         // guarded by of.mu
	wake chan struct{} // of capacity 1
}

func (b *budget) share() *share {
	return &share{of: b, wake: make(chan struct{}, 1)}
}

// fits reports whether s may take n more. The caller holds mu.
func (b *budget) fits(s *share, n int64) bool {
	return s.used+n <= min(b.perConn, b.total-b.used-n)
}

// hoards reports whether s holds much while another connection waits.
func (s *share) hoards() bool {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	return len(s.of.waiting) > 0 && s.used > s.of.total/16
}

// tryTake takes n bytes if that is possible at once.
func (s *share) tryTake(n int64) bool {
	b := s.of
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.fits(s, n) {
		return false
	}
	s.used += n
	b.used += n
	return true
}

// take takes n bytes as soon as they are free. What the connection itself
// holds comes back when its replies are written or it is cut off, so this ends.
func (s *share) take(n int64) {
	b := s.of
	b.mu.Lock()
	if b.fits(s, n) {
		s.used += n
		b.used += n
		b.mu.Unlock()
		return
	}
	s.want = n
	b.waiting = append(b.waiting, s)
	b.mu.Unlock()
	<-s.wake
}

// give gives n bytes back.
func (s *share) give(n int64) {
	b := s.of
	b.mu.Lock()
	s.used -= n
	b.used -= n
	if len(b.waiting) > 0 {
		b.serve()
	}
	b.mu.Unlock()
}

// serve gives what is free to those who wait. The caller holds mu.
func (b *budget) serve() {
	rest := b.waiting[:0]
	for _, w := range b.waiting {
		if !b.fits(w, w.want) {
			rest = append(rest, w)
			continue
		}
		w.used += w.want
		b.used += w.want
		w.wake <- struct{}{}
	}
	clear(b.waiting[len(rest):])
	b.waiting = rest
}
