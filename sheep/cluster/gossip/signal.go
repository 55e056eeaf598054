package gossip

import "sync"

// A signal wakes those that wait for its next occurrence.
type signal struct {
	mu sync.Mutex
	ch chan struct{} // guarded by mu; closed at the next occurrence
}

func newSignal() *signal { return &signal{ch: make(chan struct{})} }

// wait returns a channel that is closed at the next occurrence.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ch
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.ch)
	s.ch = make(chan struct{})
}
