package store

import (
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/store/journal"
	"sheepdog/sheep/store/vfs"
)

// A horizon says which records of an object the replay must skip.
type horizon struct {
	settled uint64 // those up to this one: the disk has what they did
	reset   uint64 // those before this one: it makes or removes the object
}

// replay applies the journal to the objects and makes them durable. It reads
// the journal twice: what a record is worth depends on later ones.
func (s *Store) replay() error {
	horizons := make(map[sheep.ObjectID]horizon)
	var void uint64
	records := 0
	err := s.journal.Replay(func(r journal.Record) error {
		records++
		h := horizons[r.ID]
		switch r.Kind {
		case journal.Void:
			void = r.Seq
			clear(horizons)
			return nil
		case journal.Settled:
			h.settled = max(h.settled, r.Arg)
		case journal.Create, journal.Remove:
			h.reset = r.Seq
		default:
			return nil
		}
		horizons[r.ID] = h
		return nil
	})
	if err != nil || records == 0 {
		return err
	}
	err = s.journal.Replay(func(r journal.Record) error {
		if r.Seq < void || r.Kind == journal.Void {
			return nil
		}
		if err := s.redo(&r, horizons[r.ID]); err != nil {
			return fmt.Errorf("replay record %d, %v of %v: %w", r.Seq, r.Kind, r.ID, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.log.Info("the journal was replayed", "records", records)
	return s.checkpoint(^uint64(0))
}

// redo applies one record, unless it must be skipped.
func (s *Store) redo(r *journal.Record, h horizon) error {
	t := &s.table
	t.mu.Lock()
	if r.Kind == journal.Hot {
		for id := range r.HotIDs {
			t.touch(id)
		}
	} else if r.Kind != journal.Settled {
		t.touch(r.ID)
	}
	_, bad := t.bad[r.ID]
	t.mu.Unlock()
	if r.Kind == journal.Hot || r.Kind == journal.Settled || bad || r.Seq <= h.settled || r.Seq < h.reset {
		return nil
	}
	o, _ := t.acquire(r.ID)
	defer s.release(o)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch r.Kind {
	case journal.Create:
		return s.redoCreate(o, r)
	case journal.Remove:
		return s.redoRemove(o)
	}
	return s.redoWrite(o, r)
}

func (s *Store) redoCreate(o *object, r *journal.Record) error {
	if r.Arg == 0 || r.Arg > 1<<32-1 || uint64(r.Off)+uint64(len(r.Data)) > r.Arg {
		return fmt.Errorf("%w: %d bytes at %d of %d", journal.ErrMalformed, len(r.Data), r.Off, r.Arg)
	}
	f, temp, err := s.makeFile(o.id, uint32(r.Arg), r.Epoch, func(f vfs.File) error {
		return writeSparse(f, r.Data, int64(r.Off))
	})
	if err != nil {
		return err
	}
	if err := s.fs.Rename(temp, objectPath(o.id)); err != nil {
		return err
	}
	s.swap(o, f, uint32(r.Arg), r.Epoch, false)
	s.table.finish(o, 0, false)
	return nil
}

func (s *Store) redoRemove(o *object) error {
	if err := s.fs.Remove(objectPath(o.id)); err != nil && !isMissing(err) {
		return err
	}
	s.swap(o, nil, 0, 0, false)
	s.table.finish(o, 0, false)
	return nil
}

// redoWrite changes an object. One that does not exist was removed without a
// record, by an operator or with its directory: it is skipped.
func (s *Store) redoWrite(o *object, r *journal.Record) error {
	f, err := s.openObject(o)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	w := sheep.Write{Off: r.Off, Data: r.Data}
	if r.Kind == journal.Zero {
		w.Zero = uint32(r.Arg)
	}
	if uint64(w.Off)+uint64(w.Len()) > uint64(o.size) {
		return nil // a creation that was never answered has replaced the object
	}
	s.table.begin(o, false)
	defer s.table.finish(o, 0, false)
	if err := apply(f, &w); err != nil {
		return err
	}
	if r.Epoch == o.epoch {
		return nil
	}
	return s.setEpoch(o, f, r.Epoch)
}
