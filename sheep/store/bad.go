package store

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"sheepdog/sheep"
	"sheepdog/sheep/store/vfs"
)

// An object is bad when a sync of its file failed: nobody can know what of it
// is on the disk. It answers sheep.ErrIO until it is made anew, from other
// copies or by a client, also after a restart: the file "damaged.list" names
// the bad objects, one per line. The journal does not: its records of the
// object go when others have been synced.
//
// table.bad has what the file has. The value is 0 while the object is bad;
// when it was made anew, or removed, it is a record not later than that, and
// when that record is checkpointed the object leaves the list. Should the node
// crash before, the object is bad again, which does no harm.

// errBad is what a bad object answers.
var errBad = fmt.Errorf("%w: a sync of the object failed before", sheep.ErrIO)

// isBad reports whether the object is bad.
func (t *table) isBad(id sheep.ObjectID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	replaced, listed := t.bad[id]
	return listed && replaced == 0
}

// Bad reports whether the object answers sheep.ErrIO until it is made anew.
func (s *Store) Bad(id sheep.ObjectID) bool { return s.table.isBad(id) }

// BadObjects returns all such objects, in no order.
func (s *Store) BadObjects() []sheep.ObjectID {
	t := &s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	var ids []sheep.ObjectID
	for id, replaced := range t.bad {
		if replaced == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// spoil makes o bad because a sync of its file f failed.
func (s *Store) spoil(o *object, f vfs.File, cause error) {
	t := &s.table
	t.mu.Lock()
	first := !o.bad && o.file == f
	if first {
		o.bad = true
		t.bad[o.id] = 0
		t.clean(o)
	}
	t.mu.Unlock()
	if first {
		s.log.Error("a sync failed: the object must be recovered from other copies", "oid", o.id, "err", cause)
		s.saveBadOrFail()
	}
}

// forgive takes off the list what was made anew by a record up to upTo, and is
// durable in place.
func (s *Store) forgive(upTo uint64) {
	t := &s.table
	changed := false
	t.mu.Lock()
	for id, replaced := range t.bad {
		if replaced != 0 && replaced <= upTo {
			delete(t.bad, id)
			changed = true
		}
	}
	t.mu.Unlock()
	if changed {
		s.saveBadOrFail()
	}
}

// saveBadOrFail replaces the list of bad objects. If that is impossible the
// store must not go on: after a restart a bad object would pass for a good one.
func (s *Store) saveBadOrFail() {
	s.badFile.Lock()
	defer s.badFile.Unlock()
	s.table.mu.Lock()
	ids := make([]sheep.ObjectID, 0, len(s.table.bad))
	for id := range s.table.bad {
		ids = append(ids, id)
	}
	s.table.mu.Unlock()
	slices.Sort(ids)
	var list strings.Builder
	for _, id := range ids {
		fmt.Fprintln(&list, id)
	}
	if err := replaceFile(s.fs, badFile, []byte(list.String())); err != nil {
		_ = s.journal.Fail(err) // everybody will see it
	}
}

// loadBad reads the list of bad objects.
func (s *Store) loadBad() error {
	b, err := readFile(s.fs, badFile, 64<<20)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		id, err := sheep.ParseObjectID(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return fmt.Errorf("%s: %w", badFile, err)
		}
		s.table.bad[id] = 0
	}
	return nil
}

// quarantine moves the files of bad objects out of the object directory, since
// C does not know of them: the copies count as missing from now on, and the
// files can still be looked at.
func (s *Store) quarantine() error {
	t := &s.table
	if len(t.bad) == 0 {
		return nil
	}
	if err := s.fs.Mkdir(damagedDir); err != nil {
		return err
	}
	for id := range t.bad {
		err := s.fs.Rename(objectPath(id), damagedDir+"/"+id.String())
		if err != nil && !isMissing(err) {
			return err
		}
	}
	if err := errors.Join(s.fs.SyncDir(damagedDir), s.fs.SyncDir(objectDir), s.fs.SyncDir(".")); err != nil {
		return err
	}
	clear(t.bad)
	return s.fs.Remove(badFile)
}
