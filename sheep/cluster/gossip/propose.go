package gossip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// Between two attempts at something, unless there is news.
const (
	firstRetry = 20 * time.Millisecond
	lastRetry  = 500 * time.Millisecond
)

// Propose implements cluster.Driver. While there is no majority it waits.
func (d *Driver) Propose(ctx context.Context, data []byte) error {
	if len(data) > cluster.MaxMessage {
		return fmt.Errorf("propose: %w: %d bytes", sheep.ErrInvalid, len(data))
	}
	c := command{kind: commandMessage, who: d.inc, time: time.Now().UnixNano(), data: data}
	if err := d.submit(ctx, c); err != nil {
		return fmt.Errorf("propose: %w", err)
	}
	return nil
}

// submit has the leader log a command, and tries again until it is certain.
func (d *Driver) submit(ctx context.Context, c command) error {
	return d.retry(ctx, func(ctx context.Context) error {
		body := c.append(nil)
		return d.ask(ctx, pathApply, body, nil, func() error { return d.apply(ctx, body, "") })
	})
}

// attempt bounds one attempt, so that a leader that has vanished does not keep
// a call from the next one.
func (d *Driver) attempt() time.Duration { return d.cfg.Lease }

// retry calls f until it succeeds, fails for good, or the membership ends.
func (d *Driver) retry(ctx context.Context, f func(context.Context) error) error {
	pause := firstRetry
	for {
		if err := d.ended(); err != nil {
			return err
		}
		changed := d.wake.wait()
		once, cancel := context.WithTimeout(ctx, d.attempt())
		err := f(once)
		cancel()
		switch {
		case err == nil:
			return nil
		case isCause(err):
			return fmt.Errorf("%w: %w", sheep.ErrCluster, err)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		select {
		case <-changed:
		case <-time.After(pause):
		case <-d.stopped:
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		pause = min(2*pause, lastRetry)
	}
}

// ended returns why no call can succeed, or nil.
func (d *Driver) ended() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running {
		return nil
	}
	return cmp.Or(d.err, errNotMember)
}

// apply logs a command for its author; only the leader does.
func (d *Driver) apply(ctx context.Context, body []byte, from string) error {
	r, err := d.reigning()
	if err != nil {
		return err
	}
	c, err := decodeCommand(body)
	if err != nil {
		return err
	}
	switch {
	case c.reign != 0 || c.kind == commandReign:
		return fmt.Errorf("%w: kind %d in reign %d", errBadCommand, c.kind, c.reign)
	case c.kind == commandJoin:
		if err := d.awaitFormer(ctx, r, c, from); err != nil {
			return err
		}
	}
	f := d.raft.Apply(body, applyPatience)
	if err := f.Error(); err != nil {
		return fmt.Errorf("%w: %w", errNotLeader, err)
	}
	d.nudge.tell(d.raft)
	if c.kind == commandJoin {
		r.hear(c.who, c.id, from)
	}
	if err, ok := f.Response().(error); ok {
		return err
	}
	return nil
}

// awaitFormer waits until the former life of a node that joins is over for
// certain. If it was heard of from the same host, it is: its log was locked. From
// another one, somebody may have copied the store directory, and both live.
func (d *Driver) awaitFormer(ctx context.Context, r *reign, c command, from string) error {
	for _, s := range d.seats() {
		if s.id != c.id || s.who == c.who {
			continue
		}
		r.mu.Lock()
		seen, heard := r.seen[s.who]
		host := r.hosts[s.id]
		r.mu.Unlock()
		if !heard { // this leader is new; where it was reached is the best that there is
			seen, host = boottime(), hostOf(d.addressIn(c.id))
		}
		left := time.Duration(seen + int64(d.cfg.Expel) - boottime())
		if from == "" || host == hostOf(from) || left <= 0 {
			continue
		}
		select {
		case <-time.After(min(left, d.attempt()/2)):
		case <-ctx.Done():
		}
		return errors.New("the former life of this node may not be over") // it asks again
	}
	return nil
}

// addressIn returns the address of a node in Raft's configuration.
func (d *Driver) addressIn(id string) string {
	return string(d.configured(d.servers(), raft.ServerID(id)))
}

// Sync implements cluster.Driver.
func (d *Driver) Sync(ctx context.Context) error {
	var goal goalAnswer
	err := d.retry(ctx, func(ctx context.Context) error {
		return d.ask(ctx, pathRead, struct{}{}, &goal, func() (err error) {
			goal, err = d.read(ctx)
			return err
		})
	})
	if err == nil {
		err = d.reach(ctx, goal.Raft)
	}
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// read returns how far the log goes that anybody may have been told of; only
// the leader does. Whoever was told was so after the command was applied here,
// or by a later leader, and then no majority confirms this one.
func (d *Driver) read(ctx context.Context) (goalAnswer, error) {
	r, err := d.reigning()
	if err != nil {
		return goalAnswer{}, err
	}
	d.mu.Lock()
	last := d.ledger.raft
	d.mu.Unlock()
	return goalAnswer{last}, d.confirm(ctx, r)
}

// reach waits until the machine was given everything up to Raft's index.
func (d *Driver) reach(ctx context.Context, index uint64) error {
	for {
		d.mu.Lock()
		applied, err := d.applied, d.err
		if d.moved == nil {
			d.moved = make(chan struct{})
		}
		moved := d.moved
		d.mu.Unlock()
		switch {
		case applied >= index:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
