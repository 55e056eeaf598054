package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/wire"
)

const batchLimit = 64 // completions run before gathered requests are sent

// Conditions of connections. ErrProtocol matches sheep.ErrNetwork, and so does
// every error that ends a connection.
var (
	ErrProtocol = fmt.Errorf("%w: the other side does not keep to the protocol", sheep.ErrNetwork)
	ErrClosed   = fmt.Errorf("%w: connection closed", sheep.ErrNetwork)
)

// A Conn is one connection to a sheep. It may be used by any number of
// goroutines.
type Conn struct {
	nc   net.Conn
	name string // for errors
	w    *wire.Writer
	done chan struct{} // closed when the reader has stopped
	peer proto.Hello   // set before the Conn is shared; zero without hello

	corked bool // the reading goroutine's

	mu    sync.Mutex
	slots []slot   // guarded by mu
	free  []uint32 // guarded by mu; indexes of unused slots
	err   error    // guarded by mu; why the connection is down

	spare sync.Pool // of *call
}

// Dial connects to a sheep at addr: host:port, or unix:path.
func Dial(ctx context.Context, addr string) (*Conn, error) {
	network, address := "tcp", addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, address = "unix", path
	}
	d := net.Dialer{KeepAliveConfig: keepAlive()}
	nc, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("%w: connect to %s: %w", sheep.ErrNetwork, addr, err)
	}
	return NewConn(nc), nil
}

// NewConn returns a Conn over nc, which it owns from then on.
func NewConn(nc net.Conn) *Conn {
	c := &Conn{
		nc:   nc,
		name: nc.RemoteAddr().String(),
		w:    wire.NewWriter(nc, wire.WriterConfig{}),
		done: make(chan struct{}),
	}
	go c.read()
	return c
}

// keepAlive finds a dead machine within about half a minute.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4}
}

// Peer returns what the sheep at the other end said of itself. It is zero
// unless the Conn comes from a Pool.
func (c *Conn) Peer() proto.Hello { return c.peer }

// Done is closed when the connection is down.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection is down, or nil.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and every request on it, and returns when its
// goroutines have stopped. It must not be called by a completion.
func (c *Conn) Close() error {
	c.fail(ErrClosed)
	<-c.done
	return nil
}

// Start sends a request and returns without waiting for anything. done is
// called exactly once, with the answer and its payload, a prefix of into, or
// with the error that broke the connection; a result other than success is not
// an error here. payload and into must not be touched until then. done runs on
// the goroutine that reads the answers and must not wait; if the connection is
// already down, it runs before Start returns.
//
// With a payload, or with FlagWrite set, h.DataLen becomes the payload's length;
// without, it becomes the length of into. An answer that is longer than into
// ends in ErrProtocol.
func (c *Conn) Start(h proto.Header, payload [][]byte, into []byte, done func(proto.Response, []byte, error)) {
	cl := c.call()
	cl.done = done
	c.start(cl, h, payload, into)
}

func (c *Conn) start(cl *call, h proto.Header, payload [][]byte, into []byte) {
	total := 0
	for _, p := range payload {
		total += len(p)
	}
	if total > 0 || h.Flags&proto.FlagWrite != 0 {
		h.Flags |= proto.FlagWrite
		h.DataLen = uint32(total)
	} else {
		h.DataLen = uint32(len(into))
	}
	cl.into = into
	if err := c.register(cl, &h.Seq); err != nil {
		cl.complete(proto.Response{}, nil, err)
		return
	}
	var head [proto.HeaderSize]byte
	c.w.Append(h.Append(head[:0]), cl, payload...)
}

// Do sends a request and waits for its answer. If ctx ends first, it returns
// ctx's cause as soon as payload and into are no longer in use: at once, except
// while the payload is on its way or the answer is arriving. payload may be nil.
func (c *Conn) Do(ctx context.Context, h proto.Header, payload, into []byte) (proto.Response, []byte, error) {
	cl := c.call()
	if cl.wake == nil {
		cl.wake = make(chan struct{}, 1)
	}
	cl.sync = true
	cl.pieces[0] = payload
	c.start(cl, h, cl.pieces[:], into)
	select {
	case <-cl.wake:
	case <-ctx.Done():
		c.abandon(cl, context.Cause(ctx))
		<-cl.wake
	}
	resp, data, err := cl.resp, cl.data, cl.err
	c.recycle(cl)
	return resp, data, err
}

// fail ends the connection with err. Only the first error counts.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	c.nc.Close()
}

// read is the reader goroutine.
func (c *Conn) read() {
	defer close(c.done)
	var buffers wire.Buffers // for the one buffer that this goroutine needs
	err := c.readAll(wire.NewReader(c.nc, &buffers))
	if cause := c.w.Err(); cause != nil && errors.Is(err, net.ErrClosed) {
		err = cause // a write has failed first
	}
	if !errors.Is(err, sheep.ErrNetwork) {
		err = fmt.Errorf("%w: connection to %s: %w", sheep.ErrNetwork, c.name, err)
	}
	c.fail(err)
	c.w.Close(err) // no payload is in use any more when this returns
	for _, cl := range c.takeAll() {
		cl.finish(proto.Response{}, nil, c.Err())
	}
}

// readAll reads answers. What completions send while more answers are at hand
// is gathered.
func (c *Conn) readAll(r *wire.Reader) error {
	for batch := 0; ; batch++ {
		if batch == batchLimit || r.Buffered() < proto.HeaderSize {
			c.uncork()
			batch = 0
		}
		b, err := r.Peek(proto.HeaderSize)
		if err != nil {
			return err
		}
		resp, err := proto.DecodeResponse(b)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		r.Consume(proto.HeaderSize)
		if err := c.receive(r, resp); err != nil {
			return err
		}
	}
}

// receive reads the payload of an answer and ends its request.
func (c *Conn) receive(r *wire.Reader, resp proto.Response) error {
	cl, err := c.arriving(resp.Seq)
	if err != nil {
		return err
	}
	n := int(resp.DataLen)
	if r.Buffered() < n {
		c.uncork()
	}
	if cl == nil { // abandoned
		return r.Skip(int64(n))
	}
	var tooLong error
	data := cl.into[:min(n, len(cl.into))]
	err = r.ReadFull(data)
	if err == nil && n > len(data) {
		tooLong = fmt.Errorf("%w: %d bytes answered to %v, room for %d", ErrProtocol, n, resp.Op, len(data))
		err = r.Skip(int64(n - len(data)))
	}
	if err != nil {
		return err // the request ends with the connection
	}
	c.release(resp.Seq)
	if r.Buffered() >= proto.HeaderSize && !c.corked {
		c.corked = true
		c.w.Cork()
	}
	cl.finish(resp, data, tooLong)
	return nil
}

func (c *Conn) uncork() {
	if c.corked {
		c.corked = false
		c.w.Uncork()
	}
}
