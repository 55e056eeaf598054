package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"

	"sheepdog/sheep"
)

// A Kind says what a record means.
type Kind uint8

// The kinds of records, as disks have seen them: never renumber.
const (
	Write   Kind = 1 // Data was written at Off
	Zero    Kind = 2 // Arg bytes at Off became zero
	Create  Kind = 3 // the object was made, or made anew: Arg bytes, zero but for Data at Off
	Remove  Kind = 4 // the object was removed
	Settled Kind = 5 // the object is durable in place up to record Arg: do not replay what is older
	Touched Kind = 6 // the object is about to be written by other means
	Hot     Kind = 7 // Data is a list of ids, eight bytes each, of objects written lately
	Void    Kind = 8 // nothing before counts
)

func (k Kind) String() string {
	switch k {
	case Write:
		return "write"
	case Zero:
		return "zero"
	case Create:
		return "create"
	case Remove:
		return "remove"
	case Settled:
		return "settled"
	case Touched:
		return "touched"
	case Hot:
		return "hot"
	case Void:
		return "void"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Sizes of records.
const (
	RecordHeaderSize = 32
	MaxData          = 64 << 10 // bytes of data in one record
)

// ErrMalformed means that bytes are not what the journal writes.
var ErrMalformed = errors.New("malformed journal")

// A Record is one entry of the journal. Integers are little-endian.
//
//	offset  size  field
//	     0     1  kind
//	     1     3  zero
//	     4     4  length of the data
//	     8     8  object id
//	    16     4  epoch
//	    20     4  offset in the object
//	    24     8  argument, see the kinds
//	    32     –  data, then zeroes up to a multiple of 8
//
// Its sequence number is not stored with it: it follows from its place in the
// block.
type Record struct {
	Seq   uint64 // set by Replay; 0 for records of a segment's head
	Kind  Kind
	ID    sheep.ObjectID
	Epoch sheep.Epoch
	Off   uint32
	Arg   uint64
	Data  []byte // valid until the function that Replay calls returns
}

// size returns the length of the encoded record.
func (r *Record) size() int { return RecordHeaderSize + (len(r.Data)+7)&^7 }

// Append appends the encoded record to b.
func (r *Record) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, byte(r.Kind), 0, 0, 0)
	b = le.AppendUint32(b, uint32(len(r.Data)))
	b = le.AppendUint64(b, uint64(r.ID))
	b = le.AppendUint32(b, uint32(r.Epoch))
	b = le.AppendUint32(b, r.Off)
	b = le.AppendUint64(b, r.Arg)
	b = append(b, r.Data...)
	return append(b, make([]byte, -len(r.Data)&7)...)
}

// DecodeRecord decodes the record at the start of b and returns its length.
// The record's data is part of b.
func DecodeRecord(b []byte) (Record, int, error) {
	if len(b) < RecordHeaderSize {
		return Record{}, 0, fmt.Errorf("%w: record of %d bytes", ErrMalformed, len(b))
	}
	le := binary.LittleEndian
	r := Record{
		Kind:  Kind(b[0]),
		ID:    sheep.ObjectID(le.Uint64(b[8:])),
		Epoch: sheep.Epoch(le.Uint32(b[16:])),
		Off:   le.Uint32(b[20:]),
		Arg:   le.Uint64(b[24:]),
	}
	n := le.Uint32(b[4:])
	if r.Kind < Write || r.Kind > Void || b[1]|b[2]|b[3] != 0 {
		return Record{}, 0, fmt.Errorf("%w: record of %v", ErrMalformed, r.Kind)
	}
	if n > MaxData || int(n) > len(b)-RecordHeaderSize {
		return Record{}, 0, fmt.Errorf("%w: %v record with %d bytes of data", ErrMalformed, r.Kind, n)
	}
	r.Data = b[RecordHeaderSize : RecordHeaderSize+n : RecordHeaderSize+n]
	size := r.size()
	if size > len(b) {
		return Record{}, 0, fmt.Errorf("%w: %v record cut short", ErrMalformed, r.Kind)
	}
	for _, c := range b[RecordHeaderSize+n : size] {
		if c != 0 {
			return Record{}, 0, fmt.Errorf("%w: %v record with padding %#x", ErrMalformed, r.Kind, c)
		}
	}
	return r, size, nil
}

// hotPerRecord is how many ids fit into one Hot record.
const hotPerRecord = MaxData / 8

// HotRecords yields records that together name all of ids.
func HotRecords(ids []sheep.ObjectID) iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for some := range slices.Chunk(ids, hotPerRecord) {
			r := Record{Kind: Hot, Data: make([]byte, 0, 8*len(some))}
			for _, id := range some {
				r.Data = binary.LittleEndian.AppendUint64(r.Data, uint64(id))
			}
			if !yield(r) {
				return
			}
		}
	}
}

// HotIDs calls yield with the objects that a Hot record names.
func (r *Record) HotIDs(yield func(sheep.ObjectID) bool) {
	for b := r.Data; len(b) >= 8; b = b[8:] {
		if !yield(sheep.ObjectID(binary.LittleEndian.Uint64(b))) {
			return
		}
	}
}
