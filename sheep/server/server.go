package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/wire"
)

// A Class groups requests by what they may have to wait for: requests of
// clients wait for owners and peers, those of owners for peers, those of peers
// for urgent ones, and these for nobody. Each class has a budget of its own, so
// that no two sheep can wait for each other's memory; and so has what people ask,
// who want to know why requests of clients wait.
type Class uint8

// The classes of requests.
const (
	ClassClient Class = iota
	ClassOwner
	ClassPeer
	ClassUrgent
	ClassAdmin
	classes
)

// open reports whether anybody may send requests of the class, not only sheep.
func (c Class) open() bool { return c == ClassClient || c == ClassAdmin }

// A Plan is what a Handler decides about a request before its payload is read.
type Plan struct {
	// Result, if it is not success, is the answer; the payload is skipped.
	Result proto.Result

	Class   Class
	Room    int  // bytes that the answer may take
	Inline  bool // serving it never waits
	Lasting bool // it is finished even if the client goes
	Drop    bool // the connection ends instead of the answer, which is Result
}

// A Handler gives requests their meaning. Its methods may be called
// concurrently.
type Handler interface {
	// Plan must not wait. It checks h's length: the payload of a request with
	// a successful plan is allocated.
	Plan(h *proto.Header) Plan

	// Serve has r answered, before or after it returns.
	Serve(r *Request)

	// Epoch returns the current epoch of the cluster.
	Epoch() sheep.Epoch

	// Closed is called when a connection has ended and all of its requests
	// have been answered.
	Closed(ctx context.Context, s *Session)
}

// Config holds the limits of a Server. The zero value works.
type Config struct {
	Bytes        int64         // that requests of one class may hold in all; 0 means 128 MiB
	ConnBytes    int64         // that requests of one connection may hold; 0 means 32 MiB
	ConnRequests int           // of a client under way on one connection; 0 means 1024
	Patience     time.Duration // with a client that accepts no answers while memory is short; 0 means 30 s
	Grace        time.Duration // for requests under way at the end; 0 means 20 s
}

func (cfg Config) withDefaults() Config {
	if cfg.Bytes == 0 {
		cfg.Bytes = 128 << 20
	}
	if cfg.ConnBytes == 0 {
		cfg.ConnBytes = 32 << 20
	}
	if cfg.ConnRequests == 0 {
		cfg.ConnRequests = 1024
	}
	if cfg.Patience == 0 {
		cfg.Patience = 30 * time.Second
	}
	if cfg.Grace == 0 {
		cfg.Grace = 20 * time.Second
	}
	return cfg
}

// cutOff is how long after Grace connections are closed whatever they hold.
const cutOff = 2 * time.Second

var errStopped = fmt.Errorf("%w: the server has stopped", sheep.ErrShutdown)

// A Server serves the native protocol on any number of listeners.
type Server struct {
	handler Handler
	log     *slog.Logger
	cfg     Config

	buffers  wire.Buffers
	requests sync.Pool // of *Request
	workers  workers
	budgets  [classes]*budget

	work     context.Context // of requests; outlives Serve's until they are finished
	stopWork context.CancelCauseFunc

	mu    sync.Mutex
	conns map[*conn]struct{} // guarded by mu
}

// New returns a server of handler. It serves once.
func New(handler Handler, log *slog.Logger, cfg Config) *Server {
	s := &Server{handler: handler, log: log, cfg: cfg.withDefaults(), conns: make(map[*conn]struct{})}
	s.workers.run = handler.Serve
	s.work, s.stopWork = context.WithCancelCause(context.Background())
	for i := range s.budgets {
		s.budgets[i] = newBudget(s.cfg.Bytes)
	}
	return s
}

// Listen opens a listener at addr: host:port, or unix:path. A socket that a
// dead process left at path is replaced.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	network, address := splitAddr(addr)
	if network == "unix" {
		if err := removeStale(ctx, address); err != nil {
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
	}
	cfg := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 6,
	}}
	l, err := cfg.Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return l, nil
}

// Serve accepts connections on the listeners and serves them until ctx ends.
// Then it stops accepting and reading, answers what is under way, closes
// everything, and returns nil when nothing of it runs any more. Requests that
// are not finished within Grace see their context end, and clients that do not
// take their answers then are cut off. It returns an error if a listener
// fails; the listeners are closed in any case.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(listeners))
	var accepting, serving sync.WaitGroup
	for i, l := range listeners {
		accepting.Go(func() {
			defer cancel()
			errs[i] = s.accept(ctx, l, &serving)
		})
	}
	<-ctx.Done()
	for _, l := range listeners {
		l.Close()
	}
	accepting.Wait()
	s.eachConn((*conn).halt)
	expel := time.AfterFunc(s.cfg.Grace+cutOff, func() { s.eachConn((*conn).cut) })
	grace := time.AfterFunc(s.cfg.Grace, func() { s.stopWork(errStopped) })
	serving.Wait()
	grace.Stop()
	expel.Stop()
	s.stopWork(errStopped)
	s.workers.close()
	return errors.Join(errs...)
}

// Hurry ends the requests under way, now and from then on: what they wait for
// will not come.
func (s *Server) Hurry() { s.stopWork(errStopped) }

// accept accepts connections until ctx ends.
func (s *Server) accept(ctx context.Context, l net.Listener, serving *sync.WaitGroup) error {
	for {
		nc, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				nc.Close()
			}
			return nil
		case outOfFiles(err):
			s.log.Error("cannot accept connections: raise the limit of open files", "err", err)
			wait(ctx, 100*time.Millisecond)
			continue
		case err != nil:
			return fmt.Errorf("accept on %v: %w", l.Addr(), err)
		}
		c := newConn(s, nc)
		s.mu.Lock()
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		serving.Go(func() {
			c.serve()
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.conns, c)
		})
	}
}

func (s *Server) eachConn(fn func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		fn(c)
	}
}

// request returns an empty request.
func (s *Server) request() *Request {
	if r, ok := s.requests.Get().(*Request); ok {
		return r
	}
	return new(Request)
}

// anyShort reports whether anybody waits for memory.
func (s *Server) anyShort() bool {
	for _, b := range s.budgets {
		if b.short() {
			return true
		}
	}
	return false
}
