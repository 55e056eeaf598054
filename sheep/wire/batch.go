package wire

// A batch is a run of messages that are written together.
type batch struct {
	small []byte // heads and small payloads, one after the other
	segs  []segment
	sent  []Sent
	bytes int // not yet written

	seg, off int // where writing has got to
}

// A segment is either a lent payload or the piece small[from:to].
type segment struct {
	lent     []byte
	from, to int
}

func (b *batch) empty() bool { return len(b.segs) == 0 }

func (b *batch) add(head []byte, sent Sent, payload [][]byte) {
	b.copy(head)
	for _, p := range payload {
		switch {
		case len(p) == 0:
		case len(p) < LargePayload:
			b.copy(p)
		default:
			b.segs = append(b.segs, segment{lent: p})
			b.bytes += len(p)
		}
	}
	if sent != nil {
		b.sent = append(b.sent, sent)
	}
}

func (b *batch) copy(p []byte) {
	from := len(b.small)
	b.small = append(b.small, p...)
	b.bytes += len(p)
	if n := len(b.segs); n > 0 && b.segs[n-1].lent == nil {
		b.segs[n-1].to = len(b.small)
		return
	}
	b.segs = append(b.segs, segment{from: from, to: len(b.small)})
}

// head returns the next bytes to write and whether they are the last ones.
func (b *batch) head() (p []byte, last bool) {
	if b.seg == len(b.segs) {
		return nil, true
	}
	s := b.segs[b.seg]
	p = s.lent
	if p == nil {
		p = b.small[s.from:s.to]
	}
	return p[b.off:], b.seg == len(b.segs)-1
}

func (b *batch) advance(n int) {
	b.bytes -= n
	b.off += n
	s := b.segs[b.seg]
	if b.off == len(s.lent)+s.to-s.from {
		b.seg++
		b.off = 0
	}
}

// finish tells all senders and makes the batch empty.
func (b *batch) finish(err error) {
	for _, s := range b.sent {
		s.Sent(err)
	}
	clear(b.sent)
	clear(b.segs)
	*b = batch{small: b.small[:0], segs: b.segs[:0], sent: b.sent[:0]}
	if cap(b.small) > keepBatch {
		b.small = nil
	}
	if cap(b.sent) > 1024 {
		b.sent, b.segs = nil, nil
	}
}
