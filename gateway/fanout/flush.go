package fanout

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"sync"

	"sheepdog/sheep"
)

// Flush makes the deferred writes to vdi durable on every node of the current
// epoch.
//
// A node that answered deferred writes since the last flush and has left, or
// started again, may have taken what it had not synced with it. Each such write
// was answered by all copies of its epoch; as long as one of them is still the
// same incarnation it has the write, and has it durably when Flush returns nil.
// If none is, Flush fails with ErrLostWrites, once: the client has been told.
func (f *Fanout) Flush(ctx context.Context, vdi sheep.VDIID) error {
	answered := f.deferred.take(vdi)
	err := f.retry(ctx, "flush", sheep.InodeObject(vdi), func(v *nodes) error {
		if err := f.flushAll(ctx, v, vdi); err != nil {
			return err
		}
		return answered.check(v, vdi)
	})
	if err != nil && !errors.Is(err, sheep.ErrLostWrites) {
		f.deferred.giveBack(vdi, answered)
	}
	return err
}

func (f *Fanout) flushAll(ctx context.Context, v *nodes, vdi sheep.VDIID) error {
	errs := make([]error, len(v.Nodes))
	var wg sync.WaitGroup
	for i, n := range v.Nodes {
		if n.VNodes == 0 || i == v.Self {
			continue
		}
		wg.Go(func() { errs[i] = f.peers.Flush(ctx, v.peers[i], v.Epoch, vdi) })
	}
	if v.Self >= 0 {
		errs[v.Self] = f.local.Flush(ctx, v.Epoch, vdi)
	}
	wg.Wait()
	return worst(errs)
}

// deferred knows, for each VDI, who has answered deferred writes since its
// last flush.
type deferred struct {
	mu   sync.Mutex
	vdis map[sheep.VDIID]answers // guarded by mu
}

// answers are the sets of nodes that answered deferred writes. A set is the
// incarnations of a write's holders, eight bytes each.
type answers map[string]struct{}

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
	if _, ok := a[string(set)]; ok {
		return
	}
	if a == nil {
		a = make(answers)
		d.put(vdi, a)
	}
	a[string(set)] = struct{}{}
}

// take returns the answers for vdi and begins anew.
func (d *deferred) take(vdi sheep.VDIID) answers {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.vdis[vdi]
	delete(d.vdis, vdi)
	return a
}

// giveBack merges answers that were taken for a flush that failed.
func (d *deferred) giveBack(vdi sheep.VDIID, taken answers) {
	if len(taken) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(taken, d.vdis[vdi])
	d.put(vdi, taken)
}

// put sets the answers for vdi. The caller holds d.mu.
func (d *deferred) put(vdi sheep.VDIID, a answers) {
	if d.vdis == nil {
		d.vdis = make(map[sheep.VDIID]answers)
	}
	d.vdis[vdi] = a
}

// check returns ErrLostWrites if a write has lost all its holders.
func (a answers) check(v *nodes, vdi sheep.VDIID) error {
	alive := make(map[sheep.Incarnation]bool, len(v.Members))
	for _, m := range v.Members {
		alive[m.Incarnation] = true
	}
	for set := range a {
		if !anyAlive(alive, []byte(set)) {
			return fmt.Errorf("flush VDI %v in epoch %d: all %d nodes that held some deferred writes are gone: %w",
				vdi, v.Epoch, len(set)/8, sheep.ErrLostWrites)
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
