package nbd

import "encoding/binary"

// A header precedes every request. Integers are big-endian.
//
//	offset  size  field
//	     0     4  magic
//	     4     2  flags
//	     6     2  command
//	     8     8  cookie, echoed by the reply
//	    16     8  offset
//	    24     4  length; a write is followed by so many bytes
type header struct {
	flags  uint16
	cmd    uint16
	cookie uint64
	off    uint64
	length uint32
}

// decodeHeader decodes the requestHeaderSize bytes of b. It returns false if
// the magic is wrong.
func decodeHeader(b []byte) (h header, ok bool) {
	h = header{
		flags:  binary.BigEndian.Uint16(b[4:]),
		cmd:    binary.BigEndian.Uint16(b[6:]),
		cookie: binary.BigEndian.Uint64(b[8:]),
		off:    binary.BigEndian.Uint64(b[16:]),
		length: binary.BigEndian.Uint32(b[24:]),
	}
	return h, binary.BigEndian.Uint32(b) == magicRequest
}

// A request is one request from its header until its reply has left. It is
// recycled, and so is the memory that it refers to, except buf, which goes back
// to its pool.
type request struct {
	header
	c    *conn
	cost int64       // taken out of the budget
	buf  *buffer     // data of reads and writes, or nil
	once func(error) // if the device has to know of the reply: that it has been sent

	head    [simpleReplySize]byte
	scratch []byte   // what else a reply consists of
	pieces  [][]byte // the reply

	extents []extent
	covered uint64 // bytes that extents describe
	limit   uint64 // bytes that they have to describe
	most    int    // number of extents to collect
	collect func(length uint64, state ExtentState) bool
}

// An extent is a range with a state.
type extent struct {
	length uint64
	state  ExtentState
}

func newRequest() *request {
	r := &request{}
	r.collect = r.addExtent // bound once: a method value is an allocation
	return r
}

// finish gives everything back. The reply has been handed to the socket, or with an
// error never will be.
func (r *request) finish(err error) {
	c := r.c
	if r.once != nil {
		r.once(err)
		r.once = nil
	}
	c.srv.buffers.put(r.buf)
	cost := r.cost
	r.c, r.buf, r.cost = nil, nil, 0
	clear(r.pieces)
	r.pieces = r.pieces[:0]
	if cap(r.scratch) > keepScratch || len(r.extents) > maxChunks {
		r.scratch, r.extents = nil, nil // not what a pool should be full of
	}
	c.srv.requests.Put(r)
	c.share.give(cost)
	c.answered()
}

// check returns the error that a request earns by itself.
func (c *conn) check(h header) errno {
	allowed := cmdFUA // valid everywhere, since we offer it
	outside := nbdEINVAL
	switch h.cmd {
	case cmdRead:
		if c.opts.structured {
			allowed |= cmdDF
		}
		if h.length > c.srv.cfg.MaxRequest {
			return nbdEOVERFLOW
		}
	case cmdWrite:
		outside = nbdENOSPC
		if h.length > c.srv.cfg.MaxRequest {
			return nbdEINVAL
		}
	case cmdWriteZeroes:
		allowed |= cmdNoHole | cmdFastZero
		outside = nbdENOSPC
	case cmdTrim, cmdCache:
	case cmdBlockStatus:
		allowed |= cmdReqOne
		if c.opts.contexts == 0 {
			return nbdEINVAL
		}
	case cmdFlush:
		if h.flags&^allowed != 0 || h.off != 0 || h.length != 0 {
			return nbdEINVAL
		}
		return 0
	default:
		return nbdEINVAL
	}
	switch {
	case h.flags&^allowed != 0:
		return nbdEINVAL
	case c.info.ReadOnly && h.writes():
		return nbdEPERM
	case h.off > c.info.Size || uint64(h.length) > c.info.Size-h.off:
		return outside
	case h.length == 0:
		return nbdEINVAL
	}
	return 0
}

func (h header) writes() bool {
	return h.cmd == cmdWrite || h.cmd == cmdTrim || h.cmd == cmdWriteZeroes
}

// budgeted returns what a request takes out of the budget.
func (h header) budgeted() int64 {
	switch h.cmd {
	case cmdRead, cmdWrite:
		return int64(1) << classOf(int(h.length))
	case cmdBlockStatus:
		if h.flags&cmdReqOne == 0 {
			return 32 * maxExtents // descriptors, collected and encoded
		}
	}
	return minCost
}
