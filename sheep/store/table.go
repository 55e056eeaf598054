package store

import (
	"container/list"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"

	"sheepdog/sheep"
	"sheepdog/sheep/store/journal"
	"sheepdog/sheep/store/vfs"
)

// An object is what the store keeps in memory of an object in use.
//
// Changes of one object are made one after the other, under mu: apply to the
// file, then append to the journal. So records are in the order in which the
// file was changed. The other fields are guarded by the table's mutex; file,
// size and epoch are only changed by who holds both.
type object struct {
	id sheep.ObjectID

	mu     sync.Mutex
	intent uint64 // guarded by mu; the record that names the object in its present epoch

	file  vfs.File // nil if the object is not open, or does not exist
	size  uint32
	epoch sheep.Epoch
	bad   bool // a sync failed: the content is unknown

	pins    int    // callers that use the object; it stays in the table
	writers int    // changes under way
	changes uint64 // changes begun so far

	dirtySince uint64 // the file may lack the effect of this record and later ones on the disk; 0 if it does not
	logged     uint64 // the newest record of a change of content, or a later one
	touched    uint64 // the newest record of any kind, or a later one
	direct     bool   // the file was written without a record
	attrDirty  bool   // the attribute is not durable
	nameDirty  bool   // the name is not durable

	used *list.Element // in table.used if file is not nil
}

// settled reports whether the object can be forgotten: the disk has all.
func (o *object) settled(durable uint64) bool {
	return o.pins == 0 && o.dirtySince == 0 && !o.direct && !o.attrDirty && !o.nameDirty &&
		o.touched <= durable
}

// A table holds the objects in use, with their open files.
type table struct {
	journal *journal.Journal // set once, before the first use
	handles int              // open files that it tries to stay below
	hotSize int

	mu      sync.Mutex
	objects map[sheep.ObjectID]*object
	used    list.List                 // of *object with an open file, the latest first
	dirty   map[*object]struct{}      // those with dirtySince set
	direct  map[*object]struct{}      // those with direct set
	removed map[sheep.ObjectID]uint64 // removed objects that the journal may name, with the record
	bad     map[sheep.ObjectID]uint64 // see bad.go

	hot      map[sheep.ObjectID]*list.Element
	hotOrder list.List // of sheep.ObjectID, the latest first
}

func (t *table) init(cfg Config) {
	t.handles, t.hotSize = cfg.Handles, cfg.HotObjects
	t.objects = make(map[sheep.ObjectID]*object)
	t.dirty = make(map[*object]struct{})
	t.direct = make(map[*object]struct{})
	t.removed = make(map[sheep.ObjectID]uint64)
	t.bad = make(map[sheep.ObjectID]uint64)
	t.hot = make(map[sheep.ObjectID]*list.Element)
	t.used.Init()
	t.hotOrder.Init()
}

// acquire returns the object id, pinned, and its file if it is open and good.
func (t *table) acquire(id sheep.ObjectID) (*object, vfs.File) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.objects[id]
	if o == nil {
		o = &object{id: id}
		t.objects[id] = o
	}
	o.pins++
	if o.used != nil {
		t.used.MoveToFront(o.used)
	}
	if o.bad {
		return o, nil
	}
	return o, o.file
}

// release gives back what acquire returned.
func (t *table) release(o *object) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.pins--
	if o.pins == 0 && o.file == nil && t.objects[o.id] == o {
		delete(t.objects, o.id)
	}
}

// excess returns by how many the open files exceed what should be.
func (t *table) excess() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.used.Len() - t.handles
}

// evict closes files that were not used lately and need no sync, until there
// is no excess. It reports whether that succeeded.
func (t *table) evict() bool {
	var files []vfs.File
	t.mu.Lock()
	durable := t.journal.Durable()
	for e, tries := t.used.Back(), 64; e != nil && t.used.Len() > t.handles && tries > 0; tries-- {
		o := e.Value.(*object)
		e = e.Prev()
		if o.settled(durable) {
			files = append(files, o.file)
			t.setFile(o, nil)
			delete(t.objects, o.id)
		}
	}
	fits := t.used.Len() <= t.handles
	t.mu.Unlock()
	for _, f := range files {
		_ = f.Close() // everything was synced
	}
	return fits
}

