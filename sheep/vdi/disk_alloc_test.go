package vdi_test

import (
	"context"
	"encoding/binary"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/vdi"
)

// A full is a host of one VDI that has all its objects, and forgets what is
// written.
type full struct {
	vdi   sheep.VDI
	inode []byte // the header
	kept  bool
}

func newFull(kept bool) *full {
	v := sheep.VDI{ID: 7, Name: "test", Policy: sheep.Replicated(1), BlockShift: 22}
	h := proto.InodeHeader{Name: "test", Size: 1 << 40, BlockShift: 22, Copies: 1, VDI: 7, CreateTime: 1}
	return &full{vdi: v, inode: h.Append(nil), kept: kept}
}

func (f *full) Lookup(context.Context, string, string, uint32) (sheep.VDI, error) { return f.vdi, nil }

func (f *full) Read(_ context.Context, ref sheep.Ref, p []byte, off uint32) error {
	switch {
	case ref.ID.Kind() != sheep.KindInode:
	case off < proto.MapOffset:
		copy(p, f.inode[off:])
	default:
		for i := 0; i < len(p); i += proto.MapEntrySize {
			binary.LittleEndian.PutUint32(p[i:], uint32(f.vdi.ID))
		}
	}
	return nil
}

func (f *full) Write(context.Context, sheep.Ref, *sheep.Write) error { return nil }
func (f *full) Remove(context.Context, sheep.Ref) error              { return nil }
func (f *full) Flush(context.Context, sheep.VDIID) error             { return nil }
func (f *full) MapVersion(sheep.VDIID) (uint64, bool)                { return 1, f.kept }
func (f *full) WatchMap(sheep.VDIID, func(uint32, []sheep.VDIID)) func() {
	return func() {}
}

// TestDiskAllocations checks that a request to one object that exists needs no
// memory of its own.
func TestDiskAllocations(t *testing.T) {
	for _, kept := range []bool{true, false} {
		d, err := vdi.OpenDisk(t.Context(), newFull(kept), "test", "", 0, vdi.DiskConfig{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, p := t.Context(), make([]byte, 4096)
		for what, do := range map[string]func() error{
			"read":           func() error { return d.ReadAt(ctx, p, 12345<<12) },
			"deferred write": func() error { return d.WriteAt(ctx, p, 12345<<12, false) },
			"durable write":  func() error { return d.WriteAt(ctx, p, 12345<<12, true) },
			"flush":          func() error { return d.Flush(ctx) },
		} {
			n := testing.AllocsPerRun(200, func() {
				if err := do(); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 && !raceEnabled {
				t.Errorf("map in memory %v: a %s allocates %v times", kept, what, n)
			}
		}
	}
}

func BenchmarkDisk(b *testing.B) {
	d, err := vdi.OpenDisk(b.Context(), newFull(true), "test", "", 0, vdi.DiskConfig{})
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 4096)
	b.Run("read 4 KiB", func(b *testing.B) {
		for i := uint64(0); b.Loop(); i++ {
			if err := d.ReadAt(b.Context(), p, i%1000<<22); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("write 4 KiB", func(b *testing.B) {
		for i := uint64(0); b.Loop(); i++ {
			if err := d.WriteAt(b.Context(), p, i%1000<<22, false); err != nil {
				b.Fatal(err)
			}
		}
	})
}
