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
	tick := time.NewTicker(d.cfg.Heartbeat)
	defer tick.Stop()
	var ahead target
	complained := false
	for {
		err := d.renewOwn(ctx, &ahead)
		switch {
		case d.leaseStart.Load() < 0:
			return
		case errors.Is(err, errDeparted) && d.leaving.Load():
			return
		case errors.Is(err, errDeparted):
			d.fail(expelled("the cluster has gone on without this node"))
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

// A target is a place in the log that this process has to come to.
type target struct {
	raftIndex uint64
	since     int64 // when it was set
}

// renewOwn asks the leader to renew the lease of this member. The lease counts
// from before the question.
func (d *Driver) renewOwn(ctx context.Context, ahead *target) error {
	if err := d.healthy(ahead); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, max(d.cfg.Lease/4, 2*d.cfg.Heartbeat))
	defer cancel()
	last, now := d.leaseStart.Load(), boottime()
	if last < 0 {
		return errNotMember
	}
	q := renewRequest{d.inc}
	var a indexAnswer
	err := d.askLeader(ctx, pathRenew, q, &a, func() (err error) {
		a, err = d.renew(ctx, q, "")
		return err
	})
	if err != nil {
		return err
	}
	d.leaseStart.CompareAndSwap(last, now) // unless the membership has ended meanwhile
	if d.hasApplied(ahead.raftIndex) {
		*ahead = target{a.Index, now}
	}
	return nil
}

// healthy returns why this process should be taken for dead, if it should: it
// does not get on with the log, or its store does not answer.
func (d *Driver) healthy(ahead *target) error {
	if late := time.Duration(boottime() - ahead.since); !d.hasApplied(ahead.raftIndex) && late > d.cfg.Lease/2 {
		return fmt.Errorf("%w: behind the log for %v", sheep.ErrCluster, late.Round(time.Millisecond))
	}
	if d.health != nil {
		return d.health()
	}
	return nil
}

func (d *Driver) hasApplied(index uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.applied >= index
}

// renew renews the lease of a member; only the leader does.
func (d *Driver) renew(ctx context.Context, q renewRequest, from string) (indexAnswer, error) {
	l, err := d.leading()
	if err != nil {
		return indexAnswer{}, err
	}
	d.mu.Lock()
	m, isMember := d.state.member(q.Member)
	last := d.state.raftIndex
	d.mu.Unlock()
	if !isMember {
		return indexAnswer{}, errDeparted
	}
	if !l.contact(q.Member, m.id, from) {
		return indexAnswer{}, errors.New("the member is being expelled")
	}
	return indexAnswer{last}, d.verifyLeader(ctx, l)
}

// Lease implements cluster.Driver.
func (d *Driver) Lease() error {
	last := d.leaseStart.Load()
	if last <= 0 {
		return errNotMember
	}
	if boottime()-last >= int64(d.cfg.Lease) {
		return errLapsed
	}
	return nil
}
