package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path"
	"strconv"

	"sheepdog/sheep/store/vfs"
)

// Where things are in a segment's file.
const (
	headerOffset = 0
	freeOffset   = pageSize
	blocksOffset = 2 * pageSize

	segmentHeaderSize = 48
	segmentVersion    = 1
)

// The two headers of a segment begin with these.
const (
	liveMagic = "SHEEPJNL" // at headerOffset: the segment's present life
	freeMagic = "SHEEPEND" // at freeOffset: the life that has ended
)

// A segmentHeader says which life of the segment has begun, or has ended.
// Integers are little-endian.
//
//	offset  size  field
//	     0     8  magic
//	     8     4  version of the format, 1
//	    12     4  CRC-32C of the bytes from 16 on
//	    16     8  generation
//	    24     8  salt of the blocks' checksums, random
//	    32     8  sequence number of the first record; in the mark of the end: of the next one
//	    40     8  length of the file
//
// A segment is live if its header is of a later generation than the mark of
// the end. The two are on different pages, so that a torn write of one never
// damages the other. A life has ended only when its mark is durable, the next
// one's header is not written before that, and no block before the header is
// durable.
type segmentHeader struct {
	gen, salt, first, size uint64
}

func (h segmentHeader) append(b []byte, magic string) []byte {
	le := binary.LittleEndian
	start := len(b)
	b = append(b, magic...)
	b = le.AppendUint32(b, segmentVersion)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, h.gen)
	b = le.AppendUint64(b, h.salt)
	b = le.AppendUint64(b, h.first)
	b = le.AppendUint64(b, h.size)
	le.PutUint32(b[start+12:], headerSum(b[start:]))
	return b
}

func decodeSegmentHeader(b []byte, magic string) (segmentHeader, bool) {
	le := binary.LittleEndian
	if len(b) < segmentHeaderSize || string(b[:8]) != magic ||
		le.Uint32(b[8:]) != segmentVersion || le.Uint32(b[12:]) != headerSum(b) {
		return segmentHeader{}, false
	}
	return segmentHeader{
		gen:   le.Uint64(b[16:]),
		salt:  le.Uint64(b[24:]),
		first: le.Uint64(b[32:]),
		size:  le.Uint64(b[40:]),
	}, true
}

func headerSum(header []byte) uint32 {
	return crc32.Checksum(header[16:segmentHeaderSize], crc32.MakeTable(crc32.Castagnoli))
}

// A segment is one file of the journal.
type segment struct {
	name  string
	file  vfs.File
	size  int64
	gen   uint64 // of the present life, or of the last one
	salt  uint64
	first uint64 // sequence number of the first record
	last  uint64 // of the last record, once the segment is full
}

// writeHeader writes one of the headers, padded to the page.
func (s *segment) writeHeader(off int64, magic string, h segmentHeader) error {
	h.size = uint64(s.size)
	page := h.append(make([]byte, 0, pageSize), magic)
	if _, err := s.file.WriteAt(page[:pageSize], off); err != nil {
		return fmt.Errorf("write segment %s: %w", s.name, err)
	}
	return nil
}

// end makes durable that the segment's records are not needed any more.
func (s *segment) end() error {
	if err := s.writeHeader(freeOffset, freeMagic, segmentHeader{gen: s.gen, first: s.last + 1}); err != nil {
		return err
	}
	return s.sync()
}

func (s *segment) sync() error {
	if err := s.file.DataSync(); err != nil {
		return fmt.Errorf("sync segment %s: %w", s.name, err)
	}
	return nil
}

// inspect reads the headers and tells whether the segment is live.
func (s *segment) inspect() (live bool, next uint64, err error) {
	b := make([]byte, blocksOffset+blockHeaderSize)
	if s.size < int64(len(b)) {
		return false, 0, nil
	}
	if _, err := s.file.ReadAt(b, 0); err != nil {
		return false, 0, fmt.Errorf("read segment %s: %w", s.name, err)
	}
	begun, ok := decodeSegmentHeader(b[headerOffset:], liveMagic)
	ended, _ := decodeSegmentHeader(b[freeOffset:], freeMagic)
	if !ok {
		// The header was torn when the next life began, unless blocks of a
		// life that has not ended follow it.
		if h, found := peekBlock(b[blocksOffset:]); found && h.gen > ended.gen {
			return false, 0, fmt.Errorf("%w: segment %s: damaged header at offset 0", ErrMalformed, s.name)
		}
		s.gen = ended.gen
		return false, ended.first, nil
	}
	s.gen, s.salt, s.first = begun.gen, begun.salt, begun.first
	if begun.size != uint64(s.size) {
		return false, 0, fmt.Errorf("%w: segment %s has %d bytes instead of %d", ErrMalformed, s.name, s.size, begun.size)
	}
	return begun.gen > ended.gen, max(begun.first, ended.first), nil
}

// image reads the whole segment.
func (s *segment) image() ([]byte, error) {
	b := make([]byte, s.size)
	if _, err := s.file.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read segment %s: %w", s.name, err)
	}
	return b, nil
}

// openSegments opens all segment files of the directory, in no order.
func openSegments(fs vfs.FS, dir string) ([]*segment, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, err
	}
	var segs []*segment
	for _, name := range names {
		if _, err := strconv.ParseUint(name, 10, 32); err != nil {
			if path.Ext(name) == ".tmp" {
				err = fs.Remove(path.Join(dir, name))
			} else {
				err = nil
			}
			if err != nil {
				return segs, err
			}
			continue
		}
		f, err := fs.Open(path.Join(dir, name), 0)
		if err != nil {
			return segs, err
		}
		s := &segment{name: name, file: f}
		segs = append(segs, s)
		if s.size, err = f.Size(); err != nil {
			return segs, err
		}
	}
	return segs, nil
}

// createSegment makes a segment file of which every byte was written. Its
// length is durable before anybody writes a header, which says how long the
// file is. Its name is durable after a sync of the directory.
func createSegment(fs vfs.FS, dir, name string, size int64) (*segment, error) {
	temp := path.Join(dir, name+".tmp")
	f, err := fs.Open(temp, os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, err
	}
	err = fillZero(f, size)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = fs.Rename(temp, path.Join(dir, name))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create segment %s: %w", name, err), f.Close(), fs.Remove(temp))
	}
	return &segment{name: name, file: f, size: size}, nil
}

func fillZero(f vfs.File, size int64) error {
	zero := make([]byte, min(size, 1<<20))
	for off := int64(0); off < size; off += int64(len(zero)) {
		if _, err := f.WriteAt(zero[:min(int64(len(zero)), size-off)], off); err != nil {
			return err
		}
	}
	return nil
}
