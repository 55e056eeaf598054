package nbd

import (
	"errors"
	"time"
)

// A reader that carries out a request itself reads nothing meanwhile. Mostly
// that takes microseconds. Should it take longer than one to two of these, a
// new goroutine reads on, and the old one only finishes its request.
const relief = 10 * time.Millisecond

// errDeposed is what a reader ends with when another has taken its place. It
// must not touch what belongs to the reader any more.
var errDeposed = errors.New("another goroutine reads now")

// runHere carries out a request on the goroutine of the reader. It returns
// false if that is not the reader any more.
func (c *conn) runHere(r *request) bool {
	turn := c.turn.Add(1)
	if !c.watched.Load() {
		c.watched.Store(true)
		c.watch.Reset(relief)
	}
	r.run()
	return c.turn.CompareAndSwap(turn, turn+1)
}

// relieve looks, every now and then while requests are carried out by the
// reader, whether it is still at the same one.
func (c *conn) relieve() {
	turn := c.turn.Load()
	stuck := turn%2 == 1 && turn == c.seen
	active := turn != c.seen
	c.seen = turn
	switch {
	case stuck && c.turn.CompareAndSwap(turn, turn+1):
		for i := range c.cost {
			c.cost[i].Store(int64(slowestCount)) // the next ones are for workers
		}
		c.readers.Go(func() {
			c.flush()
			if err := c.read(); err != errDeposed {
				c.last <- err
			}
		})
		c.watch.Reset(relief)
	case stuck || active:
		c.watch.Reset(relief)
	default:
		c.watched.Store(false)
		if c.turn.Load() != turn && c.watched.CompareAndSwap(false, true) {
			c.watch.Reset(relief) // the reader has just begun and believed in this watch
		}
	}
}
