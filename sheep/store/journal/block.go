package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// blockHeaderSize is the length of what precedes the records of a block.
const blockHeaderSize = 48

// blockMagic is the beginning of every block.
const blockMagic = 0x4b4c4253 // "SBLK"

// The kinds of blocks, as disks have seen them: never renumber.
const (
	recordBlock = 1 // records of Append, numbered from first on
	headBlock   = 2 // what Config.Head yields; not numbered
)

// A blockHeader precedes the records that were written together. Integers are
// little-endian.
//
//	offset  size  field
//	     0     4  magic
//	     4     4  length of the block, this header included; a multiple of 8
//	     8     4  CRC-32C of the segment's salt and of the block from byte 12 on
//	    12     4  number of records
//	    16     8  generation of the segment
//	    24     8  sequence number of the first record; of the next one in a head block
//	    32     8  highest sequence number that was durable when the block was written
//	    40     2  kind
//	    42     6  zero
//
// The generation and the salt tell a block from those of the segment's earlier
// lives, and from client data that looks like a block.
type blockHeader struct {
	length  uint32
	count   uint32
	gen     uint64
	first   uint64
	durable uint64
	kind    uint16
}

// seal fills the header of block, whose records are in place, and its checksum.
func (h blockHeader) seal(block []byte, salt uint64) {
	le := binary.LittleEndian
	le.PutUint32(block[0:], blockMagic)
	le.PutUint32(block[4:], uint32(len(block)))
	le.PutUint32(block[12:], h.count)
	le.PutUint64(block[16:], h.gen)
	le.PutUint64(block[24:], h.first)
	le.PutUint64(block[32:], h.durable)
	le.PutUint16(block[40:], h.kind)
	clear(block[42:blockHeaderSize])
	le.PutUint32(block[8:], blockSum(block, salt))
}

// decodeBlock decodes the block at the start of b if it is one of the segment
// that has the salt and generation.
func decodeBlock(b []byte, gen, salt uint64) (h blockHeader, records []byte, ok bool) {
	h, ok = peekBlock(b)
	if !ok || h.gen != gen || int64(h.length) > int64(len(b)) {
		return h, nil, false
	}
	b = b[:h.length]
	if binary.LittleEndian.Uint32(b[8:]) != blockSum(b, salt) {
		return h, nil, false
	}
	return h, b[blockHeaderSize:], true
}

// peekBlock decodes a header that may be anything.
func peekBlock(b []byte) (blockHeader, bool) {
	le := binary.LittleEndian
	if len(b) < blockHeaderSize || le.Uint32(b) != blockMagic {
		return blockHeader{}, false
	}
	h := blockHeader{
		length:  le.Uint32(b[4:]),
		count:   le.Uint32(b[12:]),
		gen:     le.Uint64(b[16:]),
		first:   le.Uint64(b[24:]),
		durable: le.Uint64(b[32:]),
		kind:    le.Uint16(b[40:]),
	}
	return h, h.length >= blockHeaderSize && h.length%8 == 0
}

func blockSum(block []byte, salt uint64) uint32 {
	var s [8]byte
	binary.LittleEndian.PutUint64(s[:], salt)
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(0, table, s[:]), table, block[12:])
}

// eachRecord calls yield with the records of a block, which must be exactly
// as many as its header says.
func (h blockHeader) eachRecord(records []byte, yield func(Record) error) error {
	seq := h.first
	for range h.count {
		r, n, err := DecodeRecord(records)
		if err != nil {
			return err
		}
		if h.kind == recordBlock {
			r.Seq = seq
			seq++
		}
		if err := yield(r); err != nil {
			return err
		}
		records = records[n:]
	}
	if len(records) != 0 {
		return fmt.Errorf("%w: %d bytes after the last record of a block", ErrMalformed, len(records))
	}
	return nil
}
