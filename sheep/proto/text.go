package proto

import (
	"bytes"
	"fmt"
	"time"
)

// LabelSize is the length of the fields that hold names, tags and attribute
// keys, a terminating NUL included; QEMU fills a tag without NUL.
const LabelSize = 256

// Text returns the bytes of b before the first NUL.
func Text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// Label returns s padded with NULs. A longer s is cut; callers that care check
// before.
func Label(s string) (b [LabelSize]byte) {
	copy(b[:], s)
	return b
}

// AppendLookup appends the data of a lookup to b: name and tag in two labels.
func AppendLookup(b []byte, name, tag string) []byte {
	n, t := Label(name), Label(tag)
	return append(append(b, n[:]...), t[:]...)
}

// AppendName appends the data of NEW_VDI to b: the name in a label.
func AppendName(b []byte, name string) []byte {
	n := Label(name)
	return append(b, n[:]...)
}

// DecodeLookup decodes the data of a lookup: a name, or a name and a tag.
func DecodeLookup(b []byte) (name, tag string, err error) {
	switch len(b) {
	case LabelSize:
		return Text(b), "", nil
	case 2 * LabelSize:
		return Text(b[:LabelSize]), Text(b[LabelSize:]), nil
	}
	return "", "", fmt.Errorf("%w: lookup of %d bytes", ErrMalformed, len(b))
}

// appendPadded appends s to b, cut or padded with NULs to n bytes.
func appendPadded(b []byte, s string, n int) []byte {
	b = append(b, s[:min(len(s), n)]...)
	return append(b, make([]byte, n-min(len(s), n))...)
}

// WireTime returns t as inodes and cluster records have it: seconds in the
// upper 32 bits, nanoseconds in the lower. The zero time is 0.
func WireTime(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.Unix())<<32 | uint64(t.Nanosecond())
}

// TimeFromWire is the inverse of WireTime.
func TimeFromWire(v uint64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return time.Unix(int64(v>>32), int64(uint32(v)))
}
