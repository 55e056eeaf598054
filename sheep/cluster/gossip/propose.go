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
	c := command{kind: commandMessage, inc: d.inc, time: time.Now().UnixNano(), data: data}
	if err := d.submit(ctx, c); err != nil {
		return fmt.Errorf("propose: %w", err)
	}
	return nil
}

// submit has the leader log a command, and tries again until it is certain.
func (d *Driver) submit(ctx context.Context, c command) error {
	return d.retry(ctx, func(ctx context.Context) error {
		body := c.append(nil)
		return d.askLeader(ctx, pathApply, body, nil, func() error { return d.apply(ctx, body, "") })
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
		case isPermanent(err):
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
	l, err := d.leading()
	if err != nil {
		return err
	}
	c, err := decodeCommand(body)
	if err != nil {
		return err
	}
	switch {
	case c.kind != commandJoin && c.kind != commandLeave && c.kind != commandMessage:
		return fmt.Errorf("%w: kind %d is for the leader", errBadCommand, c.kind)
	case c.kind == commandJoin:
		if err := d.awaitPredecessor(ctx, l, c, from); err != nil {
			return err
		}
		log, ok := l.mayJoin(c, d.members(), boottime())
		if !ok {
			return errors.New("members have not been heard of yet") // it asks again
		}
		body = log.append(nil)
	}
	f := d.raft.Apply(body, applyTimeout)
	if err := f.Error(); err != nil {
		return fmt.Errorf("%w: %w", errNotLeader, err)
	}
	d.commits.notify(d.raft)
	if c.kind == commandJoin {
		l.contact(c.inc, c.id, from)
	}
	if err, ok := f.Response().(error); ok {
		return err
	}
	return nil
}

// awaitPredecessor waits until the former life of a node that joins is over for
// certain. If it was heard of from the same host, it is: its log was locked. From
// another one, somebody may have copied the store directory, and both live.
func (d *Driver) awaitPredecessor(ctx context.Context, l *leadership, c command, from string) error {
	for _, m := range d.members() {
		if m.id != c.id || m.inc == c.inc {
			continue
		}
		l.mu.Lock()
		last, known := l.lastContact[m.inc]
		host, heard := l.hosts[m.id], l.heard[m.inc]
		l.mu.Unlock()
		if !heard { // this leader is new; where it was reached is the best that there is
			host = hostOf(d.configuredAddress(c.id))
		}
		if !known {
			last = boottime()
		}
		left := time.Duration(last + int64(d.cfg.ExpelAfter) - boottime())
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

// configuredAddress returns the address of a node in Raft's configuration.
func (d *Driver) configuredAddress(id string) string {
	return string(configuredAddress(d.servers(), raft.ServerID(id)))
}

// Sync implements cluster.Driver.
func (d *Driver) Sync(ctx context.Context) error {
	var goal indexAnswer
	err := d.retry(ctx, func(ctx context.Context) error {
		return d.askLeader(ctx, pathReadIndex, struct{}{}, &goal, func() (err error) {
			goal, err = d.readIndex(ctx)
			return err
		})
	})
	if err == nil {
		err = d.awaitApplied(ctx, goal.Index)
	}
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// read returns how far the log goes that anybody may have been told of; only
// the leader does. Whoever was told was so after the command was applied here,
// or by a later leader, and then no majority confirms this one.
func (d *Driver) readIndex(ctx context.Context) (indexAnswer, error) {
	l, err := d.leading()
	if err != nil {
		return indexAnswer{}, err
	}
	d.mu.Lock()
	last := d.state.raftIndex
	d.mu.Unlock()
	return indexAnswer{last}, d.verifyLeader(ctx, l)
}

// reach waits until the machine was given everything up to Raft's index.
func (d *Driver) awaitApplied(ctx context.Context, index uint64) error {
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
