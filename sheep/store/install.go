package store

import (
	"context"
	"errors"
	"fmt"
	"io"

	"sheepdog/sheep"
	"sheepdog/sheep/store/journal"
	"sheepdog/sheep/store/vfs"
)

// ErrSuperseded means that an object was written, made or removed while
// another copy of it was being installed.
var ErrSuperseded = errors.New("the object has changed meanwhile")

// Install replaces the whole object, or makes it, size bytes long and last
// written in epoch, by what fill writes; the rest is zero. When it returns nil
// the object is durable. Until then, and after a crash in between, it is what
// it was before. If the object was changed since the call of Install, it loses
// and the error is ErrSuperseded.
func (s *Store) Install(ctx context.Context, id sheep.ObjectID, size uint32, epoch sheep.Epoch, fill func(io.WriterAt) error) error {
	if err := s.install(ctx, id, size, epoch, fill); err != nil {
		return fmt.Errorf("install %v: %w", id, err)
	}
	return nil
}

func (s *Store) install(ctx context.Context, id sheep.ObjectID, size uint32, epoch sheep.Epoch, fill func(io.WriterAt) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	o, _ := s.table.acquire(id)
	s.table.mu.Lock()
	changes := o.changes
	s.table.mu.Unlock()
	s.leave() // filling may take long, and must not hold up Format
	s.copying.Add(int64(size))
	defer s.copying.Add(-int64(size))

	f, temp, err := s.prepare(ctx, id, size, epoch, fill)
	if err == nil {
		err = s.publish(ctx, o, changes, f, temp, Info{size, epoch})
	}
	s.table.release(o)
	return err
}

// prepare makes the file of an object under a temporary name, filled and
// durable.
func (s *Store) prepare(ctx context.Context, id sheep.ObjectID, size uint32, epoch sheep.Epoch, fill func(io.WriterAt) error) (vfs.File, string, error) {
	if size == 0 {
		return nil, "", fmt.Errorf("%w: no size", sheep.ErrInvalid)
	}
	if err := s.admitCopy(ctx, id); err != nil {
		return nil, "", err
	}
	var foreign error
	f, temp, err := s.makeFile(id, size, epoch, func(f vfs.File) error {
		if foreign = fill(&sparseWriter{f: f, size: int64(size)}); foreign != nil {
			return foreign
		}
		return f.Sync()
	})
	if err != nil && foreign == nil {
		err = failure("prepare", id, err)
	}
	return f, temp, err
}

// A sparseWriter writes into a new file and leaves out the zeroes, unless they may
// replace something.
type sparseWriter struct {
	f    vfs.File
	size int64
	end  int64 // of what has been written
}

func (w *sparseWriter) WriteAt(p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	if off < 0 || end > w.size {
		return 0, fmt.Errorf("%w: %d bytes at %d of %d", sheep.ErrInvalid, len(p), off, w.size)
	}
	var err error
	if off < w.end {
		_, err = w.f.WriteAt(p, off)
	} else {
		err = writeSparse(w.f, p, off)
	}
	if err != nil {
		return 0, diskError(err)
	}
	w.end = max(w.end, end)
	return len(p), nil
}

// publish gives the file its name. A replay must not apply records of what the
// object was to what it is now. So if there may be some, they are made
// unnecessary first: what the object is, or its absence, becomes durable in
// place and is recorded as settled.
func (s *Store) publish(ctx context.Context, o *object, changes uint64, f vfs.File, temp string, info Info) error {
	give := func(err error) error { return errors.Join(err, f.Close(), s.fs.Remove(temp)) }
	if err := s.enter(); err != nil {
		return give(err)
	}
	defer s.leave()
	o.mu.Lock()
	defer o.mu.Unlock()
	s.table.mu.Lock()
	superseded := o.changes != changes
	s.table.mu.Unlock()
	if superseded {
		return give(ErrSuperseded)
	}
	if err := s.settleOld(ctx, o); err != nil {
		return give(err)
	}
	if err := s.fs.Rename(temp, objectPath(o.id)); err != nil {
		return give(failure("rename", o.id, nameless(err)))
	}
	if err := s.syncNames(); err != nil {
		return errors.Join(err, f.Close())
	}
	s.swap(o, f, info.Size, info.WriteEpoch, false)
	s.table.installed(o)
	s.saveIfForgiven(o.id)
	return nil
}

// settleOld makes the records of o unnecessary. The caller holds o.mu.
func (s *Store) settleOld(ctx context.Context, o *object) error {
	f, err := s.openObject(o)
	missing := isMissing(err)
	s.table.mu.Lock()
	if err != nil && !missing && !o.bad {
		s.table.mu.Unlock()
		return failure("open", o.id, err)
	}
	live := o.touched >= s.journal.Tail() && o.touched > 0
	upTo := s.journal.Last()
	s.table.mu.Unlock()
	if !live {
		return nil
	}
	if f != nil {
		if err := f.Sync(); err != nil {
			s.spoil(o, f, err) // it is about to be replaced
		}
	}
	if err := s.syncNames(); err != nil {
		return err
	}
	r := journal.Record{Kind: journal.Settled, ID: o.id, Arg: upTo}
	seq, err := s.journal.Append(&r)
	if err != nil {
		return err
	}
	return s.journal.Wait(ctx, seq)
}

// installed notes that the new file of o is durable, name and all.
func (t *table) installed(o *object) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.writers--
	t.clean(o)
}

// saveIfForgiven takes an installed object off the list of bad ones.
func (s *Store) saveIfForgiven(id sheep.ObjectID) {
	s.table.mu.Lock()
	_, listed := s.table.bad[id]
	delete(s.table.bad, id)
	s.table.mu.Unlock()
	if listed {
		s.saveBadOrFail()
	}
}
