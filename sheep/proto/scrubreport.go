package proto

import (
	"encoding/binary"
	"fmt"
	"time"

	"sheepdog/sheep"
)

// Limits of a ScrubReport.
const (
	MaxScrubLeft  = 256 // objects that are named
	ScrubRoom     = scrubHeadSize + 8*MaxScrubLeft
	ScrubPassSize = 56

	scrubHeadSize = 16 + 2*ScrubPassSize
)

// A ScrubPass is what one pass of the background scrub has found. Each field is
// eight bytes, in this order.
type ScrubPass struct {
	Began     uint64 // seconds since 1970
	Ended     uint64 // likewise; 0 while it runs
	Objects   uint64 // to be compared, as counted at the beginning
	Compared  uint64
	Differing uint64 // objects whose copies were not equal
	Repaired  uint64 // of these
	Bytes     uint64 // of the objects that were compared
}

// Left is the number of objects whose copies still differ.
func (p ScrubPass) Left() uint64 { return p.Differing - min(p.Repaired, p.Differing) }

// BeganAt returns when the pass began.
func (p ScrubPass) BeganAt() time.Time { return time.Unix(int64(p.Began), 0) }

// EndedAt returns when the pass ended.
func (p ScrubPass) EndedAt() time.Time { return time.Unix(int64(p.Ended), 0) }

// fields returns the fields of p in their order on the wire.
func (p *ScrubPass) fields() [ScrubPassSize / 8]*uint64 {
	return [...]*uint64{&p.Began, &p.Ended, &p.Objects, &p.Compared, &p.Differing, &p.Repaired, &p.Bytes}
}

// Append appends the pass's 56 bytes to b.
func (p ScrubPass) Append(b []byte) []byte {
	for _, f := range p.fields() {
		b = binary.LittleEndian.AppendUint64(b, *f)
	}
	return b
}

// DecodeScrubPass decodes the record at the start of b.
func DecodeScrubPass(b []byte) (p ScrubPass, err error) {
	if len(b) < ScrubPassSize {
		return p, short("pass of a scrub", len(b), ScrubPassSize)
	}
	for i, f := range p.fields() {
		*f = binary.LittleEndian.Uint64(b[8*i:])
	}
	return p, nil
}

// The bits of a ScrubReport.
const (
	ScrubOn      uint8 = 0x01 // the node scrubs at all
	ScrubRunning uint8 = 0x02 // a pass is under way
	ScrubHeld    uint8 = 0x04 // and waits: for the end of a recovery, or for its hours
)

// A ScrubReport is the answer to GET_SCRUB: what the background scrub of a node
// has found.
//
//	offset  size  field
//	     0     1  bits
//	     1     7  zero
//	     8     8  when the next pass is due: seconds since 1970, 0 if a pass runs or none will
//	    16    56  the last pass that came to its end; it began at 0 if there was none
//	    72    56  the pass that runs; likewise
//	   128        eight bytes for each object whose copies differ and were not made equal, as many
//	              as there is room for
type ScrubReport struct {
	Bits uint8
	Next uint64
	Last ScrubPass
	Now  ScrubPass
	Left []sheep.ObjectID
}

// Append appends the report to b, its list cut to the limit.
func (r ScrubReport) Append(b []byte) []byte {
	b = append(b, r.Bits, 0, 0, 0, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, r.Next)
	b = r.Now.Append(r.Last.Append(b))
	return AppendObjectIDs(b, r.Left[:min(len(r.Left), MaxScrubLeft)])
}

// DecodeScrubReport decodes b.
func DecodeScrubReport(b []byte) (r ScrubReport, err error) {
	if len(b) < scrubHeadSize || len(b) > ScrubRoom || [7]byte(b[1:]) != [7]byte{} {
		return r, fmt.Errorf("%w: report of a scrub, of %d bytes", ErrMalformed, len(b))
	}
	r.Bits, r.Next = b[0], binary.LittleEndian.Uint64(b[8:])
	if r.Last, err = DecodeScrubPass(b[16:]); err == nil {
		r.Now, err = DecodeScrubPass(b[16+ScrubPassSize:])
	}
	if err == nil {
		r.Left, err = DecodeObjectIDs(b[scrubHeadSize:])
	}
	return r, err
}
