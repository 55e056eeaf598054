package client

import (
	"fmt"
	"sync/atomic"

	"sheepdog/sheep/proto"
)

// Sequence numbers are a slot's index and how often the slot has been used, so
// that an answer that comes twice is noticed.
const (
	slotBits = 20
	maxSlots = 1 << slotBits
)

type slot struct {
	call  *call
	seq   uint32
	state slotState
}

type slotState uint8

const (
	slotFree      slotState = iota
	slotWaiting             // for the answer
	slotArriving            // the reader is filling call.into
	slotAbandoned           // nobody waits for the answer any more; call is nil
)

// A call is one request on its way. Two parties let go of it before it ends:
// the writer, when its payload has been sent, and the reader, when its answer
// has come; the later one completes it.
type call struct {
	conn    *Conn
	into    []byte
	done    func(proto.Response, []byte, error) // nil if sync
	sync    bool                                // somebody waits for wake
	wake    chan struct{}
	pieces  [1][]byte
	pending atomic.Int32 // parties that have not let go

	resp proto.Response
	data []byte
	err  error
	slot uint32
}

func (c *Conn) call() *call {
	cl, ok := c.spare.Get().(*call)
	if !ok {
		cl = &call{conn: c}
	}
	cl.pending.Store(2)
	return cl
}

func (c *Conn) recycle(cl *call) {
	wake := cl.wake
	*cl = call{conn: c, wake: wake}
	c.spare.Put(cl)
}

// Sent implements wire.Sent. An error is left to the reader, which ends with
// the connection.
func (cl *call) Sent(error) { cl.letGo() }

// finish records the answer and lets go of the call.
func (cl *call) finish(resp proto.Response, data []byte, err error) {
	cl.resp, cl.data, cl.err = resp, data, err
	cl.letGo()
}

func (cl *call) letGo() {
	if cl.pending.Add(-1) == 0 {
		cl.complete(cl.resp, cl.data, cl.err)
	}
}

func (cl *call) complete(resp proto.Response, data []byte, err error) {
	if cl.sync {
		cl.resp, cl.data, cl.err = resp, data, err
		cl.wake <- struct{}{}
		return
	}
	done := cl.done
	cl.conn.recycle(cl)
	done(resp, data, err)
}

// register gives cl a slot and a sequence number.
func (c *Conn) register(cl *call, seq *uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if len(c.free) == 0 {
		if len(c.slots) == maxSlots {
			return fmt.Errorf("%w: %d requests on one connection", ErrProtocol, maxSlots)
		}
		c.free = append(c.free, uint32(len(c.slots)))
		c.slots = append(c.slots, slot{seq: uint32(len(c.slots))})
	}
	i := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	s := &c.slots[i]
	s.seq += maxSlots
	s.call, s.state = cl, slotWaiting
	cl.slot = i
	*seq = s.seq
	return nil
}

// arriving returns the call that the answer with seq belongs to, which cannot
// be abandoned from then on, or nil if it has been.
func (c *Conn) arriving(seq uint32) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := seq % maxSlots
	if i >= uint32(len(c.slots)) || c.slots[i].seq != seq || c.slots[i].state == slotFree {
		return nil, fmt.Errorf("%w: answer to nothing, sequence number %#x", ErrProtocol, seq)
	}
	s := &c.slots[i]
	if s.state == slotAbandoned {
		s.state = slotFree
		c.free = append(c.free, i)
		return nil, nil
	}
	s.state = slotArriving
	return s.call, nil
}

// release frees the slot of an answer that has arrived.
func (c *Conn) release(seq uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := seq % maxSlots
	c.slots[i].call, c.slots[i].state = nil, slotFree
	c.free = append(c.free, i)
}

// abandon ends cl with err in the reader's stead, unless its answer is arriving
// or has arrived. The call still completes only when its payload has been sent.
func (c *Conn) abandon(cl *call, err error) {
	c.mu.Lock()
	waiting := false
	if int(cl.slot) < len(c.slots) {
		s := &c.slots[cl.slot]
		if waiting = s.call == cl && s.state == slotWaiting; waiting {
			s.call, s.state = nil, slotAbandoned
		}
	}
	c.mu.Unlock()
	if waiting {
		cl.finish(proto.Response{}, nil, err)
	}
}

// takeAll returns the calls that never got an answer.
func (c *Conn) takeAll() []*call {
	c.mu.Lock()
	defer c.mu.Unlock()
	var calls []*call
	for i := range c.slots {
		if cl := c.slots[i].call; cl != nil {
			calls = append(calls, cl)
			c.slots[i].call, c.slots[i].state = nil, slotFree
		}
	}
	return calls
}
