package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
)

// machine is the Cluster as its driver sees it.
type machine struct{ c *Cluster }

// An applier is what the goroutine that applies the log keeps to itself.
type applier struct {
	ctx    context.Context         // of Run; here because turns start from within the log
	cancel context.CancelCauseFunc // ends Run

	member bool        // this node's join was accepted
	epoch  sheep.Epoch // the newest in the node's store
	ctime  uint64      // of the cluster that the node's store is formatted for
	turn   *running    // the plan that this node runs
	told   bool        // Stop was called
	reason error       // why Run is to end, if not because of its context

	turnover bool          // the entry before was one with More
	owners   []ownerChange // that the node is to be told of
	next     *turn         // that it is to begin

	wg sync.WaitGroup // everything that Run has started
}

func (m machine) Restore(index uint64, snapshot []byte) error {
	s := newState()
	if len(snapshot) > 0 {
		var err error
		if s, err = restoreState(snapshot); err != nil {
			return err
		}
	}
	s.index = index
	m.c.mu.Lock()
	defer m.c.mu.Unlock()
	m.c.state = s
	return nil
}

func (m machine) Snapshot() []byte {
	m.c.mu.RLock()
	defer m.c.mu.RUnlock()
	return m.c.state.marshal()
}

func (m machine) Apply(e Entry) {
	c, a := m.c, &m.c.applying
	if a.reason != nil {
		return
	}
	c.mu.Lock()
	fx := c.state.apply(e)
	a.turnover = c.state.turnover
	joined := c.state.member(c.inc) != nil && (a.member || !a.turnover) // a member between two entries of one step is none yet
	c.mu.Unlock()
	switch {
	case joined:
		c.follow(&fx)
	case a.member: // what follows is none of its business any more
		a.member = false
		c.lease.Store(false)
	}
	for _, r := range fx.refused {
		if r.member == c.inc {
			c.stop(r.reason)
		}
	}
	c.answer(e, &fx)
}

// follow makes the node act on what the log has changed.
func (c *Cluster) follow(fx *effects) {
	a := &c.applying
	first := !a.member
	a.member = true
	if first || fx.view {
		if err := c.install(fx.format); err != nil {
			c.stop(err)
			return
		}
	}
	if first {
		c.tellOwners()
		c.lease.Store(true)
		c.contribute()
	}
	for _, d := range fx.done {
		c.endTurn(d.index)
	}
	a.owners = append(a.owners, fx.owners...)
	if fx.turn != nil {
		a.next = fx.turn
	}
	if !a.turnover {
		c.handOn()
	}
	if fx.shutdown {
		c.stopHook(sheep.ErrShutdown)
	}
}

// handOn tells the node who owns what from now on, and starts the turn that it has.
// After a member's departure that is not before the epoch without it has begun: in
// the one before, what the dead was writing may be on some copies only.
func (c *Cluster) handOn() {
	a := &c.applying
	for _, o := range a.owners {
		c.cfg.Hooks.Ownership(o.vid, o.old, o.new)
	}
	if len(a.owners) > 0 {
		c.advanced.fire()
	}
	if a.next != nil {
		c.startTurn(a.next)
	}
	a.owners, a.next = nil, nil
}

// tellOwners tells the node, which has just joined, who owns what.
func (c *Cluster) tellOwners() {
	c.mu.RLock()
	var owned []ownerChange
	for _, vid := range c.state.ownedBy(func(owner) bool { return true }) {
		owned = append(owned, ownerChange{vid: vid, new: c.state.ownership(vid)})
	}
	c.mu.RUnlock()
	for _, o := range owned {
		c.cfg.Hooks.Ownership(o.vid, o.old, o.new)
	}
}

// install has the node act on a new view and publishes it.
func (c *Cluster) install(format bool) error {
	a := &c.applying
	v := c.buildView()
	if format || v.Status == OK && v.Settings.Ctime != a.ctime {
		if err := c.cfg.Hooks.Format(v.Settings); err != nil {
			return fmt.Errorf("format the store: %w", err)
		}
		a.ctime, a.epoch = v.Settings.Ctime, 0
	}
	// The epoch of a cluster that this store does not belong to yet is not its own.
	epochChanged := v.Epoch != a.epoch && v.Settings.Ctime == a.ctime
	if err := c.cfg.Hooks.Install(v, epochChanged); err != nil {
		return fmt.Errorf("install epoch %d: %w", v.Epoch, err)
	}
	if epochChanged {
		a.epoch = v.Epoch
		c.log.Info("new epoch", "epoch", v.Epoch, "nodes", len(v.Nodes))
	}
	c.view.Store(v)
	c.changed.fire()
	return nil
}

