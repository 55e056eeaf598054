package fanout_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"sheepdog/sheep"
)

// deferredWrite writes without asking for durability.
func deferredWrite(t *testing.T, f *fleet) {
	t.Helper()
	if err := f.Fanout.Write(t.Context(), ref, create("deferred")); err != nil {
		t.Fatal(err)
	}
}

// wantFlushes flushes as often as there are errors wanted.
func wantFlushes(t *testing.T, f *fleet, want ...error) {
	t.Helper()
	for i, want := range want {
		err := f.Fanout.Flush(t.Context(), vid)
		if !errors.Is(err, want) {
			t.Errorf("flush %d: got %v, want %v", i+1, err, want)
		}
		sheep.Told(err)
	}
}

func TestAFlushAsksEveryNodeThatStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(5)
		f.nodes[3].node.VNodes = 0 // a gateway
		f.next(nil)
		deferredWrite(t, f)
		wantFlushes(t, f, nil)
		for i, s := range f.nodes {
			if want := min(1, int(s.node.VNodes)); s.flushes != want {
				t.Errorf("node %d was flushed %d times, want %d", i, s.flushes, want)
			}
		}
	})
}

func TestAFlushTellsOfLostWritesOnce(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, f *fleet)
		want error
	}{
		{"all who answered live", func(t *testing.T, f *fleet) {}, nil},
		{"one of them lives", func(t *testing.T, f *fleet) { f.restart(f.holders()[1:]...) }, nil},
		{"one of them lives, though it holds the object no more", func(t *testing.T, f *fleet) {
			f.restart(f.holders()[0], f.holders()[2])
			f.next(nil)
		}, nil},
		{"all have started again", func(t *testing.T, f *fleet) { f.restart(f.holders()...) }, sheep.ErrLostWrites},
		{"all have started again, one after the other", func(t *testing.T, f *fleet) {
			for _, s := range f.holders() {
				f.restart(s)
			}
		}, sheep.ErrLostWrites},
		{"all have gone", func(t *testing.T, f *fleet) { f.leave(f.holders()...) }, sheep.ErrLostWrites},
		{"they were flushed before they started again", func(t *testing.T, f *fleet) {
			wantFlushes(t, f, nil)
			f.restart(f.holders()...)
		}, nil},
		{"a later write of others does not make up for them", func(t *testing.T, f *fleet) {
			f.restart(f.holders()...)
			deferredWrite(t, f)
		}, sheep.ErrLostWrites},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(5)
				deferredWrite(t, f)
				tt.do(t, f)
				wantFlushes(t, f, tt.want, nil)
			})
		})
	}
}

func TestDurableWritesAreNotMissedByAFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(3)
		w := create("durable")
		w.Durable = true
		if err := f.Fanout.Write(t.Context(), ref, w); err != nil {
			t.Fatal(err)
		}
		f.restart(f.holders()...)
		wantFlushes(t, f, nil)
	})
}

func TestAFlushThatFailedHasNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(4)
		deferredWrite(t, f)
		f.restart(f.holders()...)
		f.set(f.nodes[3], func(s *storage) { s.fail = sheep.ErrIO })
		wantFlushes(t, f, sheep.ErrIO)
		f.set(f.nodes[3], func(s *storage) { s.fail = sheep.ErrNetwork })
		ctx, cancel := context.WithCancelCause(t.Context())
		c := begin(func() error { return f.Fanout.Flush(ctx, vid) })
		c.wantWaiting(t, "a node was not reached")
		cancel(sheep.ErrShutdown)
		c.wantEnd(t, sheep.ErrShutdown)
		f.set(f.nodes[3], func(s *storage) { s.fail = nil })
		wantFlushes(t, f, sheep.ErrLostWrites, nil)
	})
}

func TestAFlushGoesOnInTheNextEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(4)
		deferredWrite(t, f)
		gone := f.holders()[0]
		f.set(gone, func(s *storage) { s.fail = sheep.ErrNetwork })
		c := begin(func() error { return f.Fanout.Flush(t.Context(), vid) })
		c.wantWaiting(t, "a node was not reached")
		f.leave(gone)
		c.wantEnd(t, nil)
	})
}

func TestFlushesAtTheSameTimeAllTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(4)
		deferredWrite(t, f)
		f.restart(f.holders()...)
		hold := make(chan struct{})
		f.set(f.nodes[3], func(s *storage) { s.hold = hold })
		first := begin(func() error { return f.Fanout.Flush(t.Context(), vid) })
		second := begin(func() error { return f.Fanout.Flush(t.Context(), vid) })
		close(hold)
		first.wantEnd(t, sheep.ErrLostWrites)
		second.wantEnd(t, sheep.ErrLostWrites)
		wantFlushes(t, f, sheep.ErrLostWrites, nil) // nobody has told a client so far
	})
}

func TestAWriteDuringAFlushIsTheNextOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(4)
		deferredWrite(t, f)
		holders := f.holders()
		other := f.nodes[slices.IndexFunc(f.nodes, func(s *storage) bool { return !slices.Contains(holders, s) })]
		hold := make(chan struct{})
		f.set(other, func(s *storage) { s.hold = hold })
		c := begin(func() error { return f.Fanout.Flush(t.Context(), vid) })
		deferredWrite(t, f)
		c.wantWaiting(t, "a node was not flushed")
		close(hold)
		c.wantEnd(t, nil)
		f.restart(holders...)
		wantFlushes(t, f, sheep.ErrLostWrites, nil)
	})
}
