package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/vdi"
)

// disks are the disks that this node's NBD clients have open. All connections
// to a disk share one vdi.Disk: they see one map, and a flush on one of them
// covers the writes of all. The first that may write takes the lock of a disk
// in clusters that lock, and the last gives it back.
type disks struct {
	host    *diskHost
	cluster *cluster.Cluster

	mu    sync.Mutex
	slots map[diskKey]*diskSlot // guarded by mu; those with users
}

// A diskKey says which connections share a disk: those to the head of a name,
// whichever VDI that is at the moment, and those to one snapshot.
type diskKey struct {
	name     string      // of a head
	snapshot sheep.VDIID // of a snapshot
}

// A diskSlot is the place of a disk that is open, or being opened or closed.
type diskSlot struct {
	key   diskKey
	users int // guarded by disks.mu

	turn    chan struct{} // has room for one: whoever opens or closes
	current *openDisk     // of whoever has the turn; nil if none is open
}

// An openDisk is a disk with the connections that have it open.
type openDisk struct {
	*vdi.Disk

	disks   *disks
	slot    *diskSlot
	users   int    // of whoever has the slot's turn
	session uint64 // with which its VDI lock ends; 0 if it has none
}

func newDisks(host *diskHost, c *cluster.Cluster) *disks {
	return &disks{host: host, cluster: c, slots: make(map[diskKey]*diskSlot)}
}

// open returns the disk of sel. With lock it takes the VDI lock of a head if
// the cluster has such. The caller releases what it gets.
func (s *disks) open(ctx context.Context, sel selection, lock bool) (*openDisk, error) {
	key := diskKey{name: sel.name}
	if sel.vdi.Snapshot {
		key, lock = diskKey{snapshot: sel.vdi.ID}, false
	}
	slot := s.enter(key)
	d, err := s.join(ctx, slot, sel, lock)
	if err != nil {
		s.leave(slot)
	}
	return d, err
}

// join makes the caller a user of the slot's disk, opening it if none is open.
func (s *disks) join(ctx context.Context, slot *diskSlot, sel selection, lock bool) (*openDisk, error) {
	select {
	case slot.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-slot.turn }()
	if slot.current != nil {
		switch err := slot.current.Refresh(ctx); {
		case errors.Is(err, sheep.ErrNoVDI):
			slot.current = nil // another disk has the name by now; those who have the old one open find out
		case err != nil:
			return nil, err
		}
	}
	if slot.current == nil {
		d, err := s.begin(ctx, sel, lock)
		if err != nil {
			return nil, err
		}
		d.slot, slot.current = slot, d
	}
	slot.current.users++
	return slot.current, nil
}

// begin opens a disk that no connection has open.
func (s *disks) begin(ctx context.Context, sel selection, lock bool) (*openDisk, error) {
	d := &openDisk{disks: s}
	if lock && s.cluster.View().Settings.Flags&cluster.FlagLocks != 0 {
		d.session = s.cluster.NewSession()
		if err := s.lock(ctx, &sel, d.session); err != nil {
			return nil, err
		}
	}
	disk, err := vdi.OpenDisk(ctx, s.host, sel.name, sel.tag, sel.snapID, vdi.DiskConfig{})
	if err != nil && d.session != 0 {
		err = errors.Join(err, s.cluster.EndSession(ctx, d.session))
	}
	d.Disk = disk
	return d, err
}

// lock takes the VDI lock of sel, or of what has taken its place meanwhile.
func (s *disks) lock(ctx context.Context, sel *selection, session uint64) error {
	want := cluster.LockRequest{Session: session}
	want.Client, _ = sheep.ClientOf(ctx)
	for {
		err := s.cluster.Lock(ctx, sel.vdi.ID, want)
		if errors.Is(err, sheep.ErrVDILocked) {
			return fmt.Errorf("%w: %s is in use by %s; dog vdi lock list shows all locks", err, sel.name, holder(s.cluster.LockOf(sel.vdi.ID)))
		}
		if err != nil {
			return err
		}
		now, err := s.host.Lookup(ctx, sel.name, "", 0)
		if err == nil && now.ID == sel.vdi.ID {
			return nil
		}
		if err := errors.Join(err, s.cluster.EndSession(ctx, session)); err != nil {
			return err
		}
		sel.vdi = now
	}
}

// holder says who has a lock.
func holder(l sheep.Lock) string {
	switch {
	case l.State == sheep.Exclusive && l.Holder.Client != (sheep.Client{}):
		return fmt.Sprintf("client %v of sheep %v since %s", l.Holder.Client, l.Owner, l.Holder.Since.Local().Format(time.DateTime))
	case l.State == sheep.Exclusive:
		return "a client of sheep " + l.Owner.String()
	case len(l.Participants) > 0:
		return fmt.Sprintf("%d clients that share it, the first of sheep %v", len(l.Participants), l.Participants[0].Node)
	}
	return "a client that has just gone"
}

// closePatience bounds the work of closing a disk that needs other nodes.
const closePatience = 30 * time.Second

// release gives the disk back; the last user closes it.
func (d *openDisk) release() (err error) {
	d.slot.turn <- struct{}{}
	defer d.disks.leave(d.slot)
	defer func() { <-d.slot.turn }()
	if d.users--; d.users > 0 {
		return nil
	}
	if d.slot.current == d {
		d.slot.current = nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	err = d.Close(ctx)
	if d.session != 0 {
		err = errors.Join(err, d.disks.cluster.EndSession(ctx, d.session))
	}
	return err
}

// enter returns the slot of key, with the caller as one of its users.
func (s *disks) enter(key diskKey) *diskSlot {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.slots[key]
	if slot == nil {
		slot = &diskSlot{key: key, turn: make(chan struct{}, 1)}
		s.slots[key] = slot
	}
	slot.users++
	return slot
}

// leave undoes enter.
func (s *disks) leave(slot *diskSlot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot.users--; slot.users == 0 {
		delete(s.slots, slot.key)
	}
}
