package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A keptVDI is what a Roaming has to know of a VDI to go on with it elsewhere. Its
// fields are guarded by the Roaming's mu.
type keptVDI struct {
	writes   []keptWrite
	bytes    int64
	lock     *Lock         // through which it was written; nil if there is none
	excess   uint64        // of the last write that there was no room for and no flush since; 0 if none
	lost     error         // why the next flush has to fail
	flushing chan struct{} // closed when the flush in the background has ended; nil if there is none
}

// A keptWrite is an answered write that may not be durable.
type keptWrite struct {
	seq  uint64
	id   sheep.ObjectID
	off  uint32
	data *[]byte
}

// writeCost is what a kept write takes beside its data.
const writeCost = 64

// A change is a request that Roaming has to take note of.
type change struct {
	op      proto.Opcode
	repeat  bool        // it may be sent again
	lock    *Lock       // that it needs to change anything; nil if none
	vdi     sheep.VDIID // 0 if there is nothing to note
	id      sheep.ObjectID
	off     uint32
	payload []byte
	durable bool
	upTo    uint64 // of a flush: the writes that it makes durable
	own     bool   // of a flush: nobody hears of its outcome
}

// errTaken says why a disk cannot be written any more.
var errTaken = fmt.Errorf("%w: while there was no sheep another client has taken the lock", sheep.ErrIO)

// refused returns why c must not be done any more.
func (c *change) refused() error {
	if c.lock == nil || c.vdi == 0 || c.op == proto.OpFlushVDI {
		return nil
	}
	return c.lock.Err()
}

// prepare notes what has to be known before a request is sent.
func (r *Roaming) prepare(l *Lock, h proto.Header, payload []byte) change {
	c := change{op: h.Op, repeat: repeatable(h.Op), lock: l}
	switch h.Op {
	case proto.OpWriteObj, proto.OpCreateAndWriteObj, proto.OpRemoveObj, proto.OpFlushVDI:
	default:
		return c
	}
	b := proto.DecodeObjectBody(h.Body)
	c.vdi, c.id, c.off, c.payload, c.durable = b.ID.VDI(), b.ID, b.Off, payload, !h.Flags.Has(proto.FlagCache)
	r.mu.Lock()
	defer r.mu.Unlock()
	c.upTo = r.seq
	v := r.kept[c.vdi]
	switch {
	case v == nil || h.Op == proto.OpFlushVDI:
	case h.Op != proto.OpWriteObj:
		r.forget(v, func(id sheep.ObjectID) bool { return id == c.id })
	case len(v.writes) > 0:
		r.forgetReleased(v, c)
	}
	return c
}

// answered takes note of the outcome of c. It has to be done again if p, which has
// answered, is no longer where requests go: the one that follows might not know
// of it. err is what the client is to hear instead of the answer.
func (r *Roaming) answered(ctx context.Context, p *post, c change, result proto.Result) (err error, again bool) {
	if result != proto.ResultSuccess || c.vdi == 0 {
		return nil, false
	}
	switch c.op {
	case proto.OpFlushVDI:
		return r.flushed(ctx, c), false
	case proto.OpWriteObj:
		if c.id.Kind() == sheep.KindData {
			kept, full := r.keep(p, c)
			if full != nil {
				await(ctx, full)
			}
			return nil, !kept
		}
	}
	return nil, false
}

