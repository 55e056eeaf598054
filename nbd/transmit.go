package nbd

import (
	"fmt"
	"net"
	"time"
)

// Requests are carried out by the reader itself if the device is expected to
// take less than this: alone, or while others are behind them.
const (
	quickAlone   = 40 * time.Microsecond
	quickInRow   = 8 * time.Microsecond
	quickLength  = 64 << 10
	slowestCount = 2 * time.Millisecond // what a slow one counts for at most
)

// transmit answers requests until the client leaves or the server ends. It
// closes the device.
func (c *conn) transmit() error {
	c.out = newWriter(c.nc, c.srv.cfg.Patience)
	c.share = c.srv.budget.share()
	c.tasks = make(chan *request, maxWorkers)
	c.last = make(chan error, 1)
	c.watch = time.AfterFunc(time.Hour, c.relieve)
	c.in.grow(readBuffer)
	c.in.idle, c.in.hoards = c.flush, c.share.hoards
	c.cost[0].Store(int64(slowestCount))
	c.cost[1].Store(int64(slowestCount))
	c.nc.SetWriteDeadline(time.Time{})
	c.limitRead(time.Time{})
	c.log.Debug("nbd export opened", "size", c.info.Size, "readonly", c.info.ReadOnly)
	err := c.read()
	if err == errDeposed {
		err = <-c.last
	}
	c.watch.Stop()
	return c.close(err)
}

// read reads requests until the client leaves, the server ends, or another
// goroutine reads in its place.
func (c *conn) read() error {
	for !c.end {
		if c.out.dead.Load() {
			return net.ErrClosed // what is still in the buffer is of no use to anybody
		}
		if err := c.next(); err != nil {
			return err
		}
	}
	return nil
}

// flush sends what the reader has answered itself.
func (c *conn) flush() {
	if c.unanswered {
		c.unanswered = false
		c.out.flush()
	}
}

// next reads one request and sees to its answer.
func (c *conn) next() error {
	p, err := c.in.next(requestHeaderSize)
	if err != nil {
		return err
	}
	if c.told.Open() {
		c.flush()
		c.told.Collect()
	}
	h, ok := decodeHeader(p)
	if !ok {
		return fmt.Errorf("%w: request magic %#x", errProtocol, p[:4])
	}
	if h.cmd == cmdDisc {
		c.end = true
		return nil
	}
	no := c.check(h)
	cost := int64(minCost)
	if no == 0 {
		cost = h.budgeted()
	}
	if !c.share.tryTake(cost) {
		c.flush()
		c.share.take(cost)
	}
	r := c.srv.requests.Get().(*request)
	r.header, r.c, r.cost = h, c, cost
	c.inFlight.Add(1)
	if c.ending.Load() {
		no = nbdESHUTDOWN
	}
	if err := c.receive(r, no); err != nil {
		r.finish(err)
		return err
	}
	return c.dispatch(r, no)
}

// receive reads the payload of a write, or throws it away if the request is
// refused.
func (c *conn) receive(r *request, no errno) error {
	switch {
	case r.cmd != cmdWrite:
		return nil
	case no == 0:
		r.buf = c.srv.buffers.get(int(r.length))
		return c.in.payload(r.buf.data(int(r.length)))
	case int64(r.length) > 2*int64(c.srv.cfg.MaxRequest):
		return fmt.Errorf("%w: a write of %d bytes", errProtocol, r.length)
	}
	return c.in.skip(int64(r.length))
}

// dispatch answers a request here, or lets a worker do so.
func (c *conn) dispatch(r *request, no errno) error {
	switch {
	case no != 0:
		r.fail(no, "")
	case c.quick(r.header):
		if !c.runHere(r) {
			c.out.send(r)
			return errDeposed
		}
	default:
		c.flush()
		if c.ready.Add(-1) < 0 && c.started.Load() < maxWorkers {
			c.ready.Add(1)
			c.started.Add(1)
			c.workers.Go(c.work)
		}
		c.tasks <- r
		return nil
	}
	if c.out.raw == nil {
		c.out.send(r) // nobody can be sure not to wait
		return nil
	}
	c.out.append(r)
	if c.unanswered = true; c.in.buffered() < requestHeaderSize {
		c.flush()
	}
	return nil
}

// quick reports whether a request is expected to take less time than handing it
// to a worker is worth.
func (c *conn) quick(h header) bool {
	if h.cmd > cmdWrite || h.length > quickLength || h.flags&cmdFUA != 0 {
		return false
	}
	limit := quickAlone
	if c.in.buffered() >= requestHeaderSize {
		limit = quickInRow
	}
	return c.cost[h.cmd].Load() < int64(limit)
}

// took notes how long the device took for a read or a write.
func (c *conn) took(h header, d time.Duration) {
	if h.cmd > cmdWrite || h.length > quickLength || h.flags&cmdFUA != 0 {
		return
	}
	old := c.cost[h.cmd].Load()
	c.cost[h.cmd].Store(old + (int64(min(d, slowestCount))-old)/8) // a lost update is no loss
}

// work carries out requests until there are no more, or enough workers are
// ready. It is counted as ready when it starts.
func (c *conn) work() {
	defer c.started.Add(-1)
	for r := range c.tasks {
		r.run()
		c.out.send(r)
		if c.ready.Load() >= keepWorkers {
			return
		}
		c.ready.Add(1)
	}
}
