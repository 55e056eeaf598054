package proto_test

import (
	"bytes"
	"strings"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

func TestInodeHeader(t *testing.T) {
	h := proto.InodeHeader{Name: "name", Tag: "tag", CreateTime: 0x0102030405060708, SnapTime: 0x1112131415161718,
		VMClock: 0x2122232425262728, Size: 0x3132333435363738, VMStateSize: 0x4142434445464748, CopyPolicy: 0x22,
		StorePolicy: proto.StoreHyper, Copies: 6, BlockShift: 22, SnapID: 0x51525354, VDI: 0x616263, Parent: 0x717273,
		BTreeCounter: 0x81828384}
	h.Unused[0], h.Unused[4091] = 0xaa, 0xbb
	b := h.Append(nil)
	checkBytes(t, b, 4664, span{0, "6e616d65"}, span{256, "746167"}, span{512, "0807060504030201 1817161514131211"},
		span{528, "2827262524232221 3837363534333231 4847464544434241"}, span{552, "22 01 06 16 54535251"},
		span{560, "636261"}, span{564, "737271"}, span{568, "84838281 aa"}, span{4663, "bb"})
	got, err := proto.DecodeInodeHeader(b)
	if err != nil || got != h {
		t.Fatalf("decoded %+v, %v", got, err)
	}
	v, err := got.Summary()
	want := sheep.VDI{ID: 0x616263, Name: "name", SnapID: 0x51525354, Parent: 0x717273,
		Policy: sheep.Policy{Data: 4, Parity: 2}, BlockShift: 22, Hyper: true, Snapshot: true}
	if err != nil || v != want {
		t.Errorf("summary %+v, %v; want %+v", v, err, want)
	}
	got.Name, got.Copies, got.CopyPolicy = "", 0, 0
	if !got.Deleted() {
		t.Error("an inode without a name is not deleted")
	}
	if _, err := got.Summary(); err == nil {
		t.Error("an inode without copies has a summary")
	}
}

// TestInodeHeaderKeepsLabels: QEMU writes tags without NUL, and C deletes an
// attribute by its first byte alone.
func TestInodeHeaderKeepsLabels(t *testing.T) {
	h := proto.InodeHeader{Name: "test", Tag: strings.Repeat("t", 256)}
	b := h.Append(nil)
	copy(b[10:], "left over")
	got, err := proto.DecodeInodeHeader(b)
	if err != nil || got.Name != "test" || got.Tag != h.Tag {
		t.Fatalf("decoded name %q, tag %q, %v", got.Name, got.Tag, err)
	}
	if !bytes.Equal(got.Append(nil), b) {
		t.Error("what follows the name is lost")
	}
	got.Name = "longer" // the left-overs stay where they were
	copy(b, "longer")
	if !bytes.Equal(got.Append(nil), b) {
		t.Error("what follows a longer name is lost")
	}
	got.Name = strings.Repeat("n", 300)
	again, err := proto.DecodeInodeHeader(got.Append(nil))
	if err != nil || again.Name != got.Name[:256] || again.Tag != h.Tag {
		t.Errorf("a long name decodes to %q, %v", again.Name, err)
	}
}

func TestLookups(t *testing.T) {
	for _, n := range []int{0, 1, 255, 257, 511, 513} {
		if name, _, err := proto.DecodeLookup(make([]byte, n)); err == nil {
			t.Errorf("%d bytes are the name %q", n, name)
		}
	}
	if got := proto.Text([]byte("no end")); got != "no end" {
		t.Errorf("got %q", got)
	}
	if got := proto.Label(strings.Repeat("x", 300)); proto.Text(got[:]) != strings.Repeat("x", 256) {
		t.Errorf("a long label is %q", got)
	}
}
