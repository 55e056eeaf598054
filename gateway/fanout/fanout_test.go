package fanout_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

func TestAWriteIsAtAllCopiesAtOnceAndAnsweredByTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(4)
		holders := f.holders()
		var holds []chan struct{}
		for _, s := range holders {
			hold := make(chan struct{})
			f.set(s, func(s *storage) { s.hold = hold })
			holds = append(holds, hold)
		}
		c := begin(func() error { return f.Fanout.Write(t.Context(), ref, create("one")) })
		for i, s := range holders {
			f.set(s, func(s *storage) {
				if len(s.writes) != 1 {
					t.Errorf("copy %d has %d writes while the others have not answered, want 1", i, len(s.writes))
				}
			})
		}
		for _, hold := range holds {
			c.wantWaiting(t, "a copy has not answered")
			close(hold)
			synctest.Wait()
		}
		c.wantEnd(t, nil)
	})
}

func TestAWriteThatACopyMissesGoesOnInTheNextEpoch(t *testing.T) {
	for _, tt := range []struct {
		name string
		fail error
	}{
		{"the connection is lost", sheep.ErrNetwork},
		{"the node is at another epoch", &sheep.StaleEpochError{Sent: 1, Current: 2}},
		{"the node shuts down", sheep.ErrShutdown},
		{"the copy must be replaced first", sheep.ErrStaleCopy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(4)
				broken := f.holders()[1]
				f.set(broken, func(s *storage) { s.fail = tt.fail })
				c := begin(func() error { return f.Fanout.Write(t.Context(), ref, create("one")) })
				c.wantWaiting(t, "one copy does not have it")
				time.Sleep(10 * time.Second)
				c.wantWaiting(t, "one copy does not have it after ten seconds")
				f.leave(broken)
				c.wantEnd(t, nil)
				for i, s := range f.holders() {
					f.set(s, func(s *storage) {
						if s.objects[ref.ID] != "one" {
							t.Errorf("copy %d of the new epoch has %q", i, s.objects[ref.ID])
						}
						last := s.writes[len(s.writes)-1]
						if last.Epoch != 2 || last.Generation != ref.Generation {
							t.Errorf("the last write to copy %d was of epoch %d and generation %d, want 2 and %d",
								i, last.Epoch, last.Generation, ref.Generation)
						}
					})
				}
			})
		})
	}
}

func TestAWriteThatACopyRefusesFails(t *testing.T) {
	for _, fail := range []error{sheep.ErrNoSpace, sheep.ErrIO, sheep.ErrStaleOwner} {
		t.Run(fail.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(3)
				f.set(f.holders()[2], func(s *storage) { s.fail = fail })
				begin(func() error { return f.Fanout.Write(t.Context(), ref, create("one")) }).wantEnd(t, fail)
				f.set(f.holders()[0], func(s *storage) {
					if len(s.writes) != 1 {
						t.Errorf("%d writes, want no second try", len(s.writes))
					}
				})
			})
		})
	}
}

// TestAWriteIsNotGivenUpWhileACopyHasNotAnswered: a copy that refused knows
// that it may differ; one that never got the write does not.
func TestAWriteIsNotGivenUpWhileACopyHasNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(3)
		holders := f.holders()
		f.set(holders[0], func(s *storage) { s.fail = sheep.ErrNoSpace })
		f.set(holders[1], func(s *storage) { s.fail = sheep.ErrNetwork })
		c := begin(func() error { return f.Fanout.Write(t.Context(), ref, create("one")) })
		time.Sleep(10 * time.Second)
		c.wantWaiting(t, "nobody knows whether a copy has it")
		f.set(holders[1], func(s *storage) { s.fail = nil })
		c.wantEnd(t, sheep.ErrNoSpace)
		f.set(holders[1], func(s *storage) {
			if s.objects[ref.ID] != "one" {
				t.Error("a copy does not have what another has")
			}
		})
	})
}

func TestALostOwnershipEndsAWriteAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(3)
		holders := f.holders()
		f.set(holders[0], func(s *storage) { s.fail = sheep.ErrNetwork })
		f.set(holders[2], func(s *storage) { s.fail = sheep.ErrStaleOwner })
		begin(func() error { return f.Fanout.Write(t.Context(), ref, create("one")) }).wantEnd(t, sheep.ErrStaleOwner)
	})
}

