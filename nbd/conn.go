package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A conn is one client.
type conn struct {
	srv  *Server
	log  *slog.Logger
	raw  net.Conn // as accepted
	told Receipts // of replies that the device has to know of

	// Owned by the goroutine that serves the connection.
	nc         net.Conn // raw, or TLS over it
	in         reader
	opts       options
	reply      []byte // option replies not yet written
	unanswered bool   // replies were appended to out and not flushed
	end        bool   // DISC was read

	// Set when the handshake is over.
	ctx   context.Context // of device calls
	dev   Device
	info  Info
	flags uint16
	out   *writer
	share *share

	tasks   chan *request
	workers sync.WaitGroup
	started atomic.Int32 // workers
	ready   atomic.Int32 // workers that have no task, less tasks that have no worker

	inFlight atomic.Int64    // requests not yet answered
	ending   atomic.Bool     // no request is admitted any more
	zero     chan struct{}   // of capacity 1; told when inFlight becomes 0 while ending
	cost     [2]atomic.Int64 // smoothed nanoseconds of reads and of writes

	turn    atomic.Uint64  // odd while the reader carries out a request itself
	watched atomic.Bool    // watch will fire
	watch   *time.Timer    // runs relieve
	seen    uint64         // turn when watch fired last; owned by relieve
	readers sync.WaitGroup // the goroutines that read after the first
	last    chan error     // what the last of them ended with

	complained atomic.Int64 // when a failed request was logged, in nanoseconds

	limits sync.Mutex
	until  time.Time // guarded by limits; end of all reading, once the server drains
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		srv: s, raw: nc, told: s.cfg.Receipts(nc), nc: nc,
		log:  s.cfg.Log.With("client", clientName(nc)),
		zero: make(chan struct{}, 1),
	}
	c.in = reader{src: nc, buf: make([]byte, handshakeBuffer), patience: s.cfg.Patience, deadline: c.limitRead}
	return c
}

func clientName(nc net.Conn) string {
	if a := nc.RemoteAddr(); a != nil && a.String() != "" && a.String() != "@" {
		return a.String()
	}
	return "unix"
}

// serve runs the connection from the first byte to the last.
func (c *conn) serve(ctx context.Context) {
	defer c.raw.Close()
	if hook := c.srv.cfg.ConnContext; hook != nil {
		ctx = hook(ctx, clientName(c.raw))
	}
	c.ctx = ctx
	now := time.Now()
	c.raw.SetDeadline(now.Add(c.srv.cfg.HandshakeTimeout))
	hs, cancel := context.WithDeadline(ctx, now.Add(c.srv.cfg.HandshakeTimeout))
	err := c.handshake(hs)
	cancel()
	switch {
	case errors.Is(err, errAborted), errors.Is(err, io.EOF):
		return
	case err != nil:
		c.log.Info("nbd handshake ended", "err", err)
		return
	}
	if err := c.transmit(); err != nil {
		c.log.Info("nbd connection ended", "err", err)
	}
}

// limitRead sets the limit of the next reads, or clears it if t is zero.
func (c *conn) limitRead(t time.Time) {
	if c.dev == nil {
		return // the handshake has a limit of its own
	}
	c.limits.Lock()
	defer c.limits.Unlock()
	if !c.until.IsZero() && (t.IsZero() || t.After(c.until)) {
		t = c.until
	}
	c.nc.SetReadDeadline(t)
}

// stopReading makes reads fail from t on.
func (c *conn) stopReading(t time.Time) {
	c.limits.Lock()
	defer c.limits.Unlock()
	c.until = t
	c.raw.SetReadDeadline(t)
}

// idleOut ends a handshake that waits for the client.
func (c *conn) idleOut() { c.raw.SetReadDeadline(time.Unix(1, 0)) }

// drain ends the connection in order: what is in flight is answered, the device
// is flushed, and meanwhile every further request is refused. It returns at
// once.
func (c *conn) drain() {
	if c.ending.Swap(true) {
		return
	}
	c.workers.Go(func() {
		for c.inFlight.Load() > 0 {
			<-c.zero
		}
		if err := c.dev.Flush(c.ctx); err != nil {
			c.log.Error("nbd export not flushed", "err", err)
		}
		c.stopReading(time.Now().Add(linger))
	})
}

// mayComplain reports whether it is time for another line in the log.
func (c *conn) mayComplain() bool {
	now, last := time.Now().UnixNano(), c.complained.Load()
	return now-last > int64(complain) && c.complained.CompareAndSwap(last, now)
}

// answered notes that a request is no longer in flight.
func (c *conn) answered() {
	if c.inFlight.Add(-1) == 0 && c.ending.Load() {
		select {
		case c.zero <- struct{}{}:
		default:
		}
	}
}

// close ends the transmission: what is in flight runs to its end, then the
// device is flushed and closed.
func (c *conn) close(err error) error {
	orderly := c.end || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) && c.srv.ending()
	if orderly {
		err = nil
	} else {
		c.out.fail(net.ErrClosed) // nobody is there to read replies
	}
	c.srv.mu.Lock()
	c.ending.Store(true) // a drain that comes now has nothing left to do
	c.srv.mu.Unlock()
	close(c.tasks)
	c.readers.Wait()
	c.workers.Wait()
	if orderly {
		c.out.drain()
		c.told.Collect()
	}
	c.out.close()
	if ferr := c.dev.Flush(c.ctx); ferr != nil {
		c.log.Error("nbd export not flushed", "err", ferr)
	}
	if cerr := c.dev.Close(); cerr != nil {
		c.log.Error("nbd export not closed", "err", cerr)
	}
	if errors.Is(err, io.EOF) {
		return nil // as most clients do it
	}
	return err
}

// startTLS puts TLS over the connection.
func (c *conn) startTLS(ctx context.Context) error {
	t := tls.Server(c.raw, c.srv.cfg.TLS)
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	c.nc, c.in.src = t, t
	return nil
}