// setFile changes the open file of o. The caller holds mu.
func (t *table) setFile(o *object, f vfs.File) {
	o.file = f
	switch {
	case f != nil && o.used == nil:
		o.used = t.used.PushFront(o)
	case f == nil && o.used != nil:
		t.used.Remove(o.used)
		o.used = nil
	}
}

// openObject opens the file of o, whose mutex the caller holds, unless it is open.
func (s *Store) openObject(o *object) (vfs.File, error) {
	t := &s.table
	t.mu.Lock()
	if replaced, listed := t.bad[o.id]; listed && replaced == 0 {
		o.bad = true
	}
	f, bad := o.file, o.bad
	t.mu.Unlock()
	if bad {
		return nil, errBad
	}
	if f != nil {
		return f, nil
	}
	info, f, err := s.openFile(o.id)
	if err != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		o.logged = t.removed[o.id]
		o.touched = o.logged
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setFile(o, f)
	o.size, o.epoch = info.Size, info.WriteEpoch
	o.logged = s.journal.Last() // or before; it was forgotten
	o.touched = o.logged
	return f, nil
}

// openFile opens the file of an object and reads what is known of it.
func (s *Store) openFile(id sheep.ObjectID) (Info, vfs.File, error) {
	f, err := s.fs.Open(objectPath(id), 0)
	if err != nil {
		return Info{}, nil, err
	}
	size, err := f.Size()
	var attr []byte
	if err == nil {
		attr, err = f.Attr(epochAttr)
	}
	if err == nil && size > math.MaxUint32 {
		err = fmt.Errorf("object of %d bytes", size)
	}
	if err != nil {
		return Info{}, nil, errors.Join(err, f.Close())
	}
	info := Info{Size: uint32(size)}
	if len(attr) == 4 {
		info.WriteEpoch = sheep.Epoch(binary.LittleEndian.Uint32(attr))
	}
	return info, f, nil
}

// begin notes that o is about to be changed. The caller holds o.mu, and calls
// finish. It reports whether the intent log did not name the object.
func (t *table) begin(o *object, direct bool) (cold bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.writers++
	o.changes++
	t.mark(o, direct)
	return t.touch(o.id)
}

// mark notes that the file of o will not be what is on the disk.
func (t *table) mark(o *object, direct bool) {
	if o.dirtySince == 0 {
		o.dirtySince = t.journal.Last() + 1
		t.dirty[o] = struct{}{}
	}
	if direct {
		o.direct = true
		t.direct[o] = struct{}{}
	}
}

// finish ends what begin began; seq is the record of the change, or 0, and
// content tells whether it has the new content.
func (t *table) finish(o *object, seq uint64, content bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o.writers--
	o.touched = max(o.touched, seq)
	if content {
		o.logged = max(o.logged, seq)
	}
	if o.file == nil && seq != 0 {
		t.removed[o.id] = seq
	}
}

// replace makes f, nil if the object was removed, the file of o, forgetting
// all that concerned the old one, which it returns. Otherwise it is begin, but
// leaves the intent log alone.
func (t *table) replace(o *object, f vfs.File, size uint32, epoch sheep.Epoch, direct bool) (old vfs.File) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old = o.file
	t.clean(o)
	if _, listed := t.bad[o.id]; listed {
		t.bad[o.id] = t.journal.Last() + 1
	}
	o.size, o.epoch, o.bad = size, epoch, false
	t.setFile(o, f)
	o.writers++
	o.changes++
	if f != nil {
		t.mark(o, direct)
		o.attrDirty, o.nameDirty = true, true
	}
	return old
}

// clean notes that the disk has all of o.
func (t *table) clean(o *object) {
	o.dirtySince, o.direct, o.attrDirty, o.nameDirty = 0, false, false, false
	delete(t.dirty, o)
	delete(t.direct, o)
}

// closeAll closes all files and forgets the objects. Who has one pinned finds
// it changed.
func (t *table) closeAll() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	for _, o := range t.objects {
		if o.file != nil {
			err = errors.Join(err, o.file.Close())
		}
		o.changes++
		t.clean(o)
		t.setFile(o, nil)
	}
	clear(t.objects)
	return err
}

// isMissing reports whether the object does not exist, rather than that the
// disk failed.
func isMissing(err error) bool { return errors.Is(err, os.ErrNotExist) }
