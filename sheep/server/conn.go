package server

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/wire"
)

const (
	overhead   = 1 << 10 // what a request costs besides its payloads
	batchLimit = 64      // requests handled before gathered answers are sent
)

var errGone = errors.New("the client has gone")

// A conn is one connection of a client or peer.
type conn struct {
	server  *Server
	nc      net.Conn
	w       *wire.Writer
	r       *wire.Reader
	told    *wire.Receipts // of answers that are given once
	session Session

	reads     context.Context // of requests that only read; ends when no answer can be sent
	stopReads context.CancelCauseFunc
	lasting   context.Context // of those that change something; its caller ends when the client has gone
	gone      context.CancelCauseFunc
	stop      chan struct{} // closed when the server stops reading

	corked bool // the reading goroutine's
	batch  int  // the reading goroutine's; requests since the last Uncork

	mu    sync.Mutex
	bytes int64         // guarded by mu; held by requests not yet answered
	count int           // guarded by mu; of those requests
	freed chan struct{} // signalled when a request has ended
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		server: s,
		nc:     nc,
		stop:   make(chan struct{}),
		freed:  make(chan struct{}, 1),
		told:   wire.NewReceipts(nc),
	}
	c.w = wire.NewWriter(nc, wire.WriterConfig{Patience: s.cfg.Patience, GiveUp: s.anyShort})
	work := sheep.WithClient(s.work, sheep.Client{Kind: "native", Addr: clientAddr(nc)})
	c.reads, c.stopReads = context.WithCancelCause(work)
	client, gone := context.WithCancelCause(work)
	c.lasting, c.gone = sheep.WithCaller(work, client), gone
	return c
}

// identify says who is at the other end, from the next request on. Only the reading
// goroutine may call it.
func (c *conn) identify(client sheep.Client) {
	c.reads, c.lasting = sheep.WithClient(c.reads, client), sheep.WithClient(c.lasting, client)
}

// clientAddr returns where the client is, for people.
func clientAddr(nc net.Conn) string {
	if a := nc.RemoteAddr(); a.Network() == "tcp" {
		return a.String()
	}
	return "unix"
}

// serve reads and dispatches requests until the client goes or the server
// stops, then waits for those under way and closes the connection.
func (c *conn) serve() {
	c.r = wire.NewReader(c.nc, &c.server.buffers)
	err := c.readAll()
	c.r.Close()
	c.uncork()

	if !c.stopped() {
		c.gone(errGone)
	}
	patience := time.Duration(0)
	if errors.Is(err, io.EOF) || c.stopped() { // it may still read answers
		patience = c.server.cfg.Patience
	}
	timer := time.AfterFunc(patience, func() { c.stopReads(errGone) })
	defer timer.Stop()
	for !c.empty() {
		<-c.freed
	}
	c.stopReads(errGone)
	c.gone(errGone)
	if errors.Is(err, io.EOF) {
		c.told.Collect()
	}
	c.w.Close(nil)
	c.server.handler.Closed(c.server.work, &c.session)
}

// readAll returns when no further request can be read.
func (c *conn) readAll() error {
	for {
		if c.r.Buffered() < proto.HeaderSize || c.batch >= batchLimit {
			c.uncork()
		}
		b, err := c.r.Peek(proto.HeaderSize)
		if err != nil {
			return err
		}
		h, err := proto.DecodeHeader(b)
		if err != nil {
			c.server.log.Debug("dropping connection", "node", c.nc.RemoteAddr(), "err", err)
			return err
		}
		c.r.Consume(proto.HeaderSize)
		if c.told.Open() {
			c.uncork()
			c.told.Collect()
		}
		r := c.server.request()
		r.Header = h
		if err := c.request(r); err != nil {
			return err
		}
	}
}

// request reads the rest of a request and has it served.
func (c *conn) request(r *Request) error {
	plan := c.server.handler.Plan(&r.Header)
	if plan.Drop {
		c.server.requests.Put(r)
		return plan.Result.Err()
	}
	payload := int(r.Header.Payload())
	r.conn, r.plan, r.Session, r.Ctx = c, plan, &c.session, c.reads
	if plan.Lasting {
		r.Ctx = c.lasting
	}
	r.cost = overhead
	if plan.Result == proto.ResultSuccess {
		r.cost += int64(payload + plan.Room)
	}
	if !c.enter(plan.Class, r.cost) {
		return errStopped
	}
	if err := c.payload(r, payload); err != nil {
		r.Sent(err) // nothing to answer: the connection ends
		return err
	}
	if c.r.Buffered() >= proto.HeaderSize {
		c.cork()
	}
	switch {
	case plan.Result != proto.ResultSuccess:
		r.Reply(proto.Response{Result: plan.Result})
	case plan.Inline:
		c.server.handler.Serve(r)
	default:
		c.server.workers.do(r)
	}
	return nil
}

// payload reads the payload of r, or skips it if r is refused.
func (c *conn) payload(r *Request, n int) error {
	if c.r.Buffered() < n {
		c.uncork()
	}
	if r.plan.Result != proto.ResultSuccess {
		return c.r.Skip(int64(n))
	}
	if n == 0 {
		return nil
	}
	r.in = c.server.buffers.Get(n)
	r.Data = r.in.B
	return c.r.ReadFull(r.Data)
}

// enter waits until n bytes may be held. It returns false if the server stops
// first.
func (c *conn) enter(class Class, n int64) bool {
	for !c.fits(n) {
		c.uncork()
		select {
		case <-c.freed:
		case <-c.stop:
			return false
		}
	}
	b := c.server.budgets[class]
	if !b.try(n) {
		c.uncork()
		if !b.take(n, c.stop) {
			return false
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += n
	c.count++
	return true
}

// fits reports whether the connection may hold n bytes more. One request is
// always let in. Only the reading goroutine adds to what is held. Those of
// other sheep are not counted: they may be for each other.
func (c *conn) fits(n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count == 0 || c.bytes+n <= c.server.cfg.ConnBytes &&
		(c.count < c.server.cfg.ConnRequests || c.session.peer.Load() != nil)
}

// leave ends a request that entered with n bytes.
func (c *conn) leave(n int64) {
	c.mu.Lock()
	c.bytes -= n
	c.count--
	c.mu.Unlock()
	select {
	case c.freed <- struct{}{}:
	default:
	}
}

func (c *conn) empty() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count == 0
}

// halt makes the reading goroutine stop reading.
func (c *conn) halt() {
	close(c.stop)
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// cut closes the connection under whatever is under way.
func (c *conn) cut() { c.nc.Close() }

func (c *conn) stopped() bool {
	select {
	case <-c.stop:
		return true
	default:
		return false
	}
}

// cork and uncork keep the Writer's lock out of the common path.
func (c *conn) cork() {
	c.batch++
	if !c.corked {
		c.corked = true
		c.w.Cork()
	}
}

func (c *conn) uncork() {
	c.batch = 0
	if c.corked {
		c.corked = false
		c.w.Uncork()
	}
}
