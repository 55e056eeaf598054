package journal

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"sheepdog/sheep/store/vfs"
)

// Open opens the journal in the directory dir of fs, which must exist, and
// checks what is to be replayed. With discard it replays nothing: what the
// journal holds is void. Between Open and Start the owner calls Replay.
func Open(fs vfs.FS, dir string, cfg Config, discard bool) (*Journal, error) {
	j, err := newJournal(fs, dir, cfg)
	if err != nil {
		return nil, err
	}
	segs, err := openSegments(fs, dir)
	if err == nil {
		err = j.sort(segs, discard)
	}
	if err == nil {
		err = j.check()
	}
	if err != nil {
		for _, s := range segs {
			err = errors.Join(err, s.file.Close())
		}
		return nil, fmt.Errorf("open journal %s: %w", dir, err)
	}
	return j, nil
}

// sort divides the segments into free ones and those to be replayed.
func (j *Journal) sort(segs []*segment, discard bool) error {
	next := uint64(1)
	for _, s := range segs {
		live, seq, err := s.inspect()
		switch {
		case err != nil && !discard:
			return err
		case err != nil:
			s.size = 0 // Start makes another in its place
			j.free = append(j.free, s)
		case !live:
			j.free = append(j.free, s)
		case discard:
			if err := s.end(); err != nil {
				return err
			}
			j.free = append(j.free, s)
		default:
			j.replaying = append(j.replaying, s)
		}
		next = max(next, seq)
	}
	slices.SortFunc(j.replaying, func(a, b *segment) int { return cmp.Compare(a.gen, b.gen) })
	for i, s := range j.replaying {
		if i > 0 && s.gen != j.replaying[i-1].gen+1 {
			return fmt.Errorf("%w: the segment between %s and %s is missing",
				ErrMalformed, j.replaying[i-1].name, s.name)
		}
	}
	j.written = next - 1
	return nil
}

// check reads what is to be replayed and finds its end.
func (j *Journal) check() error {
	var durable uint64
	where := "the journal"
	for i, s := range j.replaying {
		if i > 0 && s.first != j.written+1 {
			return fmt.Errorf("%w: damage at %s: record %d is missing", ErrMalformed, where, j.written+1)
		}
		j.written = s.first - 1
		image, err := s.image()
		if err != nil {
			return err
		}
		end, err := s.scan(image, func(h blockHeader, records []byte) error {
			durable = max(durable, h.durable)
			if h.kind == recordBlock {
				j.written = h.first + uint64(h.count) - 1
			}
			return h.eachRecord(records, func(Record) error { return nil })
		})
		if err != nil {
			return err
		}
		where = fmt.Sprintf("segment %s, offset %d", s.name, end)
		durable = max(durable, s.search(image, end))
	}
	if durable > j.written {
		return fmt.Errorf("%w: damage at %s: record %d is missing, and records up to %d were durable",
			ErrMalformed, where, j.written+1, durable)
	}
	return nil
}

// scan calls fn with the blocks of the segment up to the first that is not
// whole, and returns where that is.
func (s *segment) scan(image []byte, fn func(blockHeader, []byte) error) (end int, err error) {
	next := s.first
	for end = blocksOffset; end < len(image); {
		h, records, ok := decodeBlock(image[end:], s.gen, s.salt)
		if !ok || h.first != next {
			break
		}
		if h.kind == recordBlock {
			next += uint64(h.count)
		}
		if err := fn(h, records); err != nil {
			return end, fmt.Errorf("segment %s, block at offset %d: %w", s.name, end, err)
		}
		end += int(h.length)
	}
	return end, nil
}

// search looks for whole blocks behind the end of the scan and returns the
// highest sequence number that one of them knows to be durable.
func (s *segment) search(image []byte, off int) (durable uint64) {
	for off = (off + 7) &^ 7; off+blockHeaderSize <= len(image); off += 8 {
		if h, _, ok := decodeBlock(image[off:], s.gen, s.salt); ok {
			durable = max(durable, h.durable)
		}
	}
	return durable
}

// Replay calls fn with all records in order, the heads of segments included.
// It may be called several times, but only before Start.
func (j *Journal) Replay(fn func(Record) error) error {
	for _, s := range j.replaying {
		image, err := s.image()
		if err != nil {
			return err
		}
		_, err = s.scan(image, func(h blockHeader, records []byte) error { return h.eachRecord(records, fn) })
		if err != nil {
			return fmt.Errorf("replay: %w", err)
		}
	}
	return nil
}
