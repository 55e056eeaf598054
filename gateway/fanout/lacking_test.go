package fanout_test

import (
	"slices"
	"testing"
	"testing/synctest"

	"sheepdog/sheep"
)

// asked returns what the write was to do at the node each time that it came there.
func (f *fleet) asked(s *storage) []sheep.IfStale {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []sheep.IfStale
	for _, ref := range s.writes {
		all = append(all, ref.IfStale)
	}
	return all
}

func TestAHolderThatLacksTheObjectIsToldOfAWriteWhenTheOthersHaveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(3)
		h := f.holders()
		hold := make(chan struct{})
		f.set(h[0], func(s *storage) { s.hold = hold })
		f.set(h[1], func(s *storage) { s.lacks = true })
		c := begin(func() error { return f.Fanout.Write(t.Context(), ref, &sheep.Write{Data: []byte("new")}) })
		c.wantWaiting(t, "a holder has not taken it")
		if got := f.asked(h[1]); !slices.Equal(got, []sheep.IfStale{sheep.StaleRefuses}) {
			t.Errorf("the one that lacks the object was asked %v while another has not taken the write", got)
		}
		close(hold)
		c.wantEnd(t, nil)
		if got := f.asked(h[1]); !slices.Equal(got, []sheep.IfStale{sheep.StaleRefuses, sheep.StaleNotes}) {
			t.Errorf("the one that lacks the object was asked %v", got)
		}
		for _, s := range []*storage{h[0], h[2]} {
			if got := f.asked(s); !slices.Equal(got, []sheep.IfStale{sheep.StaleRefuses}) || s.objects[ref.ID] != "new" {
				t.Errorf("%v was asked %v and has %q", s.node, got, s.objects[ref.ID])
			}
		}
	})
}

// With fewer than two full copies a write waits until those who lack the object
// have fetched it.
func TestAWriteIsNeverOnOneNodeOnly(t *testing.T) {
	for _, copies := range []uint8{2, 3} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(int(copies))
			ref := ref
			ref.Policy = sheep.Replicated(copies)
			for _, s := range f.nodes[1:] {
				f.set(s, func(s *storage) { s.lacks = true })
			}
			if err := f.Fanout.Write(t.Context(), ref, &sheep.Write{Data: []byte("new")}); err != nil {
				t.Fatal(err)
			}
			want := []sheep.IfStale{sheep.StaleRefuses, sheep.StaleWaits}
			for _, s := range f.nodes[1:] {
				if got := f.asked(s); !slices.Equal(got, want[3-copies:]) || s.objects[ref.ID] != "new" {
					t.Errorf("%d copies: one that lacks the object was asked %v and has %q", copies, got, s.objects[ref.ID])
				}
			}
		})
	}
}

// A node that has only been told of a write is no proof that it is not lost.
func TestWhoWasToldOfAWriteDoesNotCountForAFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(5)
		h := f.holders()
		f.set(h[2], func(s *storage) { s.lacks = true })
		if err := f.Fanout.Write(t.Context(), ref, &sheep.Write{Data: []byte("deferred")}); err != nil {
			t.Fatal(err)
		}
		f.restart(h[0], h[1])
		wantFlushes(t, f, sheep.ErrLostWrites, nil)
	})
}

func TestAReadDoesNotWaitForAHolderThatLacksTheObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(3)
		if err := f.Fanout.Write(t.Context(), ref, create("there")); err != nil {
			t.Fatal(err)
		}
		h := f.holders()
		p := make([]byte, 5)
		read := func(want int) {
			t.Helper()
			before := h[0].reads + h[1].reads + h[2].reads
			if err := f.Fanout.Read(t.Context(), ref, p, 0); err != nil || string(p) != "there" {
				t.Errorf("read %q, %v", p, err)
			}
			if got := h[0].reads + h[1].reads + h[2].reads - before; got > want {
				t.Errorf("%d requests for a read, want %d at most", got, want)
			}
		}
		for lacking := range 3 {
			f.set(h[lacking], func(s *storage) { s.lacks = true })
			for range 3 {
				read(lacking + 2)
			}
		}
		f.set(h[0], func(s *storage) { delete(s.objects, ref.ID) })
		f.set(h[1], func(s *storage) { delete(s.objects, ref.ID) })
		read(6 + 2) // the two that have lost it are told
	})
}
