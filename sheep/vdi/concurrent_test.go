package vdi_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// TestSnapshotsWhileClientsWrite has clients overwrite and discard blocks of one
// name through several gateways, each its own blocks, following the head as QEMU
// does, while snapshots are taken and deleted. No acknowledged write may be
// missing from the head, and every snapshot must keep what it showed at first.
func TestSnapshotsWhileClientsWrite(t *testing.T) {
	w := newWorld(t, 3)
	first := w.gateways[0].create("test", 64<<20)
	var head atomic.Uint32
	head.Store(uint32(first.ID))

	ctx := context.Background()
	follow := func(g *gateway, id sheep.VDIID, err error) (sheep.VDIID, error) {
		if !errors.Is(err, sheep.ErrReadOnly) {
			return id, err
		}
		v, err := g.ops.Lookup(ctx, "test", "", 0)
		return v.ID, err
	}
	const clients, writes = 4, 60
	final := make([]uint64, clients)
	var refused sync.Map // objects that were made when it was too late to name them
	errs := make(chan error, 100)
	var wg sync.WaitGroup
	for c := range uint32(clients) {
		wg.Go(func() {
			g, id := w.gateways[c%3], first.ID
			for n := uint64(1); n <= writes; {
				stamp := uint64(c+1)<<32 | n*7 // always at offset 0 of the block
				stamp -= stamp % 7
				var err error
				if n%5 == 0 {
					err = g.setSlot(id, c, 0)
				} else {
					err = g.store(id, c, stamp)
				}
				if err == nil {
					if final[c] = stamp; n%5 == 0 {
						final[c] = 0
					}
					n++
					// A discard of the frozen head is legal and lost; QEMU has
					// the same trouble. Look where the head is before the next.
					if v, err := g.ops.Lookup(ctx, "test", "", 0); err == nil && v.ID != id {
						if final[c] == 0 {
							n--
						}
						id = v.ID
					}
					continue
				}
				refused.Store(sheep.DataObject(id, c), true)
				if id, err = follow(g, id, err); err != nil {
					errs <- fmt.Errorf("client %d: %w", c, err)
					return
				}
			}
		})
	}
	wg.Go(func() {
		g := w.gateways[1]
		shown := map[uint32][clients][64]byte{}
		for n := range uint32(12) {
			v, err := g.ops.Lookup(ctx, "test", "", 0)
			if err == nil {
				_, err = g.ops.Create(ctx, "test", proto.VDIBody{Size: 64 << 20, Base: v.ID, SnapID: 1})
			}
			if err != nil {
				errs <- fmt.Errorf("snapshot %d: %w", n, err)
				return
			}
			shown[v.SnapID] = blocks(g, v.ID)
			if n%3 == 2 {
				if _, err := g.ops.Delete(ctx, "test", "", v.SnapID-1); err != nil {
					errs <- fmt.Errorf("delete snapshot %d: %w", n, err)
					return
				}
				delete(shown, v.SnapID-1)
			}
		}
		for id, want := range shown {
			v, err := g.ops.Lookup(ctx, "test", "", id)
			if err != nil {
				errs <- err
			}
			for i, got := range blocks(g, v.ID) {
				// A late discard may still empty a slot.
				if got != want[i] && got != ([64]byte{}) {
					errs <- fmt.Errorf("block %d of snapshot %d has changed", i, id)
				}
			}
		}
	})
	wg.Wait()
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}
	g := w.gateways[0]
	v := g.must(g.ops.Lookup(ctx, "test", "", 0))
	for c, stamp := range final {
		var want [64]byte
		for i := range 8 {
			want[i] = byte(stamp >> (8 * i))
		}
		if got, err := g.load(v.ID, uint32(c)); err != nil || got != want {
			t.Errorf("block %d holds %x, %v; want %x", c, got[:8], err, want[:8])
		}
	}
	for _, id := range w.leaks() {
		if _, ok := refused.Load(id); !ok {
			t.Errorf("%v leaks", id)
		}
	}
}

func blocks(g *gateway, id sheep.VDIID) (b [4][64]byte) {
	for i := range b {
		var err error
		if b[i], err = g.load(id, uint32(i)); err != nil {
			g.w.t.Errorf("block %d of %v: %v", i, id, err)
		}
	}
	return b
}
