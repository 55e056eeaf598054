package local

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

var le = binary.LittleEndian

const (
	recordMagic  = 0x9e5a10c6
	recordEnd    = 0x21d8e37b // no byte of it occurs in the magic
	recordHeader = 40
	recordFrame  = recordHeader + 4
	maxData      = cluster.MaxJoin + 64
)

// The kinds of records. Joins, leaves and messages have the numbers of
// cluster.EntryKind. Logs have seen them: never renumber.
const (
	recordJoin    = uint8(cluster.EntryJoin)
	recordLeave   = uint8(cluster.EntryLeave)
	recordMessage = uint8(cluster.EntryMessage)
	recordWake    = 0x10 // the author's lease had lapsed, and it is back; data: its new heartbeat
	recordRotate  = 0x11 // the generation ends here
)

// A record is one append to the log. Integers are little-endian.
//
//	offset  size  field
//	     0     4  magic
//	     4     4  CRC-32C of what follows but the end mark, started with the log file's salt
//	     8     4  length of the data
//	    12     1  kind
//	    13     3  zero
//	    16     8  incarnation of the author
//	    24     8  number of the record among the author's
//	    32     8  time, nanoseconds since 1970 by the author's clock
//	    40        data
//	           4  end mark, so that the begin of the next record cannot complete a torn one
//
// The salt makes it impossible that bytes of one log, or of a message that
// somebody chose, pass for a record of another.
type record struct {
	kind   uint8
	author sheep.Incarnation
	number uint64
	time   int64
	data   []byte
}

// append appends the record as the log file with the salt has it.
func (r record) append(b []byte, salt uint32) []byte {
	start := len(b)
	b = le.AppendUint32(b, recordMagic)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, uint32(len(r.data)))
	b = append(b, r.kind, 0, 0, 0)
	b = le.AppendUint64(b, uint64(r.author))
	b = le.AppendUint64(b, r.number)
	b = le.AppendUint64(b, uint64(r.time))
	b = append(b, r.data...)
	le.PutUint32(b[start+4:], checksum(salt, b[start+8:]))
	return le.AppendUint32(b, recordEnd)
}

func checksum(salt uint32, b []byte) uint32 {
	return crc32.Update(salt, castagnoli(), b)
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// decodeRecord decodes the record at the start of b. It returns its size, or
// 0 if b begins with no record; more says that it may do once b is longer. The
// record's data is part of b.
func decodeRecord(b []byte, salt uint32) (r record, size int, more bool) {
	if len(b) < recordHeader {
		return record{}, 0, bytes.HasPrefix(le.AppendUint32(nil, recordMagic), b[:min(len(b), 4)])
	}
	n := int(le.Uint32(b[8:]))
	if le.Uint32(b) != recordMagic || n > maxData {
		return record{}, 0, false
	}
	size = recordFrame + n
	if len(b) < size {
		return record{}, 0, true
	}
	end := recordHeader + n
	if le.Uint32(b[end:]) != recordEnd || le.Uint32(b[4:]) != checksum(salt, b[8:end]) {
		return record{}, 0, false
	}
	return record{
		kind:   b[12],
		author: sheep.Incarnation(le.Uint64(b[16:])),
		number: le.Uint64(b[24:]),
		time:   int64(le.Uint64(b[32:])),
		data:   b[recordHeader:end:end],
	}, size, false
}

// findRecord returns where the first whole record in b begins, or if there is
// none, where one may begin once b is longer, len(b) at the latest.
//
// Torn writes are skipped that way: appends never interleave, so a whole record
// after an unfinished one proves that the latter stays unfinished. Whoever reads
// the bytes later, or in other pieces, comes to the same records.
func findRecord(b []byte, salt uint32) int {
	magic := byte(recordMagic & 0xff)
	unfinished := len(b)
	for off := 0; off < len(b); off++ {
		i := bytes.IndexByte(b[off:], magic)
		if i < 0 {
			break
		}
		off += i
		_, size, more := decodeRecord(b[off:], salt)
		if size > 0 {
			return off
		}
		if more {
			unfinished = min(unfinished, off)
		}
	}
	return unfinished
}
