package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// A Server offers exports to the clients of any number of listeners.
type Server struct {
	exports Exports
	cfg     Config
	buffers bufferPool
	budget  budget

	requests sync.Pool // of *request

	mu         sync.Mutex
	conns      map[*conn]struct{} // guarded by mu
	handshakes []*conn            // guarded by mu; oldest first
	draining   bool               // guarded by mu; set once
	serving    sync.WaitGroup     // connections; Add only under mu while not draining
}

// NewServer returns a server of exports. It does nothing before Serve.
func NewServer(exports Exports, cfg Config) *Server {
	s := &Server{exports: exports, cfg: cfg.withDefaults(), conns: map[*conn]struct{}{}}
	s.budget.total, s.budget.perConn = s.cfg.MaxInFlight, s.cfg.MaxInFlightConn
	s.requests.New = func() any { return newRequest() }
	return s
}

// Stats is what a Server is doing at one moment.
type Stats struct {
	Connections int   // open ones
	Handshakes  int   // of them, those that have not chosen an export yet
	InFlight    int64 // bytes taken out of the budget
}

// Stats returns what the server is doing now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	st := Stats{Connections: len(s.conns), Handshakes: len(s.handshakes)}
	s.mu.Unlock()
	s.budget.mu.Lock()
	st.InFlight = s.budget.used
	s.budget.mu.Unlock()
	return st
}

// Serve accepts clients until ctx ends or a listener fails; it closes the
// listeners. Then it lets what is in flight be answered, flushes all devices,
// meanwhile answers further requests with ESHUTDOWN, closes the connections and
// returns. What has not ended within the drain time-out is cancelled, and Serve
// returns an error. A Server serves once.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	if len(listeners) == 0 {
		return errors.New("serve nbd: no listener")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work, abort := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abort(nil)

	var accepting sync.WaitGroup
	errs := make([]error, len(listeners))
	for i, l := range listeners {
		accepting.Go(func() {
			stop := context.AfterFunc(ctx, func() { l.Close() })
			defer stop()
			if err := s.accept(ctx, work, l); err != nil {
				errs[i] = fmt.Errorf("accept nbd clients at %v: %w", l.Addr(), err)
				cancel(errs[i])
			}
		})
	}
	accepting.Wait()
	return errors.Join(append(errs, s.drain(abort))...)
}

// accept serves the clients of one listener until ctx ends.
func (s *Server) accept(ctx, work context.Context, l net.Listener) error {
	defer l.Close()
	for pause := time.Duration(0); ; {
		nc, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				nc.Close()
			}
			return nil
		case err == nil:
			pause = 0
			s.start(work, nc)
			continue
		case errors.Is(err, net.ErrClosed):
			return err
		}
		// Out of descriptors, most likely. Nothing tells when there are some again.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.cfg.Log.Warn("nbd client not accepted", "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// start serves one client on a goroutine of its own, if there is room.
func (s *Server) start(work context.Context, nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining || len(s.conns) >= s.cfg.MaxConns && !s.evict() {
		s.cfg.Log.Warn("nbd client refused: too many connections", "client", nc.RemoteAddr())
		nc.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.handshakes = append(s.handshakes, c)
	s.serving.Go(func() {
		c.serve(work)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
		s.dropHandshake(c)
	})
}

// evict closes the oldest connection that is still in its handshake. The caller
// holds mu.
func (s *Server) evict() bool {
	if len(s.handshakes) == 0 {
		return false
	}
	c := s.handshakes[0]
	s.handshakes = s.handshakes[1:]
	delete(s.conns, c) // it takes no more room from now on
	c.raw.Close()
	return true
}

// chosen notes that c has finished its handshake. It returns false if c was
// closed before, to make room or because the server ends.
func (s *Server) chosen(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropHandshake(c)
	_, ok := s.conns[c]
	return ok && !s.draining
}

func (s *Server) dropHandshake(c *conn) {
	if i := slices.Index(s.handshakes, c); i >= 0 {
		s.handshakes = slices.Delete(s.handshakes, i, i+1)
	}
}

// ending reports whether the server is draining.
func (s *Server) ending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// drain ends all connections.
func (s *Server) drain(abort context.CancelCauseFunc) error {
	s.mu.Lock()
	s.draining = true
	for _, c := range s.handshakes {
		c.idleOut() // clients in the middle of an option are told
	}
	for c := range s.conns {
		if !slices.Contains(s.handshakes, c) {
			c.drain()
		}
	}
	s.mu.Unlock()

	done := make(chan struct{})
	go func() {
		s.serving.Wait()
		close(done)
	}()
	timeout := time.NewTimer(s.cfg.DrainTimeout)
	defer timeout.Stop()
	select {
	case <-done:
		return nil
	case <-timeout.C:
	}
	s.mu.Lock()
	n := len(s.conns)
	for c := range s.conns {
		c.raw.Close()
	}
	s.mu.Unlock()
	abort(errShutdown)
	<-done
	return fmt.Errorf("drain nbd clients: %d connections not done after %v", n, s.cfg.DrainTimeout)
}
