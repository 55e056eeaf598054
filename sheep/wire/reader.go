package wire

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// LargePayload is the size from which payloads are neither copied nor batched.
const LargePayload = 64 << 10

// readSize is the size of a Reader's buffer.
const readSize = 128 << 10

// A Reader reads messages from a stream through one buffer. It belongs to one
// goroutine. While it waits for a message on a connection it has no buffer, so
// that connections on which nothing happens cost next to nothing.
type Reader struct {
	src     io.Reader
	raw     syscall.RawConn // of src, or nil
	try     func(fd uintptr) bool
	buffers *Buffers

	lent *Buffer // nil while nothing is buffered, perhaps
	r, w int     // lent.B[r:w] is read from src and not yet consumed

	n   int   // of try
	err error // of try
}

// NewReader returns a reader of src that borrows its buffer from buffers.
func NewReader(src io.Reader, buffers *Buffers) *Reader {
	r := &Reader{src: src, buffers: buffers}
	r.try = r.tryRead
	if sc, ok := src.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			r.raw = raw
		}
	}
	return r
}

// Close gives the buffer back. The source stays open.
func (r *Reader) Close() {
	r.buffers.Put(r.lent)
	r.lent, r.r, r.w = nil, 0, 0
}

// Buffered returns the number of bytes that can be had without reading from
// the source.
func (r *Reader) Buffered() int { return r.w - r.r }

// Peek returns the next n bytes without consuming them, reading from the
// source as needed. They are valid until the next call but Consume. It returns
// io.EOF if the source ends before the first of them, io.ErrUnexpectedEOF if it
// ends after it. n is at most LargePayload.
func (r *Reader) Peek(n int) ([]byte, error) {
	if err := r.need(n); err != nil {
		return nil, err
	}
	return r.lent.B[r.r : r.r+n], nil
}

// Consume drops n bytes that a Peek returned.
func (r *Reader) Consume(n int) { r.r += n }

// ReadFull fills p. The part of a large payload that is not yet in the buffer
// goes straight from the source to p.
func (r *Reader) ReadFull(p []byte) error {
	large := len(p) >= LargePayload
	for {
		if r.Buffered() > 0 {
			n := copy(p, r.lent.B[r.r:r.w])
			r.r += n
			p = p[n:]
		}
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
	if r.r+n > readSize {
		r.w = copy(r.lent.B, r.lent.B[r.r:r.w])
		r.r = 0
	}
	for idle := 0; r.w-r.r < n; {
		k, err := r.fill()
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

// fill reads once.
func (r *Reader) fill() (int, error) {
	if r.raw == nil {
		r.borrow()
		return r.src.Read(r.lent.B[r.w:])
	}
	r.n, r.err = 0, nil
	if err := r.raw.Read(r.try); err != nil {
		return 0, err
	}
	return r.n, r.err
}

// tryRead reads what is there. If nothing is, it asks to be called again when
// something might be.
func (r *Reader) tryRead(fd uintptr) bool {
	r.borrow()
	for {
		n, err := syscall.Read(int(fd), r.lent.B[r.w:])
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			if r.w == 0 {
				r.Close()
			}
			return false
		case err != nil:
			r.err = os.NewSyscallError("read", err)
		case n == 0:
			r.err = io.EOF
		default:
			r.n = n
		}
		return true
	}
}

func (r *Reader) borrow() {
	if r.lent == nil {
		r.lent = r.buffers.Get(readSize)
	}
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
