package store

import (
	"context"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/store/vfs"
)

// A disk that is full to the last byte helps nobody: what was deleted must be
// recorded before its space is free. So the space is given out by need. Each
// kind of use has to leave some free to the next:
//
//	copies that nobody waits for    the near-full mark
//	clients' data, new disks        the reserve
//	copies in the place of others   half of the reserve
//	metadata that exists            a quarter of the reserve
//	records of the store itself     nothing; the journal has its space from the start
//
// What needs no new space is never refused.

// The usual marks, as parts of the disk.
const (
	minReserve = 64 << 20
	maxReserve = 8 << 30
	maxNear    = 64 << 30

	reservePart = 100 // one per cent
	nearPart    = 20  // five
)

// roomStep is how much is written at most between two looks at what is free:
// others may use the disk, too.
const roomStep = 32 << 20

// A Room is how much there is on the disk, and which marks count, in bytes.
type Room struct {
	Size, Free uint64
	NearFull   uint64 // with less than this free, recovery brings no more copies
	Reserve    uint64 // with less than this free, writes that need space are refused
}

// Room returns how much room there is on the disk.
func (s *Store) Room() (Room, error) {
	if err := s.enter(); err != nil {
		return Room{}, err
	}
	defer s.leave()
	return s.look()
}

func (s *Store) look() (Room, error) {
	total, free, err := s.fs.Space()
	if err != nil {
		return Room{}, fmt.Errorf("%w: how much space is free: %w", sheep.ErrIO, err)
	}
	r := Room{Size: total, Free: free, Reserve: s.cfg.Reserve, NearFull: s.cfg.NearFull}
	if r.Reserve == 0 {
		r.Reserve = max(minReserve, min(total/reservePart, maxReserve))
		r.NearFull = max(r.NearFull, min(total/nearPart, maxNear))
	}
	if s.cfg.NearFull == 0 {
		r.NearFull = max(r.NearFull, 2*r.Reserve)
	}
	return r, nil
}

// leaves returns nil if n bytes can be taken so that mark bytes stay free.
func (r Room) leaves(mark, n uint64) error {
	if r.Free >= mark && r.Free-mark >= n {
		return nil
	}
	return fmt.Errorf("%w: %d bytes are free and %d are kept in reserve", sheep.ErrNoSpace, r.Free, mark)
}

// markOf returns how much a change of id has to leave free. Disks are given up
// with changes of what is metadata already, and with ledgers.
func (r Room) markOf(id sheep.ObjectID, create bool) uint64 {
	if !id.Metadata() || create && id.Kind() == sheep.KindInode {
		return r.Reserve
	}
	return r.Reserve / 4
}

// admitNew returns nil if there is room for the object id with n bytes of data.
func (s *Store) admitNew(id sheep.ObjectID, n int) error {
	r, err := s.look()
	if err != nil {
		return err
	}
	return r.leaves(r.markOf(id, true), uint64(n))
}

// admitWrite returns nil if there is room for w, which changes the object id in
// the file f, or it needs none.
func (s *Store) admitWrite(id sheep.ObjectID, f vfs.File, w *sheep.Write) error {
	n := int64(len(w.Data))
	if n == 0 || s.room.Add(-n) >= 0 {
		return nil
	}
	r, err := s.look()
	if err != nil {
		return err
	}
	mark := r.markOf(id, false)
	if err = r.leaves(mark, uint64(n)); err == nil {
		if r.Free > r.Reserve { // beyond it every write is looked at
			s.room.Store(int64(min(r.Free-r.Reserve, roomStep)) - n)
		}
		return nil
	}
	if dense, derr := f.Dense(int64(w.Off), n); derr == nil && dense {
		return nil
	}
	return err
}

// unhurried marks the context of copies that nobody waits for.
type unhurried struct{}

// Unhurried returns a context for the Install of a copy that no client waits for.
func Unhurried(ctx context.Context) context.Context {
	return context.WithValue(ctx, unhurried{}, true)
}

// admitCopy returns nil if there is room for a copy of the object id beside the
// others that are being installed. One that takes the place of another gives back
// what it takes.
func (s *Store) admitCopy(ctx context.Context, id sheep.ObjectID) error {
	r, err := s.look()
	if err != nil {
		return err
	}
	taken := uint64(s.copying.Load()) // this one included
	exists, err := s.fs.Exists(objectPath(id))
	switch {
	case err == nil && exists:
		return r.leaves(r.Reserve/2, 0)
	case ctx.Value(unhurried{}) == nil:
		return r.leaves(r.Reserve, taken)
	}
	if err := r.leaves(r.NearFull, taken); err != nil {
		return fmt.Errorf("the disk of this node is nearly full: %w", err)
	}
	return nil
}
