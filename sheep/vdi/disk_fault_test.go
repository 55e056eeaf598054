package vdi_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/vdi"
)

// TestDiskWhenTheNthRequestFails has each request of a script fail once, before
// or after it was done, and the user of the disk try again.
func TestDiskWhenTheNthRequestFails(t *testing.T) {
	for _, after := range []bool{false, true} {
		for _, kept := range []bool{true, false} {
			t.Run(fmt.Sprintf("done %v, map in memory %v", after, kept), func(t *testing.T) {
				n, failed, step := 1, true, 1
				if !kept || raceEnabled {
					step = 3
				}
				for ; failed; n += step {
					if failed = failNth(t, n, after, kept); t.Failed() {
						t.Fatalf("with request %d", n)
					}
				}
				if n < 40 {
					t.Errorf("only %d requests", n)
				}
			})
		}
	}
}

// failNth runs the script with request n failing; it reports false if there is
// no such request.
func failNth(t *testing.T, n int, after, kept bool) (failed bool) {
	t.Helper()
	w := newWorld(t, 1)
	g := w.gateways[0]
	g.createShift("test", 5*mib, 20)
	d, h := g.open("test")
	h.remote.Store(!kept)
	var mu sync.Mutex
	h.fault = func() (error, error) {
		mu.Lock()
		defer mu.Unlock()
		if n--; n != 0 {
			return nil, nil
		}
		failed = true
		if after {
			return nil, errCrash
		}
		return errCrash, nil
	}
	model := make([]byte, 5*mib, 6*mib)
	write := func(off uint64, fill byte, n int) {
		t.Helper()
		p := bytes.Repeat([]byte{fill}, n)
		copy(model[off:], p)
		g.try(repeat(func() error { return d.WriteAt(t.Context(), p, off, false) }))
	}
	zero := func(off, n uint64) {
		t.Helper()
		clear(model[off:][:n])
		g.try(repeat(func() error { return d.Zero(t.Context(), off, n, vdi.ZeroOptions{}) }))
	}
	write(mib-50, 1, 100)
	write(4*mib-1000, 2, 2000)
	g.snapshot(d.VDI(), "s")
	frozen := bytes.Clone(model)
	write(mib-10, 3, 20)
	write(mib+10, 4, 100)
	zero(3*mib+100, mib)
	zero(0, mib)
	write(5, 5, 5)
	g.try(repeat(func() error { return d.Resize(t.Context(), 6*mib) }))
	model = append(model, make([]byte, mib)...)
	zero(2*mib, 4*mib)
	write(6*mib-1, 6, 1)

	h.fault = nil
	want(t, d, 0, model)
	s, err := vdi.OpenDisk(t.Context(), h, "test", "s", 0, vdi.DiskConfig{})
	g.try(err)
	want(t, s, 0, frozen)
	if n := w.dataObjectsOf(d.VDI().ID); n != 3 {
		t.Errorf("the head has %d objects, want 3", n)
	}
	if n := w.dataObjects(); n != 7 {
		t.Errorf("there are %d objects, want those of the snapshot, too: 7", n)
	}
	return failed
}

// TestDiskErrors checks what an error says.
func TestDiskErrors(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	v := g.create("test", 16*mib)
	d, h := g.open("test")
	g.try(d.WriteAt(t.Context(), []byte("x"), 4*mib, false))
	w.mu.Lock()
	delete(w.objects, sheep.DataObject(v.ID, 1))
	w.mu.Unlock()
	h.reads.Store(0)
	for what, err := range map[string]error{
		"read":  d.ReadAt(t.Context(), make([]byte, 1), 5*mib),
		"write": d.WriteAt(t.Context(), make([]byte, 1), 5*mib, false),
	} {
		want := fmt.Sprintf(`%s object 007c2b2500000001 of VDI "test" (7c2b25): no object found`, what)
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		if e, ok := errors.AsType[*vdi.DiskError](err); !ok || e.Object != sheep.DataObject(v.ID, 1) || !errors.Is(err, sheep.ErrNoObject) {
			t.Errorf("%s: %#v", what, err)
		}
	}
	if n := h.reads.Load(); n > 100 {
		t.Errorf("%d reads to find out that an object is lost", n)
	}
}
