package nbd

import "encoding/binary"

// simple makes a reply without data.
//
//	offset  size  field
//	     0     4  magic
//	     4     4  error
//	     8     8  cookie
func (r *request) simple(no errno) {
	r.putSimple(r.head[:], no)
	r.pieces = append(r.pieces[:0], r.head[:])
}

func (r *request) putSimple(b []byte, no errno) {
	binary.BigEndian.PutUint32(b, magicReply)
	binary.BigEndian.PutUint32(b[4:], uint32(no))
	binary.BigEndian.PutUint64(b[8:], r.cookie)
}

// simpleData makes a simple reply with the n bytes in the buffer.
func (r *request) simpleData(n int) {
	p := r.buf.mem[headRoom-simpleReplySize : headRoom+n]
	r.putSimple(p, 0)
	r.pieces = append(r.pieces[:0], p)
}

// appendChunk appends the head of a chunk with n bytes of content.
//
//	offset  size  field
//	     0     4  magic
//	     4     2  flags
//	     6     2  type
//	     8     8  cookie
//	    16     4  length of the content that follows
func (r *request) appendChunk(b []byte, flags, typ uint16, n int) []byte {
	b = binary.BigEndian.AppendUint32(b, magicStructured)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint64(b, r.cookie)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// data makes a structured reply with the n bytes in the buffer: their offset,
// then they.
func (r *request) data(n int) {
	const head = chunkHeaderSize + 8
	p := r.buf.mem[headRoom-head : headRoom+n]
	b := r.appendChunk(p[:0], chunkDone, chunkOffsetData, 8+n)
	binary.BigEndian.AppendUint64(b, r.off)
	r.pieces = append(r.pieces[:0], p)
}

// chunks makes a structured reply to a read of which some extents are zero. The
// data is in the buffer at its place. A hole is its offset and its length.
func (r *request) chunks(list []extent) {
	b := r.scratch[:0]
	if need := len(list) * (chunkHeaderSize + 12); cap(b) < need {
		b = make([]byte, 0, need) // pieces point into it: it must not move
	}
	r.pieces = r.pieces[:0]
	p, off := r.buf.data(int(r.length)), r.off
	for i, e := range list {
		var flags uint16
		if i == len(list)-1 {
			flags = chunkDone
		}
		from := len(b)
		if e.state != 0 {
			b = r.appendChunk(b, flags, chunkOffsetHole, 12)
			b = binary.BigEndian.AppendUint64(b, off)
			b = binary.BigEndian.AppendUint32(b, uint32(e.length))
			r.pieces = append(r.pieces, b[from:])
		} else {
			b = r.appendChunk(b, flags, chunkOffsetData, 8+int(e.length))
			b = binary.BigEndian.AppendUint64(b, off)
			r.pieces = append(r.pieces, b[from:], p[:e.length])
		}
		p, off = p[e.length:], off+e.length
	}
	r.scratch = b
}

// status makes a block status reply of what has been surveyed: for each context
// a chunk with its number and the pairs of length and status.
func (r *request) status() {
	b := r.scratch[:0]
	chosen := r.c.opts.contexts
	for i, m := range allContexts {
		if chosen&(1<<i) == 0 {
			continue
		}
		var flags uint16
		if chosen>>(i+1) == 0 {
			flags = chunkDone
		}
		start := len(b)
		b = r.appendChunk(b, flags, chunkBlockStatus, 0)
		b = binary.BigEndian.AppendUint32(b, uint32(i+1))
		b = r.appendExtents(b, m.status)
		binary.BigEndian.PutUint32(b[start+16:], uint32(len(b)-start-chunkHeaderSize))
	}
	r.scratch = b
	r.pieces = append(r.pieces[:0], b)
}

// appendExtents appends length and status of consecutive ranges, only the first
// if the client wants one.
func (r *request) appendExtents(b []byte, status func(ExtentState) uint32) []byte {
	for i := 0; i < len(r.extents); {
		length, s := uint64(0), status(r.extents[i].state)
		for ; i < len(r.extents) && status(r.extents[i].state) == s; i++ {
			length += r.extents[i].length
		}
		b = binary.BigEndian.AppendUint32(b, uint32(length))
		b = binary.BigEndian.AppendUint32(b, s)
		if r.flags&cmdReqOne != 0 {
			break
		}
	}
	return b
}

// failed makes the reply to a request that the device has refused.
func (r *request) failed(err error) {
	c := r.c
	no := errnoOf(err)
	if no == nbdEIO && c.mayComplain() {
		c.log.Error("nbd request failed", "command", r.cmd, "offset", r.off, "length", r.length, "err", err)
	}
	r.fail(no, err.Error())
}

// fail makes an error reply: the number, the length of the text, the text.
func (r *request) fail(no errno, why string) {
	c := r.c
	c.srv.buffers.put(r.buf)
	r.buf = nil
	if !c.opts.structured {
		r.simple(no)
		return
	}
	why = why[:min(len(why), 512)]
	b := r.appendChunk(r.scratch[:0], chunkDone, chunkError, 6+len(why))
	b = binary.BigEndian.AppendUint32(b, uint32(no))
	b = binary.BigEndian.AppendUint16(b, uint16(len(why)))
	r.scratch = append(b, why...)
	r.pieces = append(r.pieces[:0], r.scratch)
}
