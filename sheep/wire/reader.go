package wire

import (
	"io"
)

// LargePayload is the size from which payloads are neither copied nor batched.
const LargePayload = 64 << 10

// A Reader reads messages from a stream through one buffer. It belongs to one
// goroutine.
type Reader struct {
	src  io.Reader
	buf  []byte
	r, w int // buf[r:w] is read from src and not yet consumed
}

// NewReader returns a reader of src that uses buf, which should hold at least
// LargePayload bytes.
func NewReader(src io.Reader, buf []byte) *Reader {
	return &Reader{src: src, buf: buf}
}

// Buffered returns the number of bytes that can be had without reading from
// the source.
func (r *Reader) Buffered() int { return r.w - r.r }

// Peek returns the next n bytes without consuming them, reading from the
// source as needed. They are valid until the next call. It returns io.EOF if
// the source ends before the first of them, io.ErrUnexpectedEOF if it ends
// after it. n must not exceed the buffer.
func (r *Reader) Peek(n int) ([]byte, error) {
	if err := r.need(n); err != nil {
		return nil, err
	}
	return r.buf[r.r : r.r+n], nil
}

// Consume drops n bytes that a Peek returned.
func (r *Reader) Consume(n int) { r.r += n }

// ReadFull fills p. The part of a large payload that is not yet in the buffer
// goes straight from the source to p.
func (r *Reader) ReadFull(p []byte) error {
	large := len(p) >= LargePayload
	for {
		n := copy(p, r.buf[r.r:r.w])
		r.r += n
		p = p[n:]
		if len(p) == 0 {
			return nil
		}
		if large {
			_, err := io.ReadFull(r.src, p)
			return unexpected(err)
		}
		if err := r.need(1); err != nil {
			return unexpected(err)
		}
	}
}

// Skip reads n bytes and forgets them.
func (r *Reader) Skip(n int64) error {
	for n > 0 {
		if err := r.need(1); err != nil {
			return unexpected(err)
		}
		k := min(n, int64(r.Buffered()))
		r.r += int(k)
		n -= k
	}
	return nil
}

// need reads until n bytes are buffered.
func (r *Reader) need(n int) error {
	if r.r == r.w {
		r.r, r.w = 0, 0
	}
	if r.r+n > len(r.buf) {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	for idle := 0; r.w-r.r < n; {
		k, err := r.src.Read(r.buf[r.w:])
		r.w += k
		if r.w-r.r >= n {
			return nil
		}
		if err != nil {
			if r.w > r.r {
				return unexpected(err)
			}
			return err
		}
		if k > 0 {
			idle = 0
		} else if idle++; idle > 100 {
			return io.ErrNoProgress
		}
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
