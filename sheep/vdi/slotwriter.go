package vdi

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"sync"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A slotWriter enters objects that a disk has made into its map. While one write
// to the inode is under way those who come wait, and then one of them writes for
// all: neighbours in one request. The zero slotWriter is ready for use.
type slotWriter struct {
	mu      sync.Mutex
	busy    bool          // guarded by mu; somebody writes
	waiting []*slotWaiter // guarded by mu
}

type slotWaiter struct {
	index uint32
	woken chan slotOutcome // receives once
}

// A slotOutcome says what has become of a slot.
type slotOutcome struct {
	lead bool // nothing: it is the waiter's turn to write
	cut  bool // nothing for sure: the writer's context ended
	err  error
}

// enter writes that the object at index, which exists, is h's own. The map is
// durable when it returns. It waits for as long as somebody else's write to the
// map takes, whatever ctx says: the caller gives the object free then.
func (sw *slotWriter) enter(ctx context.Context, h *head, index uint32) error {
	for {
		w := &slotWaiter{index: index, woken: make(chan slotOutcome, 1)}
		sw.mu.Lock()
		sw.waiting = append(sw.waiting, w)
		if !sw.busy {
			sw.busy = true
			w.woken <- slotOutcome{lead: true}
		}
		sw.mu.Unlock()
		o := <-w.woken
		if o.lead {
			sw.write(ctx, h)
			o = <-w.woken
		}
		if !o.cut || ctx.Err() != nil {
			return o.err
		}
	}
}

// write writes for all who wait, and has the next write when it is done.
func (sw *slotWriter) write(ctx context.Context, h *head) {
	sw.mu.Lock()
	batch := sw.waiting
	sw.waiting = nil
	sw.mu.Unlock()
	slices.SortFunc(batch, func(a, b *slotWaiter) int { return cmp.Compare(a.index, b.index) })
	for from := 0; from < len(batch); {
		to := from + 1
		var o slotOutcome
		if h.vdi.Hyper {
			to = len(batch)
			o.err = h.enterTree(ctx, own(h.vdi.ID, batch))
		} else {
			for to < len(batch) && batch[to].index == batch[to-1].index+1 {
				to++
			}
			o.err = enterSlots(ctx, h, batch[from].index, uint32(to-from))
		}
		o.cut = o.err != nil && ctx.Err() != nil
		for _, w := range batch[from:to] {
			w.woken <- o
		}
		from = to
	}
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if sw.busy = len(sw.waiting) > 0; sw.busy {
		sw.waiting[0].woken <- slotOutcome{lead: true}
	}
}

// enterSlots writes that n objects from first on are h's own.
func enterSlots(ctx context.Context, h *head, first, n uint32) error {
	w := sheep.Write{Off: slotOffset(first), Durable: true}
	w.Data = make([]byte, 0, n*proto.MapEntrySize)
	for i := range n {
		w.Data = binary.LittleEndian.AppendUint32(w.Data, uint32(h.vdi.ID))
		w.After = append(w.After, h.object(first+i))
	}
	return h.host.Write(ctx, h.ref(), &w)
}