// await returns when done is closed or ctx ends.
func await(ctx context.Context, done <-chan struct{}) {
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// keep keeps an answered write, unless p is not the post any more. What is durable
// is kept as well if something before it is, because that must not come back. If
// there is no room left the writer is to wait for full.
func (r *Roaming) keep(p *post, c change) (kept bool, full <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now.Load() != p {
		return false, nil
	}
	v := r.kept[c.vdi]
	if c.durable && (v == nil || len(v.writes) == 0) {
		return true, nil
	}
	if v == nil {
		v = new(keptVDI)
		r.kept[c.vdi] = v
	}
	r.seq++
	v.lock = c.lock
	v.writes = append(v.writes, keptWrite{seq: r.seq, id: c.id, off: c.off, data: r.copyOf(c.payload)})
	v.bytes += int64(len(c.payload)) + writeCost
	if v.bytes > r.cfg.Unflushed/2 && v.flushing == nil && r.ctx.Err() == nil {
		v.flushing = make(chan struct{})
		r.wg.Go(func() { r.relieve(c.vdi, v) })
	}
	if v.bytes > r.cfg.Unflushed {
		full = v.flushing
	}
	return true, full
}

// relieve flushes a VDI of which much is kept.
func (r *Roaming) relieve(id sheep.VDIID, v *keptVDI) {
	h := proto.Header{
		Version: proto.OpFlushVDI.Version(), Op: proto.OpFlushVDI, Flags: proto.FlagCache,
		Body: proto.ObjectBody{ID: sheep.InodeObject(id)}.Body(),
	}
	c := r.prepare(nil, h, nil)
	c.own = true
	resp, _, err := r.do(r.ctx, c, h, nil, nil)
	err = outcome(resp, err, 0)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && !errors.Is(err, sheep.ErrInvalid) { // somebody is still to hear of it
		v.lost = errors.Join(v.lost, fmt.Errorf("flush VDI %v: %w", id, err))
		r.overflow(v)
	}
	close(v.flushing)
	v.flushing = nil
}

// overflow lets the oldest writes go that there is no room for. The caller holds
// mu.
func (r *Roaming) overflow(v *keptVDI) {
	drop := 0
	for ; v.bytes > r.cfg.Unflushed; drop++ {
		v.excess = v.writes[drop].seq
		r.letGo(v, v.writes[drop])
	}
	v.writes = slices.Delete(v.writes, 0, drop)
}

// flushed forgets what a flush has made durable. It returns why the flush has
// failed nevertheless. A flush in the background may just have heard that, in the
// stead of this one, so it is waited for.
func (r *Roaming) flushed(ctx context.Context, c change) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.kept[c.vdi]
	if v == nil {
		return nil
	}
	if done := v.flushing; done != nil && !c.own {
		r.mu.Unlock()
		await(ctx, done)
		r.mu.Lock()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	n := 0
	for n < len(v.writes) && v.writes[n].seq <= c.upTo {
		r.letGo(v, v.writes[n])
		n++
	}
	v.writes = slices.Delete(v.writes, 0, n)
	if v.excess <= c.upTo {
		v.excess = 0
	}
	if c.own {
		return nil
	}
	err := v.lost
	v.lost = nil
	if len(v.writes) == 0 && v.excess == 0 && r.kept[c.vdi] == v {
		delete(r.kept, c.vdi)
	}
	return err
}

// forgetReleased forgets the writes to objects that c, a write to the map, gives up.
// The caller holds mu.
func (r *Roaming) forgetReleased(v *keptVDI, c change) {
	switch {
	case c.id.Kind() == sheep.KindInode:
		end := uint64(c.off) + uint64(len(c.payload))
		r.forget(v, func(id sheep.ObjectID) bool {
			at := proto.MapOffset + uint64(id.Index())*proto.MapEntrySize
			return id.Kind() == sheep.KindData && at >= uint64(c.off) && at+proto.MapEntrySize <= end &&
				binary.LittleEndian.Uint32(c.payload[at-uint64(c.off):]) == 0
		})
	case c.id == sheep.BTreeObject(c.vdi, proto.BTreeInbox):
		leaf, err := proto.DecodeBTreeNode(c.payload)
		if err != nil {
			return // the sheep refuses it, too
		}
		released := make(map[uint32]bool, len(leaf.Entries))
		for _, e := range leaf.Entries {
			released[e.Index] = e.VDI == 0
		}
		r.forget(v, func(id sheep.ObjectID) bool { return id.Kind() == sheep.KindData && released[id.Index()] })
	}
}

// forget forgets the writes to some objects. The caller holds mu.
func (r *Roaming) forget(v *keptVDI, which func(sheep.ObjectID) bool) {
	v.writes = slices.DeleteFunc(v.writes, func(w keptWrite) bool {
		gone := which(w.id)
		if gone {
			r.letGo(v, w)
		}
		return gone
	})
}

// letGo gives the memory of w back. The caller holds mu.
func (r *Roaming) letGo(v *keptVDI, w keptWrite) {
	v.bytes -= int64(len(*w.data)) + writeCost
	r.buffers[bufferClass(cap(*w.data))].Put(w.data)
}

// Buffers are pooled by size: powers of two up to the largest request.
const bufferClasses = 23

// bufferClass returns the class of buffers of at least n bytes.
func bufferClass(n int) int { return min(bits.Len(uint(max(n, 1)-1)), bufferClasses) }

func (r *Roaming) copyOf(p []byte) *[]byte {
	class := bufferClass(len(p))
	if b, ok := r.buffers[class].Get().(*[]byte); ok && cap(*b) >= len(p) {
		*b = append((*b)[:0], p...)
		return b
	}
	b := append(make([]byte, 0, max(len(p), 1<<class)), p...)
	return &b
}
