package store

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"sheepdog/sheep"
	"sheepdog/sheep/store/journal"
)

// The intent log names the objects that were written lately: after a crash
// these are the ones whose copies may differ. It is kept in the journal. Every
// record of a change names its object; the write that makes an object hot is
// answered when its record is durable, and later ones, deferred or not, need
// no record of their own. Each segment of the journal begins with the whole
// set, so that the set survives the segments that go.

// touch makes id the hottest object and reports whether it was cold. The
// caller holds mu.
func (t *table) touch(id sheep.ObjectID) (cold bool) {
	if e := t.hot[id]; e != nil {
		t.hotOrder.MoveToFront(e)
		return false
	}
	t.hot[id] = t.hotOrder.PushFront(id)
	if len(t.hot) > t.hotSize {
		t.cool()
	}
	return true
}

// heat is touch for a change whose record follows in any case.
func (t *table) heat(id sheep.ObjectID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.touch(id)
}

// cool drops the coldest objects from the set, but none with writes that are
// not durable.
func (t *table) cool() {
	durable := t.journal.Durable()
	for e, tries := t.hotOrder.Back(), 16; e != nil && len(t.hot) > t.hotSize && tries > 0; tries-- {
		id := e.Value.(sheep.ObjectID)
		last := e
		e = e.Prev()
		if o := t.objects[id]; o != nil && (o.writers > 0 || o.direct || o.touched > durable) {
			continue
		}
		t.hotOrder.Remove(last)
		delete(t.hot, id)
	}
}

// overheated reports whether the set has grown to its limit, because nothing
// could be dropped.
func (t *table) overheated() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.hot) >= 2*t.hotSize
}

// Intents returns the objects that the intent log names, the latest first:
// at least all whose writes might have been lost or not have reached every
// copy if this node or a gateway died. Some may not exist any more.
func (s *Store) Intents() []sheep.ObjectID {
	t := &s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	ids := make([]sheep.ObjectID, 0, len(t.hot))
	for e := t.hotOrder.Front(); e != nil; e = e.Next() {
		ids = append(ids, e.Value.(sheep.ObjectID))
	}
	return ids
}

// Hot reports whether the intent log names id.
func (s *Store) Hot(id sheep.ObjectID) bool {
	t := &s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hot[id] != nil
}

// hotRecords yields the records that the intent log needs at the head of a
// segment, the coldest object first, so that a replay restores the order.
func (s *Store) hotRecords(yield func(journal.Record) bool) {
	ids := s.Intents()
	slices.Reverse(ids)
	journal.HotRecords(ids)(yield)
}

// A clean stop empties the journal, and with it the intent log. While copies of
// this node are not all known to be current the log is still wanted: it then
// outlives the stop in a file that begins with the epoch and has a line for
// each object, the coldest first.

// keepIntents writes that file if it is wanted. The caller holds meta.
func (s *Store) keepIntents() error {
	if s.state.complete >= s.latest {
		return nil
	}
	var list strings.Builder
	fmt.Fprintf(&list, "epoch %d\n", s.latest)
	for _, id := range slices.Backward(s.Intents()) {
		fmt.Fprintln(&list, id)
	}
	return replaceFile(s.fs, intentsFile, []byte(list.String()))
}

// loadIntents heats the objects of that file, unless the epoch has moved on:
// then C has run on the store, for which all its copies are current.
func (s *Store) loadIntents() error {
	b, err := readFile(s.fs, intentsFile, 64<<20)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	first, list, _ := strings.Cut(string(b), "\n")
	if first != fmt.Sprintf("epoch %d", s.latest) {
		return nil
	}
	for line := range strings.Lines(list) {
		id, err := sheep.ParseObjectID(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return fmt.Errorf("%s: %w", intentsFile, err)
		}
		s.table.heat(id)
	}
	return nil
}

// dropIntents removes the file: the journal has the intents again.
func (s *Store) dropIntents() error {
	if err := s.fs.Remove(intentsFile); err != nil {
		if isMissing(err) {
			return nil
		}
		return err
	}
	return s.fs.SyncDir(".")
}
