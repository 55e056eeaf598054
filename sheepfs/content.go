package sheepfs

import (
	"context"
	"sync"
)

// A content is what a file shows. It does not change.
type content interface {
	// readAt copies from byte off to p what fits, nothing at the end.
	readAt(ctx context.Context, p []byte, off int64) (int, error)
}

// A text is a content in memory.
type text string

func (t text) readAt(_ context.Context, p []byte, off int64) (int, error) {
	if off >= int64(len(t)) {
		return 0, nil
	}
	return copy(p, t[off:]), nil
}

// appended is a content with words behind it. The content is short: to find its
// end it is read.
type appended struct {
	content
	tail text
}

func (a appended) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := a.content.readAt(ctx, p, off)
	if n == len(p) || err != nil {
		return n, err
	}
	end, err := a.length(ctx, off+int64(n))
	if err != nil {
		return n, err
	}
	m, err := a.tail.readAt(ctx, p[n:], off+int64(n)-end)
	return n + m, err
}

// length returns the length of the content, of which no byte is at off or later.
func (a appended) length(ctx context.Context, off int64) (int64, error) {
	if t, ok := a.content.(text); ok {
		return int64(len(t)), nil
	}
	var b [1]byte
	low, high := int64(0), off
	for low < high {
		mid := low + (high-low)/2
		n, err := a.content.readAt(ctx, b[:], mid)
		if err != nil {
			return 0, err
		}
		if n > 0 {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, nil
}

// A shared lets many who want the same content at the same time share the work.
// Each gets what was made after it asked, so that nobody sees a state from
// before.
type shared struct {
	mu      sync.Mutex
	running *making // guarded by mu
	next    *making // guarded by mu; begins when running has ended
}

// A making is a content being made.
type making struct {
	done    chan struct{} // closed when content and err are set
	content content
	err     error
}

// do returns what make makes. The work goes on within the bounds of run when ctx
// ends, for the others.
func (s *shared) do(ctx context.Context, run func(func(context.Context)), show func(context.Context) (content, error)) (content, error) {
	s.mu.Lock()
	if s.next == nil {
		s.next = &making{done: make(chan struct{})}
		if s.running == nil {
			s.start(run, show)
		}
	}
	m := s.next
	if m == nil { // it has just begun, for this caller
		m = s.running
	}
	s.mu.Unlock()
	select {
	case <-m.done:
		return m.content, m.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// start begins the next making. The caller holds mu.
func (s *shared) start(run func(func(context.Context)), show func(context.Context) (content, error)) {
	m := s.next
	s.running, s.next = m, nil
	go run(func(ctx context.Context) {
		m.content, m.err = show(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		close(m.done)
		s.running = nil
		if s.next != nil {
			s.start(run, show)
		}
	})
}
