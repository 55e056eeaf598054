package nbd

import (
	"fmt"
	"io"
	"time"
)

// run carries out a request that has been checked, and makes its reply.
func (r *request) run() {
	dev, ctx := r.c.dev, r.c.ctx
	n := uint64(r.length)
	var err error
	switch r.cmd {
	case cmdRead:
		r.read()
		return
	case cmdWrite:
		start := time.Now()
		err = dev.Write(ctx, r.buf.data(int(n)), r.off, r.flags&cmdFUA != 0)
		r.c.took(r.header, time.Since(start))
		r.c.srv.buffers.put(r.buf)
		r.buf = nil
	case cmdFlush:
		if err = dev.Flush(ctx); err != nil {
			r.tell(err)
		}
	case cmdTrim:
		err = dev.Zero(ctx, r.off, n, ZeroTrim|zeroMode(r.flags))
	case cmdWriteZeroes:
		err = dev.Zero(ctx, r.off, n, zeroMode(r.flags))
	case cmdCache:
		if p, ok := dev.(Prefetcher); ok {
			err = p.Prefetch(ctx, r.off, n)
		}
	case cmdBlockStatus:
		r.blockStatus()
		return
	}
	if err != nil {
		r.failed(err)
		return
	}
	r.simple(0)
}

// tell has the device know when the client has got the reply, for which err is the
// reason.
func (r *request) tell(err error) {
	if t, ok := r.c.dev.(Teller); ok {
		r.once = r.c.told.Expect(func() { t.Told(err) })
	}
}

func zeroMode(flags uint16) (m ZeroMode) {
	if flags&cmdFUA != 0 {
		m |= ZeroFUA
	}
	if flags&cmdNoHole != 0 {
		m |= ZeroNoHole
	}
	if flags&cmdFastZero != 0 {
		m |= ZeroFast
	}
	return m
}

// sparseRead is the length from which reads look for holes first.
const sparseRead = 32 << 10

func (r *request) read() {
	c, n := r.c, int(r.length)
	start := time.Now()
	if c.info.CheapExtents && c.opts.structured && n >= sparseRead && r.flags&cmdDF == 0 {
		if err := r.survey(r.off, uint64(n), maxChunks); err != nil {
			r.failed(err)
			return
		}
		if r.sparse() {
			return
		}
	}
	r.buf = c.srv.buffers.get(n)
	if err := c.dev.Read(c.ctx, r.buf.data(n), r.off); err != nil {
		r.failed(err)
		return
	}
	c.took(r.header, time.Since(start))
	if c.opts.structured {
		r.data(n)
	} else {
		r.simpleData(n)
	}
}

// sparse answers a read whose extents are known, if there are holes in it. It
// reads what is not a hole.
func (r *request) sparse() bool {
	chunks := r.extents[:0] // merges what is the same for a reader, in place
	holes := false
	for _, e := range r.extents {
		e.state &= ExtentZero
		holes = holes || e.state != 0
		if k := len(chunks); k > 0 && chunks[k-1].state == e.state {
			chunks[k-1].length += e.length
			continue
		}
		chunks = append(chunks, e)
	}
	if !holes {
		return false
	}
	if rest := uint64(r.length) - r.covered; rest > 0 {
		chunks = append(chunks, extent{length: rest}) // not surveyed
	}
	r.extents = chunks
	c := r.c
	r.buf = c.srv.buffers.get(int(r.length))
	p, off := r.buf.data(int(r.length)), r.off
	for _, e := range chunks {
		if e.state == 0 {
			if err := c.dev.Read(c.ctx, p[:e.length], off); err != nil {
				r.failed(err)
				return true
			}
		}
		p, off = p[e.length:], off+e.length
	}
	r.chunks(chunks)
	return true
}

// survey collects up to most extents of n bytes from off.
func (r *request) survey(off, n uint64, most int) error {
	r.extents, r.covered, r.limit, r.most = r.extents[:0], 0, n, most
	if err := r.c.dev.Extents(r.c.ctx, off, n, r.collect); err != nil {
		return err
	}
	if len(r.extents) == 0 {
		return fmt.Errorf("no extents at %d: %w", off, io.ErrUnexpectedEOF)
	}
	return nil
}

// addExtent is what survey has Device.Extents yield to.
func (r *request) addExtent(length uint64, state ExtentState) bool {
	length = min(length, r.limit-r.covered)
	switch k := len(r.extents); {
	case length == 0:
		return r.covered < r.limit
	case k > 0 && r.extents[k-1].state == state:
		r.extents[k-1].length += length
	case k == r.most:
		return false
	default:
		r.extents = append(r.extents, extent{length, state})
	}
	r.covered += length
	return r.covered < r.limit
}

// blockStatus answers what is known about a range, in each context chosen.
func (r *request) blockStatus() {
	most := maxExtents
	if err := r.survey(r.off, uint64(r.length), most); err != nil {
		r.failed(err)
		return
	}
	r.status()
}
