package gossip

import (
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// A delivery is a step of Raft's log on its way to the machine. It has entries,
// perhaps none, or a snapshot to restore, or the wish for one.
type delivery struct {
	raftIndex uint64
	entries   []cluster.Entry
	restore   *machineState
	snapshot  chan<- []byte // gets the machine's state
}

// A machineState is the machine's state after the entry with the index.
type machineState struct {
	index uint64
	state []byte
}

// has reports whether the delivery has an entry of the kind about a member.
func (v delivery) has(inc sheep.Incarnation, kind cluster.EntryKind) bool {
	for _, e := range v.entries {
		if e.Member == inc && e.Kind == kind {
			return true
		}
	}
	return false
}

// An election is the begin of a leadership in the log.
type election struct{ leadership, term uint64 }

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
		entries, told = d.state.apply(l.Index, c)
	} else {
		d.state.raftIndex = l.Index
	}
	if c.kind == commandLeadership {
		d.latest = election{c.leadership, l.Term}
	}
	id := d.state.cluster
	d.mu.Unlock()
	if c.kind == commandLeadership {
		d.setClusterID(id)
	}
	d.push(delivery{raftIndex: l.Index, entries: entries})
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
	if !d.push(delivery{snapshot: answer}) {
		return nil, errNotMember
	}
	select {
	case state := <-answer:
		d.mu.Lock()
		defer d.mu.Unlock()
		return snapshot(append(d.state.append(nil), state...)), nil
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
	s, machine, err := decodeFSMState(b)
	if err != nil {
		return err
	}
	d := f.d
	d.mu.Lock()
	d.state = s
	d.mu.Unlock()
	d.setClusterID(s.cluster)
	d.push(delivery{raftIndex: s.raftIndex, restore: &machineState{s.index, machine}})
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
	case v.snapshot != nil:
		v.snapshot <- m.Snapshot()
		return nil
	case v.restore != nil && d.joined:
		// What the snapshot has left out would have had effects on this node.
		return expelled("it fell behind by more than the log keeps")
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
	d.applied = max(d.applied, v.raftIndex)
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
	d.leaseStart.Store(-1)
	d.departed = true
	if reason != "left" || !d.leaving.Load() {
		d.leaveErr = expelled(reason)
	}
}

func expelled(reason string) error { return rejoining("this process was expelled: " + reason) }

// setClusterID notes which cluster this node belongs to, unless its log tells of
// a timeline that it has given up.
func (d *Driver) setClusterID(id clusterID) {
	d.mu.Lock()
	stays := !id.known() || d.cluster == id || d.cluster.supersedes(id)
	if !stays {
		d.cluster = id
	}
	d.mu.Unlock()
	if stays {
		return
	}
	if err := d.data.setClusterID(id); err != nil {
		d.log.Error("note which cluster this node belongs to", "err", err)
	}
	d.discovery.update()
}

func (d *Driver) clusterID() clusterID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cluster
}
