package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sheepdog/sheep"
)

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
