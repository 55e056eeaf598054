package store

import (
	"context"

	"sheepdog/sheep"
)

// A Commit is the durability of one change. Wait or Notify is called once.
// The zero Commit is for a change of which nothing must be awaited: it is
// durable, or its caller did not ask for that.
type Commit struct {
	store  *Store
	id     sheep.ObjectID
	seq    uint64 // the record that must be durable
	direct bool   // so must the object's file
}

// Pending reports whether there is anything to wait for.
func (c Commit) Pending() bool { return c.store != nil }

// Wait returns nil when the change may be answered. If ctx ends before, the
// change may still become durable.
func (c Commit) Wait(ctx context.Context) error {
	if c.store == nil {
		return nil
	}
	if c.direct {
		seq, err := c.store.settle(c.id)
		if err != nil {
			return err
		}
		c.seq = max(c.seq, seq)
	}
	return c.store.journal.Wait(ctx, c.seq)
}

// Notify is Wait that calls done instead of returning: on another goroutine,
// which done must not block, or before Notify returns.
func (c Commit) Notify(done func(error)) {
	switch {
	case c.store == nil:
		done(nil)
	case !c.direct:
		c.store.journal.Notify(c.seq, done)
	default:
		// A sync of a file takes milliseconds; a goroutine costs nothing
		// beside it.
		c.store.jobs.Go(func() {
			seq, err := c.store.settle(c.id)
			if err != nil {
				done(err)
				return
			}
			c.store.journal.Notify(max(c.seq, seq), done)
		})
	}
}
