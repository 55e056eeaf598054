package store

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"sheepdog/sheep"
	"sheepdog/sheep/store/journal"
	"sheepdog/sheep/store/vfs"
)

// syncWorkers is how many files are synced at once. The disk and its journal
// take them together.
const syncWorkers = 8

// settle makes the file of id durable and returns the record that must be
// durable for the replay to leave it alone, or 0.
func (s *Store) settle(id sheep.ObjectID) (uint64, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	defer s.leave()
	o, _ := s.table.acquire(id)
	defer s.release(o)
	if err := s.syncObject(o, true); err != nil {
		return 0, err
	}
	return s.journal.Last(), nil // not before the Settled record
}

// A snapshot is what syncObject must know of before it syncs.
type snapshot struct {
	upTo    uint64 // every record up to this one is in the file
	changes uint64
	quiet   bool // no change was under way
	live    bool // the journal may hold records of the object
	attr    bool
	name    bool // the name must be durable, too
	direct  bool
}

// syncObject makes the file of o, which the caller has pinned, durable.
//
// What was written directly must not be overwritten by a replay of older
// records. So with mark, a Settled record follows when the file and its name are
// durable, and only when that record is durable, too, is the direct write.
func (s *Store) syncObject(o *object, mark bool) error {
	for {
		f, snap, err := s.snapshot(o)
		if err != nil {
			return fmt.Errorf("sync %v: %w", o.id, err)
		}
		if f == nil {
			return nil
		}
		if snap.attr {
			err = f.Sync()
		} else {
			err = f.DataSync()
		}
		if errors.Is(err, os.ErrClosed) {
			continue // the object was made anew or removed meanwhile
		}
		if err != nil {
			s.spoil(o, f, err)
			return failure("sync", o.id, err)
		}
		if err := s.settleSynced(o, snap, mark); err != nil {
			return fmt.Errorf("sync %v: %w", o.id, err)
		}
		s.table.synced(o, f, snap, mark)
		return nil
	}
}

// snapshot returns the file of o, nil if it needs no sync, and what the sync
// will make durable. A change is applied before its record is appended.
func (s *Store) snapshot(o *object) (vfs.File, snapshot, error) {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	switch {
	case o.bad:
		return nil, snapshot{}, errBad
	case o.dirtySince == 0 && !o.direct:
		return nil, snapshot{}, nil
	}
	return o.file, snapshot{
		upTo:    s.journal.Last(),
		changes: o.changes,
		quiet:   o.writers == 0,
		live:    o.logged >= s.journal.Tail(),
		attr:    o.attrDirty,
		name:    o.nameDirty && o.direct,
		direct:  o.direct,
	}, nil
}

// settleSynced does what is left for direct writes when the file is durable.
func (s *Store) settleSynced(o *object, snap snapshot, mark bool) error {
	if snap.name {
		if err := s.syncNames(); err != nil {
			return err
		}
	}
	if !mark || !snap.direct || !snap.live {
		return nil
	}
	_, err := s.journal.Append(&journal.Record{Kind: journal.Settled, ID: o.id, Arg: snap.upTo})
	return err
}

// synced notes that the disk has what the snapshot of o with the file f says.
func (t *table) synced(o *object, f vfs.File, snap snapshot, mark bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o.file != f {
		return
	}
	if snap.name {
		o.nameDirty = false
	}
	if !snap.quiet || o.changes != snap.changes {
		if o.dirtySince != 0 { // or a sync that began later has done it all
			o.dirtySince = max(o.dirtySince, snap.upTo+1)
		}
		return
	}
	o.dirtySince, o.attrDirty = 0, false
	delete(t.dirty, o)
	if mark {
		o.direct = false
		delete(t.direct, o)
	}
}

// syncNames makes the names in the object directory durable. That it failed
// concerns every object made lately, so it is the end of the journal.
func (s *Store) syncNames() error {
	if err := s.names.do(); err != nil {
		return s.journal.Fail(fmt.Errorf("sync directory %s: %w", objectDir, err))
	}
	return nil
}

// syncAllNames makes all names durable that were given so far.
func (s *Store) syncAllNames() error {
	t := &s.table
	files := make(map[*object]vfs.File)
	t.mu.Lock()
	for _, o := range t.objects {
		if o.nameDirty {
			files[o] = o.file
		}
	}
	t.mu.Unlock()
	if err := s.syncNames(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for o, f := range files {
		if o.file == f {
			o.nameDirty = false
		}
	}
	return nil
}

// A dirSync lets all who wait for a sync of a directory share the next one.
type dirSync struct {
	sync func() error // set once

	mu      sync.Mutex
	running bool
	next    *batch // those who came while a sync was running
}

// A batch is one sync that several wait for. Who came first makes it, in turn.
type batch struct {
	turn chan struct{} // closed when the sync before has ended
	done chan struct{} // closed when err is set
	err  error
}

// do returns after a sync that began after the call.
func (d *dirSync) do() error {
	d.mu.Lock()
	b, first := d.next, false
	switch {
	case !d.running:
		d.running = true
		b, first = newBatch(), true
		close(b.turn)
	case b == nil:
		b, first = newBatch(), true
		d.next = b
	}
	d.mu.Unlock()
	if !first {
		<-b.done
		return b.err
	}
	<-b.turn
	b.err = d.sync()
	close(b.done)
	d.pass()
	return b.err
}

func newBatch() *batch { return &batch{turn: make(chan struct{}), done: make(chan struct{})} }

// pass gives the turn to those who came meanwhile.
func (d *dirSync) pass() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running = d.next != nil
	if d.next != nil {
		close(d.next.turn)
		d.next = nil
	}
}

// checkpoint makes all that the records up to upTo describe durable in place.
// The journal calls it, so it must not append.
func (s *Store) checkpoint(upTo uint64) error {
	t := &s.table
	t.mu.Lock()
	var objects []*object
	for o := range t.dirty {
		if o.dirtySince <= upTo {
			o.pins++
			objects = append(objects, o)
		}
	}
	t.mu.Unlock()
	// An object whose sync failed is bad, which spoil has recorded; it holds
	// up nothing.
	_ = s.syncAll(objects, false)
	if err := s.syncAllNames(); err != nil {
		return err
	}
	tail := s.journal.Tail()
	t.mu.Lock()
	for id, seq := range t.removed {
		if seq < tail {
			delete(t.removed, id)
		}
	}
	t.mu.Unlock()
	s.forgive(upTo)
	return nil
}

// syncAll syncs objects, which are pinned, and releases them.
func (s *Store) syncAll(objects []*object, mark bool) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	work := func() {
		for {
			mu.Lock()
			if len(objects) == 0 {
				mu.Unlock()
				return
			}
			o := objects[0]
			objects = objects[1:]
			mu.Unlock()
			err := s.syncObject(o, mark)
			s.table.release(o)
			if err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		}
	}
	for range min(len(objects), syncWorkers) - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	return errors.Join(errs...)
}
