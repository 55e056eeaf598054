package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"sheepdog/sheep"
)

// How long clients wait for a request before they get an error. The default is
// for ever.

// AsCluster is the deadline of a VDI that has none of its own.
const AsCluster time.Duration = -1

// deadlines is what the log says of them: nanoseconds, or 0 for ever.
type deadlines struct {
	cluster int64
	vdis    map[sheep.VDIID]int64 // those with one of their own
}

// appendDeadlines appends what d.deadlines reads.
func appendDeadlines(b []byte, dl deadlines) []byte {
	b = le.AppendUint64(b, uint64(dl.cluster))
	return appendList(b, slices.Sorted(maps.Keys(dl.vdis)), func(b []byte, vid sheep.VDIID) []byte {
		return le.AppendUint64(appendVID(b, vid), uint64(dl.vdis[vid]))
	})
}

func (d *decoder) deadlines() deadlines {
	dl := deadlines{cluster: int64(d.u64())}
	for range d.count(12) {
		vid, value := d.vid(), time.Duration(d.u64())
		d.bad = d.bad || value < 0
		dl.set(vid, value)
	}
	return dl
}

// set sets the deadline of a VDI.
func (dl *deadlines) set(vid sheep.VDIID, value time.Duration) {
	if value == AsCluster {
		delete(dl.vdis, vid)
		return
	}
	if dl.vdis == nil {
		dl.vdis = make(map[sheep.VDIID]int64)
	}
	dl.vdis[vid] = int64(value)
}

// follow gives the heads that follow those that became snapshots their deadlines,
// and forgets those of what is deleted. It reports whether anything has changed.
func (dl *deadlines) follow(t *vdiTable, changes []VDIChange) (changed bool) {
	for _, c := range changes {
		value, ok := dl.vdis[c.VDI.ID]
		if !ok {
			continue
		}
		switch head := t.successor(c.VDI.Name, changes); {
		case c.Drop || c.VDI.Deleted:
			dl.set(c.VDI.ID, AsCluster)
			changed = true
		case c.VDI.Snapshot && head != nil:
			dl.set(head.vdi.ID, time.Duration(value)) // the snapshot keeps it, too
			changed = true
		}
	}
	return changed
}

// show puts dl into a view.
func (dl *deadlines) show(v *View) {
	v.Deadline = time.Duration(dl.cluster)
	for vid, value := range dl.vdis {
		if v.VDIDeadlines == nil {
			v.VDIDeadlines = make(map[sheep.VDIID]time.Duration, len(dl.vdis))
		}
		v.VDIDeadlines[vid] = time.Duration(value)
	}
}

// DeadlineOf returns how long clients wait for requests to a VDI; 0 is for ever.
func (v *View) DeadlineOf(vid sheep.VDIID) time.Duration {
	if d, ok := v.VDIDeadlines[vid]; ok {
		return d
	}
	return v.Deadline
}

// setDeadlineMsg sets the deadline of a VDI, or of the cluster.
type setDeadlineMsg struct {
	vid   sheep.VDIID // 0 for the cluster
	value int64
}

func (setDeadlineMsg) kind() messageKind { return kindSetDeadline }

func (m setDeadlineMsg) append(b []byte) []byte {
	return le.AppendUint64(appendVID(b, m.vid), uint64(m.value))
}

func (m setDeadlineMsg) apply(s *state, _ *member, _ *Entry, fx *effects) error {
	if err := s.serving(); err != nil {
		return err
	}
	value := time.Duration(m.value)
	if value < 0 && (m.vid == 0 || value != AsCluster) {
		return fmt.Errorf("%w: a deadline of %v", sheep.ErrInvalid, value)
	}
	if m.vid == 0 {
		s.deadlines.cluster = m.value
	} else {
		if st := s.vdis.all[m.vid]; st == nil || st.vdi.Deleted {
			return sheep.ErrNoVDI
		}
		s.deadlines.set(m.vid, value)
	}
	fx.view = true
	return nil
}

// SetDeadline sets how long the clients of all VDIs wait that have no deadline of
// their own; 0 is for ever.
func (c *Cluster) SetDeadline(ctx context.Context, d time.Duration) error {
	return c.command(ctx, "set the deadline of the cluster", setDeadlineMsg{value: int64(d)})
}

// SetVDIDeadline sets how long the clients of a VDI, and of the heads that follow
// it, wait; 0 is for ever, and AsCluster as long as those of the others.
func (c *Cluster) SetVDIDeadline(ctx context.Context, vid sheep.VDIID, d time.Duration) error {
	if err := validVID(vid); err != nil {
		return err
	}
	return c.command(ctx, fmt.Sprintf("set the deadline of VDI %v", vid), setDeadlineMsg{vid, int64(d)})
}
