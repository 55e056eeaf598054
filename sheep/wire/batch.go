package wire

import "net"

// maxPieces is how many pieces one call writes.
const maxPieces = 64

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
	return b.piece(b.seg)[b.off:], b.seg == len(b.segs)-1
}

// rest returns the next bytes to write, in as many pieces as one call takes.
func (b *batch) rest() (pieces net.Buffers) {
	for i := b.seg; i < len(b.segs) && len(pieces) < maxPieces; i++ {
		pieces = append(pieces, b.piece(i))
	}
	if len(pieces) > 0 {
		pieces[0] = pieces[0][b.off:]
	}
	return pieces
}

func (b *batch) piece(i int) []byte {
	s := b.segs[i]
	if s.lent != nil {
		return s.lent
	}
	return b.small[s.from:s.to]
}

// advance notes that n bytes have been written.
func (b *batch) advance(n int) {
	b.bytes -= n
	for n > 0 {
		k := min(n, len(b.piece(b.seg))-b.off)
		n -= k
		if b.off += k; b.off == len(b.piece(b.seg)) {
			b.seg++
			b.off = 0
		}
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
