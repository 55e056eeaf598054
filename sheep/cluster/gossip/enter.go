package gossip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// searchReport is how often a node says in its log that it finds no cluster.
const searchReport = 10 * time.Second

// enter has this node let in, and logs its join.
func (d *Driver) enter(ctx context.Context, hello []byte) {
	defer close(d.entered)
	err := d.seek(ctx)
	if err == nil {
		err = d.join(ctx, hello)
	}
	if err != nil && ctx.Err() == nil {
		d.lose(fmt.Errorf("join the cluster: %w", err))
	}
}

// join logs this member's join. That it was logged renews the lease: a majority
// has taken the entry from a leader that was asked later than the lease counts
// from.
func (d *Driver) join(ctx context.Context, hello []byte) error {
	c := command{kind: commandJoin, who: d.inc, time: time.Now().UnixNano(), id: d.home.id, data: hello}
	body := c.append(nil)
	return d.retry(ctx, func(ctx context.Context) error {
		asked := boottime()
		err := d.ask(ctx, pathApply, body, nil, func() error { return d.apply(ctx, body, "") })
		if err == nil {
			d.beat.CompareAndSwap(0, asked)
		}
		return err
	})
}

// seek returns when the log of a cluster comes to this node.
func (d *Driver) seek(ctx context.Context) error {
	pause := firstRetry
	var reported time.Time
	began := time.Now()
	for {
		if err := d.ended(); err != nil {
			return err
		}
		changed := d.wake.wait()
		err := d.enrolAnywhere(ctx)
		if err == nil || errors.Is(err, errOtherCluster) {
			return err
		}
		if now := time.Now(); now.Sub(began) > searchReport/2 && now.Sub(reported) > searchReport {
			reported = now
			d.log.Warn("found no cluster that lets this node in yet, and goes on asking",
				"asked", strings.Join(d.acquaintances(ctx), " "), "err", err)
		}
		select {
		case <-changed:
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		pause = min(2*pause, lastRetry)
	}
}

// enrolAnywhere asks the leader to let this node in: the one that Raft knows
// of, else the one that anybody else does.
func (d *Driver) enrolAnywhere(ctx context.Context) error {
	l, err := d.leader()
	if err == nil && l.ID != "" {
		if err = d.enrolAt(ctx, l); err == nil || errors.Is(err, errOtherCluster) {
			return err
		}
	}
	all := err
	for _, addr := range d.acquaintances(ctx) {
		once, cancel := context.WithTimeout(ctx, d.cfg.Lease/4)
		var l leaderAnswer
		err := d.post(once, addr, pathLeader, struct{}{}, &l)
		if err == nil && l.ID == "" {
			err = fmt.Errorf("%s: %w, and knows of none that does", addr, errNotLeader)
		}
		if err == nil && l.ID != d.home.id {
			err = d.enrolAt(once, l)
		}
		cancel()
		if err == nil || errors.Is(err, errOtherCluster) {
			return err
		}
		all = errors.Join(all, err)
	}
	if all == nil {
		all = errNotLeader
	}
	return all
}

func (d *Driver) enrolAt(ctx context.Context, l leaderAnswer) error {
	q := enrolRequest{ID: d.home.id, Addr: d.port.advertise.String(), Born: d.gossip.born, Kingdom: d.realm().append(nil)}
	var a enrolAnswer
	err := d.askAt(ctx, l, pathEnrol, q, &a, func() (err error) {
		a, err = d.enrol(ctx, q)
		return err
	})
	if err != nil {
		return err
	}
	k, err := decodeKingdom(a.Kingdom)
	if err != nil {
		return err
	}
	return d.adopt(k)
}

// adopt takes the kingdom that has let this node in for its own. If this node's
// log tells a branch that was given up, it has to begin anew.
func (d *Driver) adopt(k kingdom) error {
	own := d.realm()
	switch {
	case !own.known():
		d.belong(k)
	case own.cluster == k.cluster && own.branch < k.branch:
		if err := d.home.forget(); err != nil {
			return err
		}
		d.lose(expelled("an operator gave up the history that this node knows; it takes over the other one"))
	}
	return nil
}

// enrol lets a node in; only the leader does.
func (d *Driver) enrol(_ context.Context, q enrolRequest) (enrolAnswer, error) {
	r, err := d.reigning()
	if err != nil {
		return enrolAnswer{}, err
	}
	theirs, err := decodeKingdom(q.Kingdom)
	if err != nil {
		return enrolAnswer{}, err
	}
	own := d.realm()
	a := enrolAnswer{Kingdom: own.append(nil)}
	switch {
	case q.ID == "" || len(q.ID) > 64 || q.Addr == "":
		return a, errBadCommand
	case theirs.known() && theirs.cluster != own.cluster:
		return a, fmt.Errorf("%w: the log of %s tells of cluster %v, this is %v; "+
			"remove the directory \"gossip\" of its store if it is to forget the other one", errOtherCluster, q.Addr, theirs, own)
	case theirs.known() && theirs.branch != own.branch:
		return a, nil // it learns from the answer what it has to do
	}
	d.gossip.learn(q.ID, whereabouts{q.Addr, q.Born})
	r.mu.Lock()
	r.invited[q.ID] = boottime()
	r.mu.Unlock()
	if d.addressIn(q.ID) == q.Addr {
		return a, nil
	}
	done := d.raft.AddNonvoter(raft.ServerID(q.ID), raft.ServerAddress(q.Addr), 0, applyPatience)
	if err := done.Error(); err != nil {
		return a, fmt.Errorf("%w: %w", errNotLeader, err)
	}
	d.log.Info("a node follows the log", "node", q.ID, "address", q.Addr)
	d.wake.fire()
	return a, nil
}

// acquaintances returns the addresses of nodes that this one has ever heard of,
// its seeds first.
func (d *Driver) acquaintances(ctx context.Context) []string {
	addrs := append(d.seeds(ctx), d.gossip.addresses()...)
	for _, s := range d.servers() {
		if string(s.ID) != d.home.id && d.addressOf(string(s.ID)) == "" {
			addrs = append(addrs, string(s.Address))
		}
	}
	if peers, err := d.home.peers(); err == nil {
		for _, addr := range peers {
			addrs = append(addrs, addr)
		}
	}
	var known []string
	for _, addr := range addrs {
		if addr != d.port.advertise.String() && !slices.Contains(known, addr) {
			known = append(known, addr)
		}
	}
	return known
}
