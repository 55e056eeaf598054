package nbd

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// A reader reads messages through one buffer. It belongs to one goroutine.
type reader struct {
	src      net.Conn
	buf      []byte
	r, w     int    // buf[r:w] is read and not yet consumed
	idle     func() // called before a read that may block
	patience time.Duration
	deadline func(time.Time) // sets or, if zero, clears the limit of a payload
	hoards   func() bool     // others wait for memory, of which this connection has much
}

// A client that has announced a payload and is silent is looked at so often.
const lookAfter = 2 * time.Second

// grow replaces the buffer by a larger one.
func (r *reader) grow(n int) {
	buf := make([]byte, n)
	r.w = copy(buf, r.buf[r.r:r.w])
	r.r, r.buf = 0, buf
}

func (r *reader) buffered() int { return r.w - r.r }

// next consumes n bytes, at most the size of the buffer. They are valid until
// the next call. It returns io.EOF if the source ends before the first of them.
func (r *reader) next(n int) ([]byte, error) {
	for r.w-r.r < n {
		if err := r.fill(n); err != nil {
			if err == io.EOF && r.w > r.r {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	p := r.buf[r.r : r.r+n]
	r.r += n
	return p, nil
}

// fill reads once, having made room for n bytes.
func (r *reader) fill(n int) error {
	if r.r == r.w {
		r.r, r.w = 0, 0
	} else if r.r+n > len(r.buf) {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	if r.idle != nil {
		r.idle()
	}
	return r.took(r.src.Read(r.buf[r.w:]))
}

// took notes that n bytes were read into the buffer.
func (r *reader) took(n int, err error) error {
	r.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// within reads a part of a payload. The source may not pause for longer than
// the patience, and only for a moment if the connection hoards memory.
func (r *reader) within(p []byte) (int, error) {
	for silent := time.Duration(0); ; silent += lookAfter {
		r.deadline(time.Now().Add(min(lookAfter, r.patience-silent)))
		n, err := r.src.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || silent+lookAfter >= r.patience || r.hoards() {
			return n, err
		}
	}
}

// payload fills p from what a client has announced.
func (r *reader) payload(p []byte) error {
	n := copy(p, r.buf[r.r:r.w])
	r.r += n
	if p = p[n:]; len(p) == 0 {
		return nil
	}
	if r.idle != nil {
		r.idle()
	}
	defer r.deadline(time.Time{})
	for len(p) > 0 {
		if len(p) < len(r.buf) { // with what follows it
			r.r, r.w = 0, 0
			if err := r.took(r.within(r.buf)); err != nil {
				return unexpected(err)
			}
			n := copy(p, r.buf[:r.w])
			r.r += n
			p = p[n:]
			continue
		}
		n, err := r.within(p)
		if n == 0 && err != nil {
			return unexpected(err)
		}
		p = p[n:]
	}
	return nil
}

// skip consumes n bytes and forgets them, with the same patience.
func (r *reader) skip(n int64) error {
	k := min(n, int64(r.buffered()))
	r.r += int(k)
	if n -= k; n == 0 {
		return nil
	}
	defer r.deadline(time.Time{})
	for n > 0 {
		r.r, r.w = 0, 0
		if err := r.took(r.within(r.buf)); err != nil {
			return unexpected(err)
		}
		k := min(n, int64(r.buffered()))
		r.r += int(k)
		n -= k
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
