package vdi

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"sheepdog/sheep"
)

// removals is how many objects are removed at a time.
const removals = 16

// A drop is a slot whose object is to be released.
type drop struct {
	owner sheep.VDIID
	index uint32
	ref   gref
}

func (d drop) id() sheep.ObjectID { return sheep.DataObject(d.owner, d.index) }

// unshared reports whether the object was only ever in the map of v, its owner,
// and can be in no other: nothing that may be written was ever copied.
func (d drop) unshared(v sheep.VDI) bool {
	return d.owner == v.ID && !v.Snapshot && d.ref == gref{}
}

// removeUnshared removes the objects of drops that no other map can name, and
// returns the rest. below is the link under the gateway, whose owner of v runs
// nothing else on the inode meanwhile.
func (g *Guard) removeUnshared(ctx context.Context, below sheep.Objects, v sheep.VDI, drops []drop) []drop {
	var mine, rest []drop
	for _, d := range drops {
		if d.unshared(v) {
			mine = append(mine, d)
		} else {
			rest = append(rest, d)
		}
	}
	err := inParallel(mine, removals, func(d drop) error { return ignoreMissing(below.Remove(ctx, Ref(v, d.id()))) })
	if err != nil {
		g.cfg.Log.Warn("released objects were not removed, they leak", "vdi", v.ID, "err", err)
	}
	return rest
}

// release counts d as released, and removes the object if that was the last
// reference. The slot of d must be durably empty or marked.
func (g *Guard) release(ctx context.Context, d drop) error {
	v, ok := g.table.VDI(d.owner)
	if !ok {
		return fmt.Errorf("release object %v: %w", d.id(), sheep.ErrNoVDI)
	}
	if d.ref != (gref{}) {
		return g.Decref(ctx, d.id(), d.ref.generation, d.ref.count)
	}
	// Never counted as shared, but not one's own to remove either: the map had
	// it from another client, or the VDI was a snapshot when it was written.
	return g.removeUnreferenced(ctx, g.next, v, d.id())
}

// removeUnreferenced removes data object id of v, and its ledger, unless a map
// names it. remover says which way the removals go.
func (g *Guard) removeUnreferenced(ctx context.Context, remover sheep.Objects, v sheep.VDI, id sheep.ObjectID) error {
	if live(v) {
		return nil // its own client may be making the object anew
	}
	refs, err := g.references(ctx, g.next, id)
	if err != nil || len(refs) > 0 {
		return err
	}
	return removeCounted(ctx, remover, v, id)
}

// live reports whether clients may create data objects of v.
func live(v sheep.VDI) bool { return !v.Snapshot && !v.Deleted }

// removeCounted removes a data object and then its ledger: in this order a crash
// leaves a ledger that the next release of the object, if there is one, removes.
func removeCounted(ctx context.Context, remover sheep.Objects, v sheep.VDI, id sheep.ObjectID) error {
	if err := ignoreMissing(remover.Remove(ctx, Ref(v, id))); err != nil {
		return err
	}
	return ignoreMissing(remover.Remove(ctx, Ref(v, id.Ledger())))
}

func ignoreMissing(err error) error {
	if errors.Is(err, sheep.ErrNoObject) {
		return nil
	}
	return err
}

// inParallel runs fn for all of list, so many at a time, and returns the errors.
// After an error it begins no more.
func inParallel[T any](list []T, width int, fn func(T) error) error {
	if len(list) == 1 {
		return fn(list[0])
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		next  int
		first error
	)
	take := func() (T, bool) {
		mu.Lock()
		defer mu.Unlock()
		if first != nil || next == len(list) {
			var none T
			return none, false
		}
		next++
		return list[next-1], true
	}
	for range min(width, len(list)) {
		wg.Go(func() {
			for item, ok := take(); ok; item, ok = take() {
				if err := fn(item); err != nil {
					mu.Lock()
					first = errors.Join(first, err)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return first
}
