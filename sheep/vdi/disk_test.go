package vdi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/vdi"
)

// A diskHost is a gateway of the world as a Disk sees it.
type diskHost struct {
	*vdi.Guard
	g       *gateway
	version atomic.Uint64 // what MapVersion says
	remote  atomic.Bool   // another gateway owns everything
	flip    atomic.Bool   // MapVersion changes its mind at every call
	flushed atomic.Int32
	reads   atomic.Int32
	fault   func() (before, after error) // of a request: fails it, perhaps when it is done
	hook    func(r request)              // runs before and after each request
}

// A request is one of a Disk's.
type request struct {
	id   sheep.ObjectID
	w    *sheep.Write // nil if it reads
	off  uint32
	done bool // it has been done
}

func (h *diskHost) Lookup(ctx context.Context, name, tag string, snapID uint32) (sheep.VDI, error) {
	return h.g.ops.Lookup(ctx, name, tag, snapID)
}

func (h *diskHost) MapVersion(v sheep.VDIID) (uint64, bool) {
	if h.flip.Load() {
		n := h.version.Add(1)
		return n / 3, n%2 == 0
	}
	h.g.w.mu.Lock()
	defer h.g.w.mu.Unlock()
	return h.version.Load()<<32 | h.g.w.changes, !h.remote.Load() && !h.g.w.frozen[v]
}

func (h *diskHost) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	h.reads.Add(1)
	return h.request(request{id: ref.ID, off: off}, func() error { return h.Guard.Read(ctx, ref, p, off) })
}

func (h *diskHost) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	return h.request(request{id: ref.ID, w: w, off: w.Off}, func() error { return h.Guard.Write(ctx, ref, w) })
}

func (h *diskHost) Flush(ctx context.Context, v sheep.VDIID) error {
	h.flushed.Add(1)
	return h.Guard.Flush(ctx, v)
}

func (h *diskHost) request(r request, do func() error) error {
	if h.hook != nil {
		h.hook(r)
		r.done = true
		defer func() { h.hook(r) }()
	}
	if h.fault == nil {
		return do()
	}
	before, after := h.fault()
	if before != nil {
		return before
	}
	return errors.Join(do(), after)
}

// linger has other goroutines run before and after each request, so that many
// are under way at a time.
func (h *diskHost) linger() {
	h.hook = func(request) {
		for range rand.IntN(40) {
			runtime.Gosched()
		}
	}
}

func (g *gateway) host() *diskHost { return &diskHost{Guard: g.guard, g: g} }

// open opens the head of a name through g.
func (g *gateway) open(name string) (*vdi.Disk, *diskHost) {
	g.w.t.Helper()
	h := g.host()
	d, err := vdi.OpenDisk(context.Background(), h, name, "", 0, vdi.DiskConfig{})
	g.try(err)
	return d, h
}

// createShift creates a VDI of a block size.
func (g *gateway) createShift(name string, size uint64, shift uint8) sheep.VDI {
	return g.must(g.ops.Create(context.Background(), name, proto.VDIBody{Size: size, BlockShift: shift}))
}

// want fails if d has not the content want from off on.
func want(t *testing.T, d *vdi.Disk, off uint64, want []byte) {
	t.Helper()
	buf := make([]byte, min(len(want), mib))
	for len(want) > 0 {
		got := buf[:min(len(want), len(buf))]
		if err := d.ReadAt(t.Context(), got, off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want[:len(got)]) {
			i := 0
			for got[i] == want[i] {
				i++
			}
			t.Fatalf("byte %d of the disk is %#x, want %#x", off+uint64(i), got[i], want[i])
		}
		off, want = off+uint64(len(got)), want[len(got):]
	}
}

// dataObjects returns the number of data objects.
func (w *world) dataObjects() int { return len(w.objectsOf(sheep.KindData)) }

