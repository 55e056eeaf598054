package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

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
func (s *Store) syncObject(o *object, mark bool) (err error) {
	t := &s.table
	for {
		t.mu.Lock()
		f := o.file
		if o.bad {
			t.mu.Unlock()
			return fmt.Errorf("sync %v: %w", o.id, errBad)
		}
		if f == nil || o.dirtySince == 0 && !o.direct {
			t.mu.Unlock()
			return nil
		}
		// A change is applied before its record is appended.
		snap := snapshot{
			upTo: s.journal.Last(), changes: o.changes, quiet: o.writers == 0,
			live: o.logged >= s.journal.Tail(), attr: o.attrDirty, name: o.nameDirty && o.direct, direct: o.direct,
		}
		t.mu.Unlock()

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
		if snap.name {
			if err := s.syncNames(); err != nil {
				return fmt.Errorf("sync %v: %w", o.id, err)
			}
		}
		if mark && snap.direct && snap.live {
			r := journal.Record{Kind: journal.Settled, ID: o.id, Arg: snap.upTo}
			if _, err = s.journal.Append(&r); err != nil {
				return fmt.Errorf("sync %v: %w", o.id, err)
			}
		}
		t.mu.Lock()
		if o.file == f {
			t.synced(o, snap, mark)
		}
		t.mu.Unlock()
		return nil
	}
}

// synced notes that the disk has what the snapshot says.
func (t *table) synced(o *object, snap snapshot, mark bool) {
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

// A batch is one sync that several wait for.
type batch struct {
	done chan struct{} // closed when err is set
	err  error
}

// do returns after a sync that began after the call.
func (d *dirSync) do() error {
	d.mu.Lock()
	if d.running {
		if d.next == nil {
			d.next = &batch{done: make(chan struct{})}
			b := d.next
			d.mu.Unlock()
			<-b.done
			return b.err
		}
		b := d.next
		d.mu.Unlock()
		<-b.done
		return b.err
	}
	d.running = true
	d.mu.Unlock()
	err := d.sync()
	for {
		d.mu.Lock()
		b := d.next
		d.next = nil
		if b == nil {
			d.running = false
			d.mu.Unlock()
			return err
		}
		d.mu.Unlock()
		b.err = d.sync()
		close(b.done)
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

// Flush makes durable every write to vdi that has returned. It fails with
// sheep.ErrIO while an object of the VDI is bad: what was deferred there is lost.
func (s *Store) Flush(ctx context.Context, vdi sheep.VDIID) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.flush(ctx, func(id sheep.ObjectID) bool { return id.VDI() == vdi })
}

// FlushAll makes durable every write that has returned. It fails with
// sheep.ErrIO while any object is bad.
func (s *Store) FlushAll(ctx context.Context) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	return s.flush(ctx, anyObject)
}

// anyObject matches all objects.
func anyObject(sheep.ObjectID) bool { return true }

// flush syncs the directly written objects that match, then commits the
// journal.
func (s *Store) flush(ctx context.Context, match func(sheep.ObjectID) bool) error {
	t := &s.table
	var objects []*object
	var bad error
	t.mu.Lock()
	for o := range t.direct {
		if match(o.id) {
			o.pins++
			objects = append(objects, o)
		}
	}
	for id, replaced := range t.bad {
		if replaced == 0 && match(id) {
			bad = fmt.Errorf("flush %v: %w", id, errBad)
			break
		}
	}
	t.mu.Unlock()
	err := s.syncAll(objects, true)
	return errors.Join(bad, err, s.journal.Wait(ctx, s.journal.Last()))
}

// noteDeferred makes the flusher look in FlushAge.
func (s *Store) noteDeferred() {
	if !s.deferred.Load() && s.deferred.CompareAndSwap(false, true) {
		s.wakeFlusher()
	}
}

func (s *Store) wakeFlusher() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// flushLoop makes deferred writes durable in the end, though nobody asks, and
// syncs objects when too many files are open.
func (s *Store) flushLoop() {
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	for armed := false; ; {
		select {
		case <-s.stop:
			return
		case <-s.wake:
			if s.deferred.Load() && !armed {
				timer.Reset(s.cfg.FlushAge)
				armed = true
			}
		case <-timer.C:
			armed = false
			s.deferred.Store(false)
			if err := s.FlushAll(context.Background()); err != nil {
				s.log.Error("deferred writes could not be made durable", "err", err)
			}
		}
		if s.table.excess() > 0 && !s.table.evict() && s.enter() == nil {
			s.syncOld()
			s.leave()
		}
	}
}

// syncOld syncs what is dirty, so that files can be closed.
func (s *Store) syncOld() {
	t := &s.table
	t.mu.Lock()
	var objects []*object
	for o := range t.dirty {
		o.pins++
		objects = append(objects, o)
	}
	for o := range t.direct {
		if o.dirtySince == 0 {
			o.pins++
			objects = append(objects, o)
		}
	}
	t.mu.Unlock()
	err := errors.Join(s.syncAll(objects, s.started), s.syncAllNames())
	if s.started {
		err = errors.Join(err, s.journal.Wait(context.Background(), s.journal.Last()))
	}
	if err != nil {
		s.log.Error("objects could not be synced", "err", err)
	}
	t.evict()
}