// buildView returns the view of the present state.
func (c *Cluster) buildView() *View {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s, last := c.state, c.View()
	v := &View{
		Index:            s.index,
		Status:           s.status,
		Epoch:            s.epoch,
		EpochTime:        unixTime(s.epochTime),
		Nodes:            slices.Clone(s.nodes),
		Members:          make([]Member, len(s.members)),
		Settings:         s.settings,
		RecoveryDisabled: s.recoveryOff,
		ForcedEpoch:      s.forced,
		HealedEpoch:      s.healed,
		Joined:           c.applying.member,
	}
	s.healing.show(v, c.cfg.HealDelay)
	s.deadlines.show(v)
	for i, m := range s.members {
		v.Members[i] = Member{Node: m.node, Incarnation: m.inc, Joined: m.joined, Complete: m.complete}
	}
	slices.SortFunc(v.Members, func(a, b Member) int { return sheep.CompareAddr(a.Node.Addr, b.Node.Addr) })
	v.Self = slices.IndexFunc(v.Nodes, func(n sheep.Node) bool { return n.Addr == c.self.Addr })
	if v.Ring = last.Ring; !slices.Equal(v.Nodes, last.Nodes) {
		v.Ring = newRing(v.Nodes)
	}
	return v
}

func newRing(nodes []sheep.Node) *placement.Ring { return placement.NewRing(nodes) }

// answer tells the proposer on this node what became of its message, and the
// callers of Plan on this node what became of their plans.
func (c *Cluster) answer(e Entry, fx *effects) {
	c.waitMu.Lock()
	defer c.waitMu.Unlock()
	if r := fx.reply; r != nil && r.member == c.inc {
		done, ok := c.waiting[r.seq]
		delete(c.waiting, r.seq)
		switch {
		case !ok:
		case r.plan && r.err == nil:
			c.planned[e.Index] = done
		default:
			done <- outcome{index: e.Index, ownership: r.ownership, err: r.err}
		}
	}
	for _, d := range fx.done {
		err := d.err
		if own := c.failed[d.index]; own != nil {
			err = own
			delete(c.failed, d.index)
		}
		if done, ok := c.planned[d.index]; ok && d.proposer == c.inc {
			delete(c.planned, d.index)
			done <- outcome{index: d.index, result: d.result, err: err}
		}
	}
}

// stop ends Run with the reason.
func (c *Cluster) stop(reason error) {
	if c.applying.reason == nil {
		c.applying.reason = reason
	}
	c.lease.Store(false)
	c.stopHook(reason)
	c.applying.cancel(reason)
}

// stopHook tells the node once that it is to stop.
func (c *Cluster) stopHook(reason error) {
	if !c.applying.told {
		c.applying.told = true
		c.cfg.Hooks.Stop(reason)
	}
}

// contributionSize bounds the encoded VDIs of one message.
const contributionSize = MaxMessage / 2

// contribute tells the others the VDIs of this node's store, if the cluster
// waits for its members.
func (c *Cluster) contribute() {
	c.mu.RLock()
	m := c.state.member(c.inc)
	owed := m != nil && m.owed > 0
	c.mu.RUnlock()
	if !owed {
		return
	}
	c.applying.wg.Go(func() {
		for vdis := c.cfg.History.VDIs; len(vdis) > 0; {
			n := fitting(vdis)
			if _, err := c.propose(c.applying.ctx, contributeMsg{vdis[:n]}); err != nil {
				c.log.Error("tell the cluster the VDIs of this store", "err", err)
				return
			}
			vdis = vdis[n:]
		}
	})
}

// fitting returns how many of vdis one message takes, at least one.
func fitting(vdis []KnownVDI) int {
	size := 0
	for i, v := range vdis {
		size += vdiSize + 4 + len(v.VDI.Name)
		if size > contributionSize && i > 0 {
			return i
		}
	}
	return len(vdis)
}
