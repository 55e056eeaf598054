package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
// from before the question. A member that should be taken for dead asks, too: that
// it has left is often the reason, and it would not hear of it otherwise.
func (d *Driver) renewOwn(ctx context.Context, ahead *target) error {
	unfit := d.healthy(ahead)
	patience := max(d.cfg.Lease/4, 2*d.cfg.Heartbeat)
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	last, now := d.leaseStart.Load(), boottime()
	if last < 0 {
		return errNotMember
	}
	q := renewRequest{d.inc, unfit != nil}
	var a indexAnswer
	err := d.askLeader(asking, pathRenew, q, &a, func() (err error) {
		a, err = d.renew(asking, q, "")
		return err
	})
	if err != nil && !errors.Is(err, errDeparted) && d.Lease() != nil && d.hasDeparted(ctx, patience) {
		err = errDeparted
	}
	if unfit != nil && !errors.Is(err, errDeparted) {
		err = unfit
	}
	if err != nil {
		return err
	}
	d.leaseStart.CompareAndSwap(last, now) // unless the membership has ended meanwhile
	if d.hasApplied(ahead.raftIndex) {
		*ahead = target{a.Index, now}
	}
	return nil
}

// asked is how many nodes a member asks at a time that has lost the others.
const asked = 5

// hasDeparted asks some of the nodes that this one knows who leads, and those
// leaders whether this process is a member: Raft tells nothing to a node that it
// has taken out of its servers.
func (d *Driver) hasDeparted(ctx context.Context, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	addrs := d.knownAddresses(ctx)
	rand.Shuffle(len(addrs), func(i, k int) { addrs[i], addrs[k] = addrs[k], addrs[i] })
	addrs = addrs[:min(len(addrs), asked)]
	answers := make(chan error, len(addrs))
	for _, addr := range addrs {
		go func() {
			var l leaderAnswer
			err := d.post(ctx, addr, pathLeader, struct{}{}, &l)
			if err == nil && l.ID != d.data.id {
				var a indexAnswer
				err = d.askAt(ctx, l, pathRenew, renewRequest{d.inc, true}, &a, nil)
			}
			answers <- err
		}()
	}
	for range addrs {
		if errors.Is(<-answers, errDeparted) {
			return true
		}
	}
	return false
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
	switch {
	case !isMember:
		return indexAnswer{}, errDeparted
	case q.Unfit:
		return indexAnswer{}, errNotLeader // whose lease is not renewed
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
