package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/store/journal"
	"sheepdog/sheep/store/vfs"
)

const (
	// blockSize is the unit in which zeroes are left out of new files.
	blockSize = 4096
	// chunkSize bounds what is written in one call. What was written by larger
	// ones is in larger folios, in which a later write of 4 KiB costs nearly
	// twice as much (BenchmarkWrite4K).
	chunkSize = 256 << 10
)

// Write changes the object id in epoch, or makes it, size bytes long, if
// w.Create is set. When it returns nil Read sees the change; what the Commit
// says is a second matter. Without Create the object must exist and size does
// not matter. w.From must have been resolved.
//
// After an error any part of the change may be visible, but of a creation
// either all or nothing.
func (s *Store) Write(id sheep.ObjectID, size uint32, epoch sheep.Epoch, w *sheep.Write) (Commit, error) {
	if err := s.enter(); err != nil {
		return Commit{}, err
	}
	defer s.leave()
	if w.From != nil || w.Zero != 0 && len(w.Data) != 0 {
		return Commit{}, fmt.Errorf("write %v: %w", id, sheep.ErrInvalid)
	}
	if err := errors.Join(s.journal.Err(), s.cool()); err != nil {
		return Commit{}, fmt.Errorf("write %v: %w", id, err)
	}
	o, _ := s.table.acquire(id)
	defer s.release(o)
	o.mu.Lock()
	defer o.mu.Unlock()
	if w.Create {
		return s.create(o, size, epoch, w)
	}
	return s.overwrite(o, size, epoch, w)
}

// release gives back an object and closes files if too many are open.
func (s *Store) release(o *object) {
	s.table.release(o)
	excess := s.table.excess()
	if excess <= 0 || s.table.evict() {
		return
	}
	// What is dirty cannot be closed.
	if excess > s.table.handles {
		s.syncOld()
	} else {
		s.wakeFlusher()
	}
}

// cool makes room in the intent log if it is full of objects with writes that
// are not durable.
func (s *Store) cool() error {
	if !s.table.overheated() {
		return nil
	}
	return s.flush(context.Background(), anyObject)
}

// overwrite changes an object of size bytes that exists. The caller holds o.mu.
func (s *Store) overwrite(o *object, size uint32, epoch sheep.Epoch, w *sheep.Write) (Commit, error) {
	f, err := s.openObject(o)
	if err != nil {
		return Commit{}, failure("write", o.id, err)
	}
	if o.size < size {
		return Commit{}, failure("write", o.id, fmt.Errorf("its file has %d bytes of %d", o.size, size))
	}
	if uint64(w.Off)+uint64(w.Len()) > uint64(o.size) {
		return Commit{}, fmt.Errorf("write %v: %w: %d bytes at %d of %d", o.id, sheep.ErrInvalid, w.Len(), w.Off, o.size)
	}
	if w.Len() == 0 {
		return Commit{}, nil
	}
	if err := s.admitWrite(o.id, f, w); err != nil {
		return Commit{}, fmt.Errorf("write %v: %w", o.id, err)
	}
	direct := len(w.Data) > journal.MaxData
	cold := s.table.begin(o, direct)
	if epoch > o.epoch {
		cold = true // the record must be durable for the epoch's sake
		err = s.setEpoch(o, f, epoch)
	}
	if err == nil {
		err = apply(f, w)
	}
	r := journal.Record{Kind: journal.Write, ID: o.id, Epoch: o.epoch, Off: w.Off, Data: w.Data}
	switch {
	case direct || err != nil:
		r = journal.Record{Kind: journal.Touched, ID: o.id, Epoch: o.epoch}
	case w.Zero != 0:
		r.Kind, r.Arg = journal.Zero, uint64(w.Zero)
	}
	c, jerr := s.record(o, &r, cold, direct, w.Durable)
	if err != nil {
		return Commit{}, failure("write", o.id, err)
	}
	if jerr != nil {
		return Commit{}, fmt.Errorf("write %v: %w", o.id, jerr)
	}
	return c, nil
}

