package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// A script is a driver that delivers entries which were made before.
type script struct {
	hello func(self cluster.Self) // if not nil, Run only tells what it was given
	run   func(m cluster.Machine) error
}

func (s *script) Run(_ context.Context, self cluster.Self, m cluster.Machine) error {
	if s.hello != nil {
		s.hello(self)
		return nil
	}
	if err := m.Restore(0, nil); err != nil {
		return err
	}
	return s.run(m)
}

func (s *script) Propose(context.Context, []byte) error { return nil }
func (s *script) Sync(context.Context) error            { return nil }
func (s *script) Lease() error                          { return nil }

// idle is a daemon that does nothing with what it is told.
type idle struct{}

func (idle) Install(*cluster.View, bool) error                           { return nil }
func (idle) Format(cluster.Settings) error                               { return nil }
func (idle) Ownership(sheep.VDIID, cluster.Ownership, cluster.Ownership) {}
func (idle) Stop(error)                                                  {}
func (idle) Execute(context.Context, *cluster.Turn) ([]byte, []cluster.VDIChange, error) {
	return nil, nil, nil
}

// settings are those of a cluster that was formatted.
var settings = cluster.Settings{Ctime: 1, Copies: 3, BlockShift: 22, Flags: cluster.FlagAutoVNode, Store: "plain"}

// newMember returns the cluster as the node with the number sees it.
func newMember(i int, d cluster.Driver, h cluster.History) *cluster.Cluster {
	return cluster.New(cluster.Config{
		Node: node(i, false), Incarnation: sheep.Incarnation(i + 1), Driver: d, Hooks: idle{}, Executor: idle{}, History: h,
	})
}

// measureMembership has one node see nodes join, the first of which have stores
// of the same epoch, and one leave.
func measureMembership(t *table, nodes int) error {
	first := cluster.History{Epoch: 1, Nodes: nodesOf(1, false), Time: time.Unix(1, 0), Settings: settings, Healed: 1}
	var joins []cluster.Entry
	for i := range nodes {
		var h cluster.History
		if i == 0 {
			h = first
		}
		c := newMember(i, &script{hello: func(self cluster.Self) {
			joins = append(joins, cluster.Entry{Kind: cluster.EntryJoin, Member: self.Incarnation, Data: self.Hello})
		}}, h)
		if err := c.Run(context.Background()); err != nil {
			return err
		}
	}
	var last, leave []time.Duration
	var snapshot int
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	self := newMember(0, &script{run: func(m cluster.Machine) error {
		index := uint64(0)
		apply := func(e cluster.Entry) time.Duration {
			index++
			e.Index, e.Time = index, int64(index)
			began := time.Now()
			m.Apply(e)
			return time.Since(began)
		}
		for i, e := range joins {
			if took := apply(e); i >= nodes*9/10 {
				last = append(last, took)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		snapshot = len(m.Snapshot())
		for _, e := range joins[nodes*9/10:] {
			leave = append(leave, apply(cluster.Entry{Kind: cluster.EntryLeave, Member: e.Member}))
		}
		return nil
	}}, first)
	err := self.Run(context.Background())
	if v := self.View(); err == nil && v.Epoch != sheep.Epoch(1+len(joins)-1+len(leave)) {
		err = fmt.Errorf("the last epoch is %d with %d nodes", v.Epoch, len(v.Nodes))
	}
	if err != nil {
		return err
	}
	t.row("a node joins: time for each node to install the epoch, without its disk", middle(last).Round(time.Microsecond).String())
	t.row("a node leaves: the same", middle(leave).Round(time.Microsecond).String())
	t.row("memory of each node for membership and rings", fmt.Sprintf("%.1f MiB", float64(after.HeapAlloc-before.HeapAlloc)/(1<<20)))
	t.row("state of the cluster in a snapshot of the log", fmt.Sprintf("%.1f KiB", float64(snapshot)/(1<<10)))
	return nil
}
