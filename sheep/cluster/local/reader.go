package local

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// A reader yields the records of one log file as they come.
type reader struct {
	log *logFile
	off int64  // in the file, of the first byte of buf
	buf []byte // read but not yet decoded

	// dry is the length at which buf was found to hold no whole record; it need
	// not be searched again before it has grown.
	dry int
}

const readSize = 64 << 10

// next returns the next record, or false if the file has no more for now. The
// record's data is valid until the next call.
func (r *reader) next() (record, bool, error) {
	for {
		rec, size, _ := decodeRecord(r.buf, r.log.salt)
		if size > 0 {
			r.skip(size)
			return rec, true, nil
		}
		if len(r.buf) > r.dry {
			if n := r.garbage(); n > 0 {
				r.skip(n)
				continue
			}
			r.dry = len(r.buf)
		}
		n, err := r.fill()
		if n == 0 || err != nil {
			return record{}, false, err
		}
	}
}

// garbage returns how many bytes at the start of buf can be no record.
func (r *reader) garbage() int {
	return findRecord(r.buf, r.log.salt)
}

func (r *reader) skip(n int) {
	r.buf = r.buf[n:]
	r.off += int64(n)
	r.dry = 0
}

// fill reads what the file has after buf.
func (r *reader) fill() (int, error) {
	if cap(r.buf)-len(r.buf) < readSize {
		r.buf = slices.Grow(slices.Clone(r.buf), readSize) // records returned earlier keep the old array
	}
	have := len(r.buf)
	n, err := r.log.file.ReadAt(r.buf[have:cap(r.buf)], r.end())
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read %s: %w", r.log.file.Name(), err)
	}
	r.buf = r.buf[:have+n]
	return n, nil
}

// end returns how far the file was read.
func (r *reader) end() int64 { return r.off + int64(len(r.buf)) }
