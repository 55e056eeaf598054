package proto

import (
	"encoding/binary"
	"fmt"

	"sheepdog/sheep"
)

// Sizes and marks of the stream of "dog vdi backup".
const (
	BackupHeaderSize = 8
	BackupRecordSize = 16
	BackupSector     = 512        // offsets and lengths are multiples of it
	BackupEnd        = 0xFFFFFFFF // the index of the record that ends the stream

	backupVersion = 1
	backupMagic   = 0x11921192
)

// AppendBackupHeader appends the start of a backup stream to b: version and
// magic, four bytes each.
func AppendBackupHeader(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, backupVersion)
	return binary.LittleEndian.AppendUint32(b, backupMagic)
}

// CheckBackupHeader returns nil if b starts a backup stream that we can read.
func CheckBackupHeader(b []byte) error {
	if len(b) < BackupHeaderSize {
		return short("backup header", len(b), BackupHeaderSize)
	}
	version, magic := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	if magic != backupMagic {
		return fmt.Errorf("%w: backup with magic %#x", ErrMalformed, magic)
	}
	if version != backupVersion {
		return fmt.Errorf("backup of version %d: %w", version, sheep.ErrVersion)
	}
	return nil
}

// A BackupRecord precedes the Len bytes of a backup stream that go to offset
// Off of one data object; the rest of the object is zero. The record with
// index BackupEnd ends the stream.
//
//	offset  size  field
//	     0     4  index of the object
//	     4     4  offset in the object
//	     8     4  length
//	    12     4  reserved
type BackupRecord struct {
	Index uint32
	Off   uint32
	Len   uint32
}

// DecodeBackupRecord decodes the record at the start of b. It refuses what
// does not fit the largest object or is not made of whole sectors.
func DecodeBackupRecord(b []byte) (BackupRecord, error) {
	if len(b) < BackupRecordSize {
		return BackupRecord{}, short("backup record", len(b), BackupRecordSize)
	}
	le := binary.LittleEndian
	r := BackupRecord{Index: le.Uint32(b[0:]), Off: le.Uint32(b[4:]), Len: le.Uint32(b[8:])}
	if r.Off%BackupSector != 0 || r.Len%BackupSector != 0 ||
		uint64(r.Off)+uint64(r.Len) > 1<<sheep.MaxBlockShift {
		return BackupRecord{}, fmt.Errorf("%w: backup of %d bytes at %d of object %d",
			ErrMalformed, r.Len, r.Off, r.Index)
	}
	return r, nil
}

// Append appends the record's 16 bytes to b.
func (r BackupRecord) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, r.Index)
	b = le.AppendUint32(b, r.Off)
	b = le.AppendUint32(b, r.Len)
	return append(b, 0, 0, 0, 0)
}
