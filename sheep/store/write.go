package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"sheepdog/sheep"
	"sheepdog/sheep/store/journal"
	"sheepdog/sheep/store/vfs"
)

const (
	// blockSize is the unit in which zeroes are left out of new files.
	blockSize = 4096
	// chunkSize bounds what is written in one call: larger ones, and 4 KiB ones
	// into pages that were so written, cost the kernel much more.
	chunkSize = 1 << 20
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
	return s.overwrite(o, epoch, w)
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

// overwrite changes an object that exists. The caller holds o.mu.
func (s *Store) overwrite(o *object, epoch sheep.Epoch, w *sheep.Write) (Commit, error) {
	f, err := s.openObject(o)
	if err != nil {
		return Commit{}, failure("write", o.id, err)
	}
	if uint64(w.Off)+uint64(w.Len()) > uint64(o.size) {
		return Commit{}, fmt.Errorf("write %v: %w: %d bytes at %d of %d", o.id, sheep.ErrInvalid, w.Len(), w.Off, o.size)
	}
	if w.Len() == 0 {
		return Commit{}, nil
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

// create makes an object, or makes it anew. The caller holds o.mu.
//
// A creation with little data is a record, and the replay does it again. One
// with much data is a file without a record of its content: like a large write
// it must be synced, and its name too.
func (s *Store) create(o *object, size uint32, epoch sheep.Epoch, w *sheep.Write) (Commit, error) {
	if size == 0 || uint64(w.Off)+uint64(w.Len()) > uint64(size) {
		return Commit{}, fmt.Errorf("create %v: %w: %d bytes at %d of %d", o.id, sheep.ErrInvalid, w.Len(), w.Off, size)
	}
	if err := s.checkReserve(s.cfg.Reserve); err != nil {
		return Commit{}, fmt.Errorf("create %v: %w", o.id, err)
	}
	data, off := trimZeroes(w.Data, w.Off)
	direct := len(data) > journal.MaxData
	_, err := s.openObject(o)
	fresh := isMissing(err)
	f, temp, err := s.makeFile(o.id, size, epoch, func(f vfs.File) error {
		if err := writeSparse(f, data, int64(off)); err != nil || fresh {
			return err
		}
		// The new name may reach the disk before the record does. What was
		// answered of the old object must not be lost to an empty file then.
		return f.Sync()
	})
	if err != nil {
		return Commit{}, failure("create", o.id, err)
	}
	if err := s.fs.Rename(temp, objectPath(o.id)); err != nil {
		return Commit{}, failure("create", o.id, errors.Join(nameless(err), f.Close(), s.fs.Remove(temp)))
	}
	s.swap(o, f, size, epoch, direct)
	s.table.heat(o.id)
	r := journal.Record{Kind: journal.Create, ID: o.id, Epoch: epoch, Off: off, Arg: uint64(size), Data: data}
	if direct {
		r = journal.Record{Kind: journal.Touched, ID: o.id, Epoch: epoch}
	}
	c, err := s.record(o, &r, true, direct, true)
	if err != nil {
		return Commit{}, fmt.Errorf("create %v: %w", o.id, err)
	}
	return c, nil
}

// swap makes f, which has the object's name by now, or nil if it was removed,
// the file of o. The caller holds o.mu, and ends the change with record.
func (s *Store) swap(o *object, f vfs.File, size uint32, epoch sheep.Epoch, direct bool) {
	if old := s.table.replace(o, f, size, epoch, direct); old != nil {
		_ = old.Close() // nobody will see what it holds
	}
}

// makeFile makes the file of an object under a temporary name, which it
// returns.
func (s *Store) makeFile(id sheep.ObjectID, size uint32, epoch sheep.Epoch, fill func(vfs.File) error) (vfs.File, string, error) {
	temp := s.tempPath(id)
	f, err := s.fs.Open(temp, os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, "", nameless(err)
	}
	err = f.Truncate(int64(size))
	if err == nil {
		err = f.SetAttr(epochAttr, encodeEpoch(epoch))
	}
	if err == nil {
		err = fill(f)
	}
	if err != nil {
		return nil, "", errors.Join(err, f.Close(), s.fs.Remove(temp))
	}
	return f, temp, nil
}

// nameless hides that a file could not be made because its directory is gone,
// which must not pass for an object that does not exist.
func nameless(err error) error {
	if isMissing(err) {
		return fmt.Errorf("%w: %v", sheep.ErrIO, err)
	}
	return err
}

// checkReserve refuses what needs new space when no more than reserve is left.
func (s *Store) checkReserve(reserve uint64) error {
	free, err := s.fs.Free()
	if err != nil {
		return fmt.Errorf("%w: %w", sheep.ErrIO, err)
	}
	if free < reserve {
		return fmt.Errorf("%w: %d bytes are free and %d are kept in reserve", sheep.ErrNoSpace, free, reserve)
	}
	return nil
}

// trimZeroes cuts blocks of zeroes off both ends of what is to be written into
// an empty file.
func trimZeroes(p []byte, off uint32) ([]byte, uint32) {
	for len(p) > 0 {
		n := min(blockSize-int(off%blockSize), len(p))
		if !isZero(p[:n]) {
			break
		}
		p, off = p[n:], off+uint32(n)
	}
	for len(p) > 0 {
		n := (int(off%blockSize)+len(p)-1)%blockSize + 1
		n = min(n, len(p))
		if !isZero(p[len(p)-n:]) {
			break
		}
		p = p[:len(p)-n]
	}
	return p, off
}

// zeroes is what blocks of zeroes are compared with; never written.
var zeroes [blockSize]byte

func isZero(p []byte) bool { return bytes.Equal(p, zeroes[:len(p)]) }

// writeSparse writes p into a file that is empty there, leaving holes for
// whole blocks of zeroes.
func writeSparse(f vfs.File, p []byte, off int64) error {
	for len(p) > 0 {
		n, zero := run(p, off)
		if !zero {
			if _, err := f.WriteAt(p[:n], off); err != nil {
				return err
			}
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// run returns the length of the longest beginning of p that is either blocks
// of zeroes or blocks of something else, at most chunkSize of these.
func run(p []byte, off int64) (n int, zero bool) {
	for n < len(p) && (zero || n < chunkSize) {
		m := min(blockSize-int((off+int64(n))%blockSize), len(p)-n)
		z := isZero(p[n : n+m])
		if n > 0 && z != zero {
			break
		}
		zero = z
		n += m
	}
	return n, zero
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
