package placement_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/placement"
)

// label returns s padded to the 256 bytes that attributes hash.
func label(s string) (b [256]byte) {
	copy(b[:], s)
	return b
}

func TestHashVectors(t *testing.T) {
	for in, want := range map[string]uint64{
		"": 0xf4ed18ebf16aa5cc, "a": 0x35f3448388db68d5, "foobar": 0xf0f371f08d5f72e8,
	} {
		if got := placement.Hash([]byte(in)); got != want {
			t.Errorf("Hash(%q): got %016x, want %016x", in, got, want)
		}
	}
	for in, want := range map[uint64]uint64{
		0: 0xcb720bf58a2c29ec, 1: 0x695a27070a16e038,
		0x007c2b2500000000: 0x387358f0fb5c1275, 0x807c2b2500000000: 0x8b4b18c243befa1a,
	} {
		if got := placement.Hash64(in); got != want {
			t.Errorf("Hash64(%x): got %016x, want %016x", in, got, want)
		}
		if got := placement.Hash(binary.LittleEndian.AppendUint64(nil, in)); got != want {
			t.Errorf("Hash of the bytes of %x: got %016x, want %016x", in, got, want)
		}
	}
}

func TestNameHashVectors(t *testing.T) {
	for name, want := range map[string]sheep.VDIID{
		"": 0x222325, "a": 0x01ec8c, "s": 0x020b22, "test": 0x7c2b25, "vdi0": 0x85ba7e, "clone1": 0xc8f989,
		"e": 0x01e5c0, "g": 0x01e926, "t": 0x0202a3, "v": 0x020609, "w": 0x020456, "c1": 0x4a6859,
	} {
		if got := placement.HashName(name); got != want {
			t.Errorf("HashName(%q): got %v, want %v", name, got, want)
		}
	}
}

func TestAttrIDVectors(t *testing.T) {
	for name, want := range map[string]uint32{"test": 0xe16253d9, "a": 0xb34b5c24} {
		if got := placement.AttrID(label(name), label(""), 0, label("k1")); got != want {
			t.Errorf("AttrID of %q: got %08x, want %08x", name, got, want)
		}
	}
	one := placement.AttrID(label("a"), label(""), 1, label("k1"))
	tag := placement.AttrID(label("a"), label("t"), 0, label("k1"))
	if base := uint32(0xb34b5c24); one == base || tag == base || one == tag {
		t.Error("tag or snapshot id does not count")
	}
}

func TestPointVectors(t *testing.T) {
	ip := sheep.WireAddr(netip.MustParseAddr("127.0.0.1"))
	h := placement.Hash(binary.LittleEndian.AppendUint16(ip[:], 7000))
	for i, want := range []uint64{
		0x9cb3d6dd0a4c0f9f, 0x3af2cba6e538cdf3, 0xfd38432fd111924b, 0x2ad2bef8f506e35d, 0x6725098c6c35f186,
	} {
		if h != want {
			t.Errorf("point %d: got %016x, want %016x", i, h, want)
		}
		h = placement.Next(h)
	}
}
