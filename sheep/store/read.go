package store

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"sheepdog/sheep"
)

// Info is what the store knows of an object without reading it.
type Info struct {
	Size       uint32
	WriteEpoch sheep.Epoch // of the latest write; 0 if C wrote it
}

// Read fills p from offset off of the object, which has size bytes: those past
// them are zero. A file that ends before is damaged, as objects have their whole
// size from the start.
func (s *Store) Read(id sheep.ObjectID, size uint32, p []byte, off uint32) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	o, f := s.table.acquire(id)
	defer s.release(o)
	for {
		if f == nil {
			var err error
			o.mu.Lock()
			f, err = s.openObject(o)
			o.mu.Unlock()
			if err != nil {
				return failure("read", id, err)
			}
		}
		n, err := f.ReadAt(p, int64(off))
		if errors.Is(err, os.ErrClosed) {
			f = nil // the object was made anew or removed meanwhile
			continue
		}
		if end := uint64(off) + uint64(n); err == io.EOF && (n == len(p) || end >= uint64(size)) {
			clear(p[n:])
			return nil
		} else if err == io.EOF {
			err = fmt.Errorf("its file ends at %d of %d bytes", end, size)
		}
		if err != nil {
			return failure("read", id, err)
		}
		return nil
	}
}

// Stat returns what is known of the object, a bad one included. The error is
// sheep.ErrNoObject if it does not exist.
func (s *Store) Stat(id sheep.ObjectID) (Info, error) {
	if err := s.enter(); err != nil {
		return Info{}, err
	}
	defer s.leave()
	return s.stat(id)
}

// stat does not keep the file open: listings would push out what is in use.
func (s *Store) stat(id sheep.ObjectID) (Info, error) {
	o, f := s.table.acquire(id)
	defer s.release(o)
	if f != nil {
		s.table.mu.Lock()
		defer s.table.mu.Unlock()
		if o.file != nil {
			return Info{Size: o.size, WriteEpoch: o.epoch}, nil
		}
		return Info{}, fmt.Errorf("stat %v: %w", id, sheep.ErrNoObject)
	}
	info, f, err := s.openFile(id)
	if err != nil {
		return Info{}, failure("stat", id, err)
	}
	_ = f.Close() // nothing was written
	return info, nil
}

// Has reports whether the object exists and its file has not been taken away
// behind the store's back.
func (s *Store) Has(id sheep.ObjectID) bool {
	_, err := s.present(id)
	return err == nil
}

// present is Stat, but does not trust a file that is open to be still there.
func (s *Store) present(id sheep.ObjectID) (Info, error) {
	if err := s.enter(); err != nil {
		return Info{}, err
	}
	defer s.leave()
	info, err := s.stat(id)
	if err != nil {
		return Info{}, err
	}
	switch ok, err := s.fs.Exists(objectPath(id)); {
	case err != nil:
		return Info{}, failure("look for", id, err)
	case !ok:
		return Info{}, fmt.Errorf("the file of %v is gone: %w", id, sheep.ErrNoObject)
	}
	return info, nil
}

// IDs returns the ids of all objects from the id from on, ascending. Those that come
// or go meanwhile may be missing.
func (s *Store) IDs(from sheep.ObjectID) ([]sheep.ObjectID, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	return s.ids(from)
}

func (s *Store) ids(from sheep.ObjectID) ([]sheep.ObjectID, error) {
	names, err := s.fs.List(objectDir)
	if err != nil {
		return nil, fmt.Errorf("list the objects: %w: %w", sheep.ErrIO, err)
	}
	ids := make([]sheep.ObjectID, 0, len(names))
	for _, name := range names {
		if id, err := sheep.ParseObjectID(name); err == nil && id >= from {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, nil
}

// Space returns how many bytes there are for objects: what they take now and
// what is free. It looks at every object's file.
func (s *Store) Space() (total, free uint64) {
	if s.enter() != nil {
		return 0, 0
	}
	defer s.leave()
	_, free, err := s.fs.Space()
	used, usedErr := s.fs.Used(objectDir)
	if err := errors.Join(err, usedErr); err != nil {
		s.log.Error("the space that is used and free is not known", "err", err)
	}
	return used + free, free
}

// Digest returns the SHA-1 of the object's content, as read now: from the disk,
// unless the object was written lately.
func (s *Store) Digest(id sheep.ObjectID) ([sha1.Size]byte, error) {
	info, err := s.present(id)
	if err != nil {
		return [sha1.Size]byte{}, err
	}
	if !s.Hot(id) {
		s.forgetCached(id)
	}
	h := sha1.New()
	buf := make([]byte, min(info.Size, 256<<10))
	for off := uint32(0); off < info.Size; {
		n := min(uint32(len(buf)), info.Size-off)
		if err := s.Read(id, info.Size, buf[:n], off); err != nil {
			return [sha1.Size]byte{}, fmt.Errorf("digest: %w", err)
		}
		h.Write(buf[:n])
		off += n
	}
	return [sha1.Size]byte(h.Sum(nil)), nil
}

// forgetCached has the object read from the disk by whoever reads it next. If that
// is impossible it is read from memory.
func (s *Store) forgetCached(id sheep.ObjectID) {
	if s.enter() != nil {
		return
	}
	defer s.leave()
	o, f := s.table.acquire(id)
	defer s.release(o)
	if f == nil {
		o.mu.Lock()
		f, _ = s.openObject(o)
		o.mu.Unlock()
	}
	if f == nil {
		return
	}
	if err := f.Forget(); err != nil {
		s.log.Debug("an object is compared as it is in memory", "oid", id, "err", err)
	}
}
