package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
)

// errNoSegment means that the wait for a free segment was in vain.
var errNoSegment = errors.New("no free segment")

// commitLoop writes what was appended, and makes it durable whenever somebody
// waits for it.
func (j *Journal) commitLoop() {
	for {
		select {
		case <-j.wake:
		case <-j.stop:
			return
		}
		for j.commit() {
		}
	}
}

// commit writes the buffer, makes it durable if somebody waits, and tells the
// waiters. It reports whether there was anything to do.
func (j *Journal) commit() bool {
	j.mu.Lock()
	sync := j.want > j.durable.Load()
	if j.err != nil || !sync && !j.spill {
		j.mu.Unlock()
		return false
	}
	block, first, count := j.buf, j.first, j.count
	j.buf = j.spare[:blockHeaderSize]
	j.first += uint64(count)
	j.count = 0
	j.spill = false
	j.room.Broadcast()
	j.mu.Unlock()

	err := j.write(block, blockHeader{kind: recordBlock, first: first, count: count})
	j.spare = block
	if err == nil && sync {
		err = j.sync()
	}
	if err != nil {
		_ = j.Fail(err) // the appenders and waiters are told
		return false
	}
	if sync {
		j.tell()
	}
	return true
}

// sync makes what was written to the current segment durable.
func (j *Journal) sync() error {
	if j.unsynced {
		if err := j.cur.sync(); err != nil {
			return err
		}
		j.unsynced = false
	}
	j.durable.Store(j.written)
	return nil
}

// tell calls the waiters whose records are durable.
func (j *Journal) tell() {
	durable := j.durable.Load()
	var ready []waiter
	j.mu.Lock()
	rest := j.waiters[:0]
	for _, w := range j.waiters {
		if w.seq <= durable {
			ready = append(ready, w)
		} else {
			rest = append(rest, w)
		}
	}
	clear(j.waiters[len(rest):])
	j.waiters = rest
	j.mu.Unlock()
	for _, w := range ready {
		w.done(nil)
	}
}

// write writes a block, in the next segment if the current one is full. A
// write ends at a page's end, so that the kernel never has to read the page
// from the disk; the next block begins where this one ends.
func (j *Journal) write(block []byte, h blockHeader) error {
	if h.count == 0 {
		return nil
	}
	if j.off+int64(len(block)) > j.cur.size {
		if err := j.rotate(); err != nil {
			return err
		}
	}
	h.gen, h.durable = j.cur.gen, j.durable.Load()
	h.seal(block, j.cur.salt)
	n := len(block)
	pad := int(-(j.off + int64(n)) & (pageSize - 1))
	block = append(block, make([]byte, pad)...)
	if _, err := j.cur.file.WriteAt(block, j.off); err != nil {
		return fmt.Errorf("write segment %s: %w", j.cur.name, err)
	}
	j.off += int64(n)
	j.unsynced = true
	if h.kind == recordBlock {
		j.written = h.first + uint64(h.count) - 1
	}
	return nil
}

// rotate closes the current segment and opens a free one, waiting for it. The
// old segment is durable before the new one is touched, so that only the last
// segment can have a torn tail. And it may end only when the new one's head is
// durable, which stands for what it says of intents.
func (j *Journal) rotate() error {
	if err := j.sync(); err != nil {
		return err
	}
	j.tell()
	old := j.cur
	old.last = j.written
	j.segs.Lock()
	for len(j.free) == 0 && !j.failed {
		j.freed.Wait()
	}
	if j.failed {
		j.segs.Unlock()
		return errNoSegment
	}
	next := j.free[0]
	j.free = j.free[1:]
	j.segs.Unlock()
	if err := j.begin(next, old.gen+1); err != nil {
		return err
	}
	j.segs.Lock()
	defer j.segs.Unlock()
	j.closed = append(j.closed, old)
	select {
	case j.full <- struct{}{}:
	default:
	}
	return nil
}

// begin starts a new life of s and makes it the current segment. The header
// is durable before the first block is written: blocks of a new life behind a
// damaged header are damage, not a crash.
func (j *Journal) begin(s *segment, gen uint64) error {
	var salt [8]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return err
	}
	s.gen, s.salt, s.first = gen, binary.LittleEndian.Uint64(salt[:]), j.written+1
	if err := s.writeHeader(headerOffset, liveMagic, segmentHeader{gen: s.gen, salt: s.salt, first: s.first}); err != nil {
		return err
	}
	if err := s.sync(); err != nil {
		return err
	}
	j.cur, j.off, j.unsynced = s, blocksOffset, false
	if j.cfg.Head == nil {
		return nil
	}
	for r := range j.cfg.Head {
		block := r.Append(make([]byte, blockHeaderSize, blockHeaderSize+r.size()+pageSize))
		if j.off+int64(len(block)) > blocksOffset+s.size/4 {
			return fmt.Errorf("the head of segment %s does not fit", s.name)
		}
		if err := j.write(block, blockHeader{kind: headBlock, first: j.written + 1, count: 1}); err != nil {
			return err
		}
	}
	return s.sync()
}
