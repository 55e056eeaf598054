package gossip

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sheepdog/sheep"
)

// keepLease renews the lease until ctx is done.
func (d *Driver) keepLease(ctx context.Context) {
	tick := time.NewTicker(d.cfg.Beat)
	defer tick.Stop()
	var ahead goal
	complained := false
	for {
		err := d.renewOwn(ctx, &ahead)
		switch {
		case d.beat.Load() < 0:
			return
		case errors.Is(err, errDeparted):
			d.lose(expelled("the cluster has gone on without this node"))
			return
		case err == nil && complained:
			d.log.Info("the lease of this node is renewed again")
			complained = false
		case err != nil && !complained && ctx.Err() == nil && d.Lease() != nil:
			d.log.Warn("the lease of this node has run out, it waits for the others", "err", err)
			complained = true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// A goal is a place in the log that this process has to come to.
type goal struct {
	raft  uint64
	since int64 // when it was set
}

// renewOwn asks the leader to renew the lease of this member. The lease counts
// from before the question.
func (d *Driver) renewOwn(ctx context.Context, ahead *goal) error {
	if err := d.healthy(ahead); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, max(d.cfg.Lease/4, 2*d.cfg.Beat))
	defer cancel()
	last, now := d.beat.Load(), boottime()
	if last < 0 {
		return errNotMember
	}
	q := renewRequest{d.inc}
	var a goalAnswer
	err := d.ask(ctx, pathRenew, q, &a, func() (err error) {
		a, err = d.renew(ctx, q, "")
		return err
	})
	if err != nil {
		return err
	}
	d.beat.CompareAndSwap(last, now) // unless the membership has ended meanwhile
	if d.reached(ahead.raft) {
		*ahead = goal{a.Raft, now}
	}
	return nil
}

// healthy returns why this process should be taken for dead, if it should: it
// does not get on with the log, or its store does not answer.
func (d *Driver) healthy(ahead *goal) error {
	if late := time.Duration(boottime() - ahead.since); !d.reached(ahead.raft) && late > d.cfg.Lease/2 {
		return fmt.Errorf("%w: behind the log for %v", sheep.ErrCluster, late.Round(time.Millisecond))
	}
	if d.health != nil {
		return d.health()
	}
	return nil
}

func (d *Driver) reached(index uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.applied >= index
}

// renew renews the lease of a member; only the leader does.
func (d *Driver) renew(ctx context.Context, q renewRequest, from string) (goalAnswer, error) {
	r, err := d.reigning()
	if err != nil {
		return goalAnswer{}, err
	}
	d.mu.Lock()
	s, member := d.ledger.seat(q.Member)
	last := d.ledger.raft
	d.mu.Unlock()
	if !member {
		return goalAnswer{}, errDeparted
	}
	if !r.hear(q.Member, s.id, from) {
		return goalAnswer{}, errors.New("the member is being expelled")
	}
	return goalAnswer{last}, d.confirm(ctx, r)
}

// Lease implements cluster.Driver.
func (d *Driver) Lease() error {
	last := d.beat.Load()
	if last <= 0 {
		return errNotMember
	}
	if boottime()-last >= int64(d.cfg.Lease) {
		return errLapsed
	}
	return nil
}