func extents(t *testing.T, d *vdi.Disk, off, n uint64) string {
	t.Helper()
	var list []string
	if err := d.Extents(t.Context(), off, n, func(length uint64, e vdi.Extent) bool {
		list = append(list, fmt.Sprintf("%s %d", e, length))
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, ", ")
}

const mib = 1 << 20

func TestDiskReadsWhatItWrote(t *testing.T) {
	for _, shift := range []uint8{20, 22, 25, 31} {
		t.Run(fmt.Sprint("block size shift ", shift), func(t *testing.T) {
			w := newWorld(t, 1)
			g := w.gateways[0]
			size := uint64(5)<<shift + 12345
			g.createShift("test", size, shift)
			d, _ := g.open("test")
			if d.Size() != size {
				t.Errorf("size %d, want %d", d.Size(), size)
			}
			across := uint64(1)<<shift - 1000
			data := bytes.Repeat([]byte("Sheepdog"), 500)
			g.try(d.WriteAt(t.Context(), data, across, false))
			want(t, d, across, data)
			want(t, d, across-100, make([]byte, 100))
			want(t, d, size-100, make([]byte, 100))
			g.try(d.WriteAt(t.Context(), data[:100], size-100, true))
			want(t, d, size-100, data[:100])
			if n := w.dataObjects(); n != 3 {
				t.Errorf("%d data objects, want 3", n)
			}
			if got, want := extents(t, d, 0, size), fmt.Sprintf("data %d, hole %d, data 12345", 2<<shift, 3<<shift); got != want {
				t.Errorf("extents %s, want %s", got, want)
			}
		})
	}
}

func TestDiskRefuses(t *testing.T) {
	w := newWorld(t, 1)
	g := w.gateways[0]
	g.create("test", 10*mib)
	d, h := g.open("test")
	ctx := t.Context()
	one := []byte{1}
	g.try(d.WriteAt(ctx, one, 0, true))
	g.snapshot(d.VDI(), "s")
	snap, err := vdi.OpenDisk(ctx, h, "test", "s", 0, vdi.DiskConfig{})
	g.try(err)
	for _, c := range []struct {
		what string
		err  error
		want error
	}{
		{"a read past the end", d.ReadAt(ctx, one, 10*mib), sheep.ErrInvalid},
		{"a read across the end", d.ReadAt(ctx, make([]byte, 2), 10*mib-1), sheep.ErrInvalid},
		{"an offset near the largest", d.ReadAt(ctx, make([]byte, 2), 1<<64-1), sheep.ErrInvalid},
		{"a read of nothing at the end", d.ReadAt(ctx, nil, 10*mib), nil},
		{"a write of nothing at the end", d.WriteAt(ctx, nil, 10*mib, true), nil},
		{"a write past the end", d.WriteAt(ctx, one, 10*mib, true), sheep.ErrInvalid},
		{"zeroes past the end", d.Zero(ctx, 5*mib, 6*mib, vdi.ZeroOptions{}), sheep.ErrInvalid},
		{"zeroes of a length that wraps", d.Zero(ctx, 5*mib, 1<<64-1, vdi.ZeroOptions{}), sheep.ErrInvalid},
		{"extents past the end", d.Extents(ctx, 0, 11*mib, nil), sheep.ErrInvalid},
		{"a smaller size", d.Resize(ctx, 9*mib), sheep.ErrInvalid},
		{"a size beyond the map", d.Resize(ctx, 4<<40+1), sheep.ErrInvalid},
		{"fast allocation", d.Zero(ctx, 0, mib, vdi.ZeroOptions{Fast: true, KeepAllocated: true}), sheep.ErrNotSupported},
		{"fast zeroes in a shared object", d.Zero(ctx, 10, 10, vdi.ZeroOptions{Fast: true}), sheep.ErrNotSupported},
		{"a write to a snapshot", snap.WriteAt(ctx, one, 0, false), sheep.ErrReadOnly},
		{"zeroes in a snapshot", snap.Zero(ctx, 0, 4*mib, vdi.ZeroOptions{}), sheep.ErrReadOnly},
		{"a resize of a snapshot", snap.Resize(ctx, 20*mib), sheep.ErrReadOnly},
		{"a flush of a snapshot", snap.Flush(ctx), nil},
	} {
		if !errors.Is(c.err, c.want) || c.want == nil && c.err != nil {
			t.Errorf("%s: %v, want %v", c.what, c.err, c.want)
		}
	}
	if _, err := vdi.OpenDisk(ctx, h, "nobody", "", 0, vdi.DiskConfig{}); !errors.Is(err, sheep.ErrNoVDI) {
		t.Errorf("open of no VDI: %v", err)
	}
	if _, err := vdi.OpenDisk(ctx, h, "test", "no tag", 0, vdi.DiskConfig{}); !errors.Is(err, sheep.ErrNoTag) {
		t.Errorf("open of no snapshot: %v", err)
	}
	if !snap.ReadOnly() || d.ReadOnly() {
		t.Error("the snapshot alone is read-only")
	}
	head := d.VDI()
	g.try(d.Close(ctx))
	if d.VDI() != head {
		t.Errorf("a closed disk was %v, want %v", d.VDI(), head)
	}
	if err := d.ReadAt(ctx, one, 0); !errors.Is(err, vdi.ErrDiskClosed) {
		t.Errorf("a read of a closed disk: %v", err)
	}
	g.try(d.Close(ctx))
}
