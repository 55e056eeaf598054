package scrub

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// The state of a Scrubber outlives restarts. Integers are little-endian.
//
//	offset  size  field
//	     0     8  magic
//	     8     4  CRC-32C of the bytes from 12 on
//	    12     4  zero
//	    16     8  creation time of the cluster that it is about
//	    24     8  since when this node scrubs: seconds since 1970
//	    32     8  the object from which the pass that runs goes on
//	    40    56  the last pass that came to its end
//	    96    56  the pass that runs
//	   152        eight bytes for each object whose copies still differ
const (
	stateMagic = "SHEEPSCB"
	stateHead  = 40 + 2*proto.ScrubPassSize
)

// state is what a Scrubber has to know to go on.
type state struct {
	ctime  uint64
	since  uint64
	cursor sheep.ObjectID
	last   proto.ScrubPass
	now    proto.ScrubPass // runs if it has begun
	left   []sheep.ObjectID
}

func (s *state) append(b []byte) []byte {
	le := binary.LittleEndian
	start := len(b)
	b = append(b, stateMagic...)
	b = append(b, make([]byte, 8)...)
	for _, n := range []uint64{s.ctime, s.since, uint64(s.cursor)} {
		b = le.AppendUint64(b, n)
	}
	b = proto.AppendObjectIDs(s.now.Append(s.last.Append(b)), s.left)
	le.PutUint32(b[start+8:], stateSum(b[start:]))
	return b
}

func stateSum(b []byte) uint32 {
	return crc32.Checksum(b[12:], crc32.MakeTable(crc32.Castagnoli))
}

// decodeState decodes b.
func decodeState(b []byte) (s state, err error) {
	le := binary.LittleEndian
	if len(b) < stateHead || string(b[:8]) != stateMagic || le.Uint32(b[8:]) != stateSum(b) || le.Uint32(b[12:]) != 0 {
		return s, fmt.Errorf("%w: state of the scrub, of %d bytes", proto.ErrMalformed, len(b))
	}
	s.ctime, s.since, s.cursor = le.Uint64(b[16:]), le.Uint64(b[24:]), sheep.ObjectID(le.Uint64(b[32:]))
	if s.last, err = proto.DecodeScrubPass(b[40:]); err == nil {
		s.now, err = proto.DecodeScrubPass(b[40+proto.ScrubPassSize:])
	}
	if err == nil {
		s.left, err = proto.DecodeObjectIDs(b[stateHead:])
	}
	return s, err
}

// running reports whether a pass is under way.
func (s *state) running() bool { return s.now.Began != 0 }
