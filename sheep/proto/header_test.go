package proto_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// fromHex decodes hexadecimal digits, spaces between them ignored.
func fromHex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSampleHeaders encodes and decodes what QEMU 5.2 sends.
func TestSampleHeaders(t *testing.T) {
	const (
		inode = sheep.ObjectID(0x807c2b2500000000)
		data  = sheep.ObjectID(0x007c2b2500000000)
	)
	for _, c := range []struct {
		name string
		want string // zeroes follow
		h    proto.Header
	}{
		{"cluster default", "01 18 0000 00000000 00000000 00000000",
			proto.Header{Version: 1, Op: proto.OpGetClusterDefault}},
		{"lock", "01 12 0100 00000000 00000000 00020000",
			proto.Header{Version: 1, Op: proto.OpLockVDI, Flags: proto.FlagWrite, DataLen: 512}},
		{"read of an inode", "00 02 0400 00000000 00000000 38124000 00000000252b7c80",
			proto.Header{Op: proto.OpReadObj, Flags: proto.FlagCache, DataLen: proto.MapEnd,
				Body: proto.ObjectBody{ID: inode}.Body()}},
		{"create", "00 01 0500 00000000 00000000 00000100 00000000252b7c00 0000000000000000 01 00 00 00 00000000 00001000 00000000",
			proto.Header{Op: proto.OpCreateAndWriteObj, Flags: proto.FlagWrite | proto.FlagCache, DataLen: 64 << 10,
				Body: proto.ObjectBody{ID: data, Copies: 1, Off: 1 << 20}.Body()}},
		{"map update", "00 03 0500 00000000 01000000 04000000 00000000252b7c80 0000000000000000 01 00 00 00 00000000 38120000 00000000",
			proto.Header{Op: proto.OpWriteObj, Flags: proto.FlagWrite | proto.FlagCache, Seq: 1, DataLen: 4,
				Body: proto.ObjectBody{ID: inode, Copies: 1, Off: proto.MapOffset}.Body()}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := make([]byte, proto.HeaderSize)
			copy(want, fromHex(t, c.want))
			if got := c.h.Append(nil); !bytes.Equal(got, want) {
				t.Errorf("encoded\ngot  %x\nwant %x", got, want)
			}
			got, err := proto.DecodeHeader(want)
			if err != nil || got != c.h {
				t.Errorf("decoded %+v, %v; want %+v", got, err, c.h)
			}
		})
	}
}

func TestHeadersAreBounded(t *testing.T) {
	h := proto.Header{DataLen: proto.MaxData}
	if _, err := proto.DecodeHeader(h.Append(nil)); err != nil {
		t.Errorf("request of MaxData bytes: %v", err)
	}
	r := proto.Response{DataLen: proto.MaxData}
	if _, err := proto.DecodeResponse(r.Append(nil)); err != nil {
		t.Errorf("response of MaxData bytes: %v", err)
	}
	h.DataLen++
	r.DataLen++
	_, tooLong := proto.DecodeHeader(h.Append(nil))
	_, tooShort := proto.DecodeHeader(make([]byte, proto.HeaderSize-1))
	_, replyTooLong := proto.DecodeResponse(r.Append(nil))
	_, replyTooShort := proto.DecodeResponse(make([]byte, proto.HeaderSize-1))
	for i, err := range []error{tooLong, tooShort, replyTooLong, replyTooShort} {
		if !errors.Is(err, proto.ErrMalformed) || !errors.Is(err, sheep.ErrInvalid) {
			t.Errorf("case %d: got %v, want ErrMalformed", i, err)
		}
	}
}

func TestPayloadAndRoom(t *testing.T) {
	for _, c := range []struct {
		name          string
		flags         proto.Flags
		payload, room uint32
	}{
		{"a read sends nothing and takes all", 0, 0, 9},
		{"a write sends all and takes nothing", proto.FlagWrite, 9, 0},
		{"a piggyback does both", proto.FlagWrite | proto.FlagPiggyback, 9, 9},
	} {
		h := proto.Header{Flags: c.flags, DataLen: 9}
		if h.Payload() != c.payload || h.Room() != c.room {
			t.Errorf("%s: got %d and %d", c.name, h.Payload(), h.Room())
		}
	}
}

func TestFlagsHave(t *testing.T) {
	f := proto.FlagWrite | proto.FlagCOW
	if !f.Has(proto.FlagWrite) || !f.Has(proto.FlagWrite|proto.FlagCOW) || f.Has(proto.FlagWrite|proto.FlagTGT) {
		t.Errorf("Has of %#x is wrong", f)
	}
}

func TestResponseEchoesTheRequest(t *testing.T) {
	h := proto.Header{Version: 1, Op: proto.OpReadObj, Flags: proto.FlagTGT, Seq: 77, DataLen: 512}
	got := h.Response(5, proto.ResultNoObject)
	want := proto.Response{Op: proto.OpReadObj, Epoch: 5, Seq: 77, Result: proto.ResultNoObject}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
