package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"sheepdog/sheep"
	"sheepdog/sheep/store/journal"
	"sheepdog/sheep/store/vfs"
)

// create makes an object, or makes it anew. The caller holds o.mu.
//
// A creation with little data is a record, and the replay does it again. One
// with much data is a file without a record of its content: like a large write
// it must be synced, and its name too.
func (s *Store) create(o *object, size uint32, epoch sheep.Epoch, w *sheep.Write) (Commit, error) {
	if size == 0 || uint64(w.Off)+uint64(w.Len()) > uint64(size) {
		return Commit{}, fmt.Errorf("create %v: %w: %d bytes at %d of %d", o.id, sheep.ErrInvalid, w.Len(), w.Off, size)
	}
	if err := s.admitNew(o.id, len(w.Data)); err != nil {
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
