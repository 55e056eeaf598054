// Package clustertest helps to test drivers and what is built on clusters.
//
// A Log is a cluster's log in memory, for tests of gateways, recovery or
// servers that need several members in one process and no driver of the real
// world. Drivers is the conformance suite that every driver passes: it starts
// members, kills and stops them, and compares what they were told.
//
// Nothing here survives its process, and a Log checks little: it is the model
// that real drivers are compared with.
package clustertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// A Log orders entries in memory. The zero value is an empty log.
type Log struct {
	mu      sync.Mutex
	entries []cluster.Entry               // guarded by mu
	members map[sheep.Incarnation]*member // guarded by mu
	grown   chan struct{}                 // guarded by mu; closed at the next entry
}

// A member is one driver of the log that has joined.
type member struct {
	expelled error // why it was expelled; nil if it was not
}

// Driver returns a driver for one more member.
func (l *Log) Driver() cluster.Driver { return &driver{log: l} }

// Expel logs that a member has left, without asking it. Its lease is over when
// Expel returns, and its driver's Run returns an error.
func (l *Log) Expel(inc sheep.Incarnation, reason string) { l.expel(inc, reason, false) }

// Restart is Expel in one step with the next entry, as if the member had started
// again.
func (l *Log) Restart(inc sheep.Incarnation) { l.expel(inc, "started again", true) }

func (l *Log) expel(inc sheep.Incarnation, reason string, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.members[inc]; m != nil && m.expelled == nil {
		m.expelled = fmt.Errorf("%w: expelled: %s", sheep.ErrCluster, reason)
		l.append(cluster.EntryLeave, inc, []byte(reason))
		l.entries[len(l.entries)-1].More = more
	}
}

// Entries returns a copy of all entries.
func (l *Log) Entries() []cluster.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// append logs an entry; the caller holds mu.
func (l *Log) append(kind cluster.EntryKind, inc sheep.Incarnation, data []byte) {
	l.entries = append(l.entries, cluster.Entry{
		Index:  uint64(len(l.entries) + 1),
		Kind:   kind,
		Member: inc,
		Time:   time.Now().UnixNano(),
		Data:   slices.Clone(data),
	})
	if l.grown != nil {
		close(l.grown)
		l.grown = nil
	}
}

// after returns the entries after the first n, or a channel that is closed
// when there are some.
func (l *Log) after(n int) ([]cluster.Entry, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) > n {
		return l.entries[n:], nil
	}
	if l.grown == nil {
		l.grown = make(chan struct{})
	}
	return nil, l.grown
}

// driver is one member's part in a Log.
type driver struct {
	log *Log

	mu      sync.Mutex
	self    sheep.Incarnation // guarded by mu; 0 before Run
	applied int               // guarded by mu; entries that the machine has seen
	moved   chan struct{}     // guarded by mu; closed when applied grows
	ended   bool              // guarded by mu; Run has returned
}

func (d *driver) Run(ctx context.Context, self cluster.Self, m cluster.Machine) error {
	defer d.end()
	if err := m.Restore(0, nil); err != nil {
		return err
	}
	d.join(self)
	for n := 0; ; {
		entries, grown := d.log.after(n)
		for _, e := range entries {
			m.Apply(e)
			n++
			d.advance(n)
			if e.Kind == cluster.EntryLeave && e.Member == self.Incarnation {
				return d.log.reason(self.Incarnation)
			}
		}
		if grown == nil {
			continue
		}
		select {
		case <-grown:
		case <-ctx.Done():
			d.log.leave(self.Incarnation)
			ctx = context.WithoutCancel(ctx)
		}
	}
}

func (d *driver) join(self cluster.Self) {
	d.mu.Lock()
	d.self = self.Incarnation
	d.mu.Unlock()
	l := d.log
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.members == nil {
		l.members = map[sheep.Incarnation]*member{}
	}
	l.members[self.Incarnation] = &member{}
	l.append(cluster.EntryJoin, self.Incarnation, self.Hello)
}

func (d *driver) advance(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applied = n
	d.wake()
}

// wake wakes those in Sync; the caller holds mu.
func (d *driver) wake() {
	if d.moved != nil {
		close(d.moved)
		d.moved = nil
	}
}

func (d *driver) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	d.wake()
}

// leave logs that a member leaves of itself, unless it was expelled.
func (l *Log) leave(inc sheep.Incarnation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.members[inc]; m.expelled == nil {
		l.append(cluster.EntryLeave, inc, nil)
		delete(l.members, inc)
	}
}

// reason returns why a member was expelled, nil if it left of itself.
func (l *Log) reason(inc sheep.Incarnation) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.members[inc]; m != nil {
		return m.expelled
	}
	return nil
}

func (d *driver) incarnation() sheep.Incarnation {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.self
}

func (d *driver) Propose(_ context.Context, data []byte) error {
	if err := d.Lease(); err != nil {
		return err
	}
	inc := d.incarnation()
	d.log.mu.Lock()
	defer d.log.mu.Unlock()
	d.log.append(cluster.EntryMessage, inc, data)
	return nil
}

func (d *driver) Sync(ctx context.Context) error {
	d.log.mu.Lock()
	want := len(d.log.entries)
	d.log.mu.Unlock()
	for {
		d.mu.Lock()
		if d.applied >= want {
			d.mu.Unlock()
			return nil
		}
		if d.ended {
			d.mu.Unlock()
			return fmt.Errorf("%w: not a member", sheep.ErrCluster)
		}
		if d.moved == nil {
			d.moved = make(chan struct{})
		}
		moved := d.moved
		d.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (d *driver) Lease() error {
	inc := d.incarnation()
	d.log.mu.Lock()
	defer d.log.mu.Unlock()
	m := d.log.members[inc]
	if m == nil {
		return fmt.Errorf("%w: not a member", sheep.ErrCluster)
	}
	return m.expelled
}
