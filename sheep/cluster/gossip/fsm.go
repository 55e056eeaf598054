package gossip

import (
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// A delivery is a step of Raft's log on its way to the machine. It has entries,
// perhaps none, or a snapshot to restore, or the question for one.
type delivery struct {
	raft    uint64 // Raft's index
	entries []cluster.Entry
	restore *restoration
	ask     chan<- []byte // gets the machine's state
}

type restoration struct {
	index uint64
	state []byte
}

// own reports whether the delivery has an entry of the kind about a member.
func (v delivery) own(inc sheep.Incarnation, kind cluster.EntryKind) bool {
	for _, e := range v.entries {
		if e.Member == inc && e.Kind == kind {
			return true
		}
	}
	return false
}

// A crown is the latest reign in the log, with its term in Raft.
type crown struct{ reign, term uint64 }

// fsm is the driver as Raft sees it. Raft makes all calls from one goroutine.
type fsm struct{ d *Driver }

var _ raft.FSM = fsm{}

// Apply implements raft.FSM. It returns what the author is told.
func (f fsm) Apply(l *raft.Log) any {
	d := f.d
	c, err := decodeCommand(l.Data)
	d.mu.Lock()
	entries, told := []cluster.Entry(nil), err
	if err == nil {
		entries, told = d.ledger.apply(l.Index, c)
	} else {
		d.ledger.raft = l.Index
	}
	if c.kind == commandReign {
		d.crowned = crown{c.reign, l.Term}
	}
	realm := d.ledger.kingdom
	d.mu.Unlock()
	if c.kind == commandReign {
		d.belong(realm)
	}
	d.push(delivery{raft: l.Index, entries: entries})
	for _, e := range entries {
		if e.Kind != cluster.EntryMessage {
			d.wake.fire()
			break
		}
	}
	return told
}

// push hands a delivery over unless nobody takes any more.
func (d *Driver) push(v delivery) bool {
	select {
	case d.deliveries <- v:
		return true
	case <-d.stopped:
		return false
	}
}

// Snapshot implements raft.FSM.
func (f fsm) Snapshot() (raft.FSMSnapshot, error) {
	d := f.d
	answer := make(chan []byte, 1)
	if !d.push(delivery{ask: answer}) {
		return nil, errNotMember
	}
	select {
	case state := <-answer:
		d.mu.Lock()
		defer d.mu.Unlock()
		return snapshot(append(d.ledger.append(nil), state...)), nil
	case <-d.stopped:
		return nil, errNotMember
	}
}

// Restore implements raft.FSM.
func (f fsm) Restore(r io.ReadCloser) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("read a snapshot: %w", err)
	}
	l, state, err := decodeLedger(b)
	if err != nil {
		return err
	}
	d := f.d
	d.mu.Lock()
	d.ledger = l
	d.mu.Unlock()
	d.belong(l.kingdom)
	d.push(delivery{raft: l.raft, restore: &restoration{l.index, state}})
	return nil
}

// A snapshot is marshalled already.
type snapshot []byte

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		sink.Cancel()
		return fmt.Errorf("write a snapshot: %w", err)
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (snapshot) Release() {}

// deliver gives the machine a delivery.
func (d *Driver) deliver(v delivery, m cluster.Machine) error {
	switch {
	case v.ask != nil:
		v.ask <- m.Snapshot()
		return nil
	case v.restore != nil && d.joined:
		// What the snapshot has left out would have had effects on this node.
		return fmt.Errorf("%w: this process was expelled: it fell behind by more than the log keeps", sheep.ErrCluster)
	case v.restore != nil:
		if err := m.Restore(v.restore.index, v.restore.state); err != nil {
			return fmt.Errorf("restore a snapshot of the cluster: %w", err)
		}
	}
	for _, e := range v.entries {
		m.Apply(e)
		if e.Member == d.inc && e.Kind == cluster.EntryLeave {
			d.depart(string(e.Data))
			break
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applied = max(d.applied, v.raft)
	d.wakeLocked()
	return nil
}

func (d *Driver) wakeLocked() {
	if d.moved != nil {
		close(d.moved)
		d.moved = nil
	}
}

// depart ends this process's membership.
func (d *Driver) depart(reason string) {
	d.beat.Store(-1)
	d.gone = true
	if reason != "left" {
		d.left = expelled(reason)
	}
}

func expelled(reason string) error {
	return fmt.Errorf("%w: this process was expelled: %s", sheep.ErrCluster, reason)
}

// belong notes which kingdom this node is of.
func (d *Driver) belong(k kingdom) {
	d.mu.Lock()
	same := d.kingdom == k
	d.kingdom = k
	d.mu.Unlock()
	if same || !k.known() {
		return
	}
	if err := d.home.setKingdom(k); err != nil {
		d.log.Error("note which cluster this node belongs to", "err", err)
	}
	d.gossip.update()
}

func (d *Driver) realm() kingdom {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kingdom
}