// record appends the record of a change that has been applied, and ends what
// begin began. A direct write needs one only to make its object hot. The
// caller holds o.mu.
func (s *Store) record(o *object, r *journal.Record, cold, direct, durable bool) (Commit, error) {
	var seq uint64
	var err error
	if cold || r.Kind != journal.Touched {
		seq, err = s.journal.Append(r)
	}
	s.table.finish(o, seq, r.Kind != journal.Touched)
	if err != nil {
		return Commit{}, err
	}
	if cold {
		o.intent = seq
	}
	if durable || o.id.Metadata() {
		return Commit{store: s, id: o.id, seq: max(seq, o.intent), direct: direct}, nil
	}
	s.noteDeferred()
	if o.intent <= s.journal.Durable() {
		return Commit{}, nil
	}
	return Commit{store: s, seq: o.intent}, nil
}

// setEpoch records in the attribute of o that it is written in epoch. The
// caller holds o.mu and has called begin.
func (s *Store) setEpoch(o *object, f vfs.File, epoch sheep.Epoch) error {
	if err := f.SetAttr(epochAttr, encodeEpoch(epoch)); err != nil {
		return err
	}
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	o.epoch = epoch
	o.attrDirty = true
	return nil
}

func encodeEpoch(e sheep.Epoch) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(e)) }

// apply does to the file what w says.
func apply(f vfs.File, w *sheep.Write) error {
	if w.Zero != 0 {
		return f.Punch(int64(w.Off), int64(w.Zero))
	}
	off := int64(w.Off)
	for p := w.Data; len(p) > 0; {
		n := min(len(p), chunkSize)
		if _, err := f.WriteAt(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// Stamp records durably that the object is what it is to be in epoch, as if it
// had been written then. What it holds is durable before that record is: an
// object must not pass for one of epoch if it may still lose what it has.
func (s *Store) Stamp(ctx context.Context, id sheep.ObjectID, epoch sheep.Epoch) error {
	if _, err := s.settle(id); err != nil {
		return fmt.Errorf("stamp %v: %w", id, err)
	}
	c, err := s.stamp(id, epoch)
	if err == nil {
		err = c.Wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("stamp %v: %w", id, err)
	}
	return nil
}

func (s *Store) stamp(id sheep.ObjectID, epoch sheep.Epoch) (Commit, error) {
	if err := s.enter(); err != nil {
		return Commit{}, err
	}
	defer s.leave()
	o, _ := s.table.acquire(id)
	defer s.release(o)
	o.mu.Lock()
	defer o.mu.Unlock()
	f, err := s.openObject(o)
	if err != nil {
		return Commit{}, diskError(err)
	}
	s.table.begin(o, false)
	if epoch > o.epoch {
		err = s.setEpoch(o, f, epoch)
	}
	r := journal.Record{Kind: journal.Touched, ID: o.id, Epoch: o.epoch}
	c, jerr := s.record(o, &r, true, false, true)
	if err != nil {
		return Commit{}, diskError(err)
	}
	return c, jerr
}

// Remove removes the object durably. The error is sheep.ErrNoObject if it does
// not exist.
func (s *Store) Remove(id sheep.ObjectID, epoch sheep.Epoch) (Commit, error) {
	if err := s.enter(); err != nil {
		return Commit{}, err
	}
	defer s.leave()
	if err := s.journal.Err(); err != nil {
		return Commit{}, fmt.Errorf("remove %v: %w", id, err)
	}
	o, _ := s.table.acquire(id)
	defer s.release(o)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := s.fs.Remove(objectPath(id)); err != nil && !(isMissing(err) && s.table.isBad(id)) {
		return Commit{}, failure("remove", id, err)
	}
	s.swap(o, nil, 0, 0, false)
	s.table.heat(id)
	r := journal.Record{Kind: journal.Remove, ID: id, Epoch: epoch}
	c, err := s.record(o, &r, true, false, true)
	if err != nil {
		return Commit{}, fmt.Errorf("remove %v: %w", id, err)
	}
	return c, nil
}
