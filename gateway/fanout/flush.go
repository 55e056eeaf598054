package fanout

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"sheepdog/gateway/flight"
	"sheepdog/sheep"
)

// Flush makes the deferred writes to vdi durable on every node of the current
// epoch.
//
// A node that answered deferred writes since the last flush and has left, or
// started again, may have taken what it had not synced with it. Each such write
// was answered by all copies of its epoch; as long as one of them is still the
// same incarnation it has the write, and has it durably when Flush returns nil.
// If none is, Flush fails with a *sheep.LostWritesError, until sheep.Told has it.
// Of flushes at the same time each speaks for all writes that were answered
// before it began.
func (f *Fanout) Flush(ctx context.Context, vdi sheep.VDIID) error {
	answered, mark := f.deferred.answered(vdi)
	err := f.retry(ctx, "flush", sheep.InodeObject(vdi), func(v *nodes) error {
		if err := f.flushAll(ctx, v, vdi); err != nil {
			return err
		}
		return check(answered, v, vdi)
	})
	forget := func() { f.deferred.settle(vdi, mark) }
	if err == nil {
		forget()
	}
	if lost, ok := errors.AsType[*sheep.LostWritesError](err); ok {
		lost.Forget = forget
	}
	return err
}

func (f *Fanout) flushAll(ctx context.Context, v *nodes, vdi sheep.VDIID) error {
	var holders []int
	for i, n := range v.Nodes {
		if v.Stores(n) || i == v.Self {
			holders = append(holders, i)
		}
	}
	errs := make([]error, len(holders))
	var wg sync.WaitGroup
	fl := flight.Of(ctx)
	turn := fl.Asks(v.Epoch, v.Nodes, holders, v.Self)
	own := -1
	for k, i := range holders {
		if i == v.Self {
			own = k
			continue
		}
		wg.Go(func() {
			errs[k] = f.peers.Flush(ctx, v.peers[i], v.Epoch, vdi)
			fl.Answered(turn, k)
		})
	}
	if own >= 0 {
		errs[own] = f.local.Flush(ctx, v.Epoch, vdi)
		fl.Answered(turn, own)
	}
	wg.Wait()
	return worst(errs)
}

// deferred knows, for each VDI, who has answered deferred writes since its
// last flush.
type deferred struct {
	mu   sync.Mutex
	now  uint64                    // guarded by mu; grows with each flush that begins
	vdis map[sheep.VDIID]answerers // guarded by mu
}

// answerers are the sets of nodes that answered deferred writes, each with the
// mark of the latest. A set is the incarnations of a write's holders, eight
// bytes each.
type answerers map[string]*uint64

// note records that the holders have answered a deferred write. It must be
// called before the write is answered.
func (d *deferred) note(v *nodes, vdi sheep.VDIID, holders []int) {
	var key [8 * sheep.MaxCopies]byte
	set := key[:0]
	for _, i := range holders {
		set = binary.LittleEndian.AppendUint64(set, uint64(v.peers[i].Incarnation))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.vdis[vdi]
	if latest, ok := a[string(set)]; ok {
		*latest = d.now
		return
	}
	if a == nil {
		a = make(answerers)
		if d.vdis == nil {
			d.vdis = make(map[sheep.VDIID]answerers)
		}
		d.vdis[vdi] = a
	}
	a[string(set)] = new(d.now)
}

// answered returns the sets that have answered deferred writes to vdi so far,
// and a mark that no set of a later write is below.
func (d *deferred) answered(vdi sheep.VDIID) (sets []string, mark uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now++
	return slices.Collect(maps.Keys(d.vdis[vdi])), d.now
}

// settle forgets what was answered before the mark.
func (d *deferred) settle(vdi sheep.VDIID, mark uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.vdis[vdi]
	maps.DeleteFunc(a, func(_ string, latest *uint64) bool { return *latest < mark })
	if len(a) == 0 {
		delete(d.vdis, vdi)
	}
}

// check returns a *sheep.LostWritesError if the writes of one of the sets have
// lost all their holders.
func check(sets []string, v *nodes, vdi sheep.VDIID) error {
	alive := make(map[sheep.Incarnation]bool, len(v.Members))
	for _, m := range v.Members {
		alive[m.Incarnation] = true
	}
	for _, set := range sets {
		if !anyAlive(alive, []byte(set)) {
			why := fmt.Sprintf("all %d nodes that held some deferred writes are gone in epoch %d", len(set)/8, v.Epoch)
			return &sheep.LostWritesError{VDI: vdi, Why: why}
		}
	}
	return nil
}

func anyAlive(alive map[sheep.Incarnation]bool, set []byte) bool {
	for ; len(set) > 0; set = set[8:] {
		if alive[sheep.Incarnation(binary.LittleEndian.Uint64(set))] {
			return true
		}
	}
	return false
}