func TestTooFewZones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(3)
		f.leave(f.holders()[0])
		if err := f.Fanout.Write(t.Context(), ref, create("one")); err != nil {
			t.Errorf("two zones are left: %v", err)
		}
		f.next(func(v *cluster.View) { v.Settings.Flags |= cluster.FlagStrict })
		if err := f.Fanout.Write(t.Context(), ref, create("two")); !errors.Is(err, sheep.ErrHalt) {
			t.Errorf("a strict cluster: got %v, want %v", err, sheep.ErrHalt)
		}
		p := make([]byte, 3)
		if err := f.Fanout.Read(t.Context(), ref, p, 0); err != nil || string(p) != "one" {
			t.Errorf("a strict cluster reads %q, %v; want what was written before", p, err)
		}
		f.leave(f.nodes...)
		if err := f.Fanout.Write(t.Context(), ref, create("two")); !errors.Is(err, sheep.ErrHalt) {
			t.Errorf("no node stores data: got %v, want %v", err, sheep.ErrHalt)
		}
	})
}

func TestAReadFindsTheCopyThatCanBeRead(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fail  [3]error // of the copies; ErrNoObject: it has none
		want  error
		waits bool
	}{
		{name: "all copies are good"},
		{name: "two copies cannot be reached", fail: [3]error{sheep.ErrNetwork, sheep.ErrNetwork}},
		{name: "two copies cannot be read", fail: [3]error{sheep.ErrIO, nil, sheep.ErrIO}},
		{name: "two nodes have no copy", fail: [3]error{nil, sheep.ErrNoObject, sheep.ErrNoObject}},
		{name: "nobody has a copy", fail: [3]error{sheep.ErrNoObject, sheep.ErrNoObject, sheep.ErrNoObject}, want: sheep.ErrNoObject},
		{name: "no copy can be read", fail: [3]error{sheep.ErrIO, sheep.ErrIO, sheep.ErrIO}, want: sheep.ErrIO},
		{name: "two have no copy and the third is not reached", fail: [3]error{sheep.ErrNetwork, sheep.ErrNoObject, sheep.ErrNoObject}, waits: true},
		{name: "one cannot be read and one is not reached", fail: [3]error{sheep.ErrNetwork, sheep.ErrIO, sheep.ErrIO}, waits: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(3)
				if err := f.Fanout.Write(t.Context(), ref, create("one")); err != nil {
					t.Fatal(err)
				}
				holders := f.holders()
				for i, s := range holders {
					f.set(s, func(s *storage) { s.fail = tt.fail[i] })
				}
				for range 6 { // whichever is asked first
					p := make([]byte, 3)
					c := begin(func() error { return f.Fanout.Read(t.Context(), ref, p, 0) })
					if tt.waits {
						time.Sleep(time.Second)
						c.wantWaiting(t, "the copy that may have it was not reached")
						f.set(holders[0], func(s *storage) { s.fail = nil })
					}
					c.wantEnd(t, tt.want)
					if tt.want == nil && string(p) != "one" {
						t.Fatalf("read %q", p)
					}
					if tt.waits {
						f.set(holders[0], func(s *storage) { s.fail = tt.fail[0] })
					}
				}
			})
		})
	}
}

func TestARemovalIsAnsweredByAllCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(4)
		if err := f.Fanout.Write(t.Context(), ref, create("one")); err != nil {
			t.Fatal(err)
		}
		broken := f.holders()[2]
		f.set(broken, func(s *storage) { s.fail = sheep.ErrNetwork })
		c := begin(func() error { return f.Fanout.Remove(t.Context(), ref) })
		c.wantWaiting(t, "one copy is still there")
		f.set(broken, func(s *storage) { s.fail = nil })
		c.wantEnd(t, nil)
		for i, s := range f.holders() {
			if _, ok := s.objects[ref.ID]; ok {
				t.Errorf("copy %d is still there", i)
			}
		}
		begin(func() error { return f.Fanout.Remove(t.Context(), ref) }).wantEnd(t, sheep.ErrNoObject)
	})
}

func TestARequestEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(3)
		f.set(f.holders()[1], func(s *storage) { s.fail = sheep.ErrNetwork })
		ctx, cancel := context.WithCancelCause(t.Context())
		c := begin(func() error { return f.Fanout.Write(ctx, ref, create("one")) })
		c.wantWaiting(t, "a copy is not reached")
		cancel(sheep.ErrShutdown)
		c.wantEnd(t, sheep.ErrShutdown)
	})
}

// A node that was expelled ends its requests and wakes them in the same moment.
func TestWhatEndsARequestIsItsErrorThoughItIsWoken(t *testing.T) {
	for range 20 { // what a select takes is left to chance
		synctest.Test(t, func(t *testing.T) {
			f, hold := newFleet(3), make(chan struct{})
			f.set(f.holders()[1], func(s *storage) { s.fail, s.hold = &sheep.StaleEpochError{Sent: 1, Current: 2}, hold })
			ctx, cancel := context.WithCancelCause(t.Context())
			c := begin(func() error { return f.Fanout.Write(ctx, ref, create("one")) })
			c.wantWaiting(t, "a copy has not answered")
			cancel(sheep.ErrShutdown)
			f.set(nil, func(*storage) { f.wake() })
			close(hold)
			c.wantEnd(t, sheep.ErrShutdown)
		})
	}
}
