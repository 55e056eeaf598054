package server

import (
	"context"
	"net"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/wire"
)

// A Request is one request that has been read completely. It is answered by
// calling Reply exactly once, from any goroutine, and must not be touched
// afterwards: its memory is used again.
type Request struct {
	Header proto.Header
	Data   []byte // the payload; ends with the request

	// Ctx ends when nobody needs the answer any more. For requests that change
	// something that is when the server gives up, and their sheep.Caller ends when
	// the client has gone.
	Ctx context.Context

	// Session is what the server remembers of the connection.
	Session *Session

	conn *conn
	plan Plan
	cost int64
	in   *wire.Buffer // under Data
	out  *wire.Buffer // lent by Room
	once func(error)  // if the answer is given once: that it has been sent

	scratch // of the handlers
}

// Room returns memory for n bytes of reply, which stays valid until the reply
// has been sent. Its contents are arbitrary. It may be called once.
func (r *Request) Room(n int) []byte {
	r.out = r.conn.server.buffers.Get(n)
	return r.out.B
}

// Reply answers the request. The server fills in opcode, sequence number,
// epoch and length. Data is either of Room or not changed any more by
// anybody. An answer never carries data that the client does not expect.
func (r *Request) Reply(resp proto.Response, data ...[]byte) {
	c := r.conn
	resp.Op = r.Header.Op
	resp.Seq = r.Header.Seq
	resp.Epoch = c.server.handler.Epoch()
	n := 0
	for _, p := range data {
		n += len(p)
	}
	if n > 0 && !r.mayReturn(n) {
		data, n = nil, 0
	}
	resp.DataLen = uint32(n)
	var head [proto.HeaderSize]byte
	c.w.Append(resp.Append(head[:0]), r, data...)
}

// Once says that err, which the handler is about to answer with, is told once: when
// the client has the answer, if ever, it counts as told.
func (r *Request) Once(err error) { r.once = r.conn.told.Expect(func() { sheep.Told(err) }) }

// Drop ends the request, and its connection, without an answer. It takes the
// place of Reply.
func (r *Request) Drop() {
	r.conn.cut()
	r.Sent(net.ErrClosed)
}

// mayReturn reports whether the client reads n bytes after the answer. Between
// sheep of ours the length of the answer is never in doubt.
func (r *Request) mayReturn(n int) bool {
	if !r.plan.Class.open() {
		return true
	}
	if r.Header.Flags&proto.FlagWrite != 0 {
		return r.Header.Flags&proto.FlagPiggyback != 0
	}
	return n <= int(r.Header.DataLen)
}

// Sent implements wire.Sent: the answer has left, or never will.
func (r *Request) Sent(err error) {
	c := r.conn
	s := c.server
	if r.once != nil {
		r.once(err)
	}
	s.buffers.Put(r.in)
	s.buffers.Put(r.out)
	class, cost := r.plan.Class, r.cost
	*r = Request{scratch: scratch{done: r.scratch.done}}
	s.requests.Put(r)
	s.budgets[class].put(cost)
	c.leave(cost)
}
