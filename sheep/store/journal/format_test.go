package journal

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"testing"
)

// sample is a record of every field.
func sample() Record {
	return Record{Kind: Write, ID: 0x0000_0102_0000_0304, Epoch: 5, Off: 0x1000, Arg: 7, Data: []byte("hello")}
}

const sampleBytes = "01000000" + "05000000" + "0403000002010000" + "05000000" + "00100000" + "0700000000000000" +
	"68656c6c6f000000"

func TestRecordHasItsGoldenBytes(t *testing.T) {
	r := sample()
	b := r.Append(nil)
	if got := hex.EncodeToString(b); got != sampleBytes {
		t.Errorf("got  %s\nwant %s", got, sampleBytes)
	}
	got, n, err := DecodeRecord(append(b, "more"...))
	if err != nil || n != len(b) || !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, %d, %v, want %+v, %d", got, n, err, r, len(b))
	}
}

func TestBlockHasItsGoldenBytes(t *testing.T) {
	r := sample()
	block := r.Append(make([]byte, blockHeaderSize))
	h := blockHeader{count: 1, gen: 2, first: 3, durable: 4, kind: recordBlock}
	h.seal(block, 0x1122334455667788)
	const want = "53424c4b" + "58000000" + "e3ca6fd7" + "01000000" + "0200000000000000" +
		"0300000000000000" + "0400000000000000" + "0100" + "000000000000" + sampleBytes
	if got := hex.EncodeToString(block); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	h.length = uint32(len(block))
	got, records, ok := decodeBlock(block, 2, 0x1122334455667788)
	if !ok || got != h || !bytes.Equal(records, block[blockHeaderSize:]) {
		t.Errorf("got %+v, %x, %t, want %+v", got, records, ok, h)
	}
	for name, bad := range map[string]func() bool{
		"another generation": func() bool { _, _, ok := decodeBlock(block, 3, 0x1122334455667788); return ok },
		"another salt":       func() bool { _, _, ok := decodeBlock(block, 2, 1); return ok },
		"a byte less":        func() bool { _, _, ok := decodeBlock(block[:len(block)-1], 2, 0x1122334455667788); return ok },
	} {
		if bad() {
			t.Errorf("a block with %s was accepted", name)
		}
	}
}

func TestSegmentHeaderHasItsGoldenBytes(t *testing.T) {
	h := segmentHeader{gen: 1, salt: 2, first: 3, size: 4}
	const want = "53484545504a4e4c" + "01000000" + "12f7a1f4" + "0100000000000000" + "0200000000000000" +
		"0300000000000000" + "0400000000000000"
	b := h.append(nil, liveMagic)
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, ok := decodeSegmentHeader(b, liveMagic); !ok || got != h {
		t.Errorf("got %+v, %t, want %+v", got, ok, h)
	}
	for i := range b {
		b[i] ^= 1
		if _, ok := decodeSegmentHeader(b, liveMagic); ok {
			t.Errorf("a flipped bit in byte %d was not noticed", i)
		}
		b[i] ^= 1
	}
}

func TestMalformedRecordsAreRefused(t *testing.T) {
	r := sample()
	good := r.Append(nil)
	for name, change := range map[string]func(b []byte) []byte{
		"no bytes":                 func(b []byte) []byte { return nil },
		"kind 0":                   func(b []byte) []byte { b[0] = 0; return b },
		"an unknown kind":          func(b []byte) []byte { b[0] = 9; return b },
		"reserved bytes":           func(b []byte) []byte { b[2] = 1; return b },
		"more data than it has":    func(b []byte) []byte { b[4] = 200; return b },
		"more data than may be":    func(b []byte) []byte { b[6] = 2; return append(b, make([]byte, 3*MaxData)...) },
		"a cut":                    func(b []byte) []byte { return b[:len(b)-1] },
		"something in its padding": func(b []byte) []byte { b[len(b)-1] = 1; return b },
	} {
		if r, _, err := DecodeRecord(change(bytes.Clone(good))); err == nil {
			t.Errorf("a record with %s was decoded as %+v", name, r)
		}
	}
}

func FuzzRecord(f *testing.F) {
	r := sample()
	f.Add(r.Append(nil))
	f.Add([]byte{8: 0, 31: 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, n, err := DecodeRecord(b)
		if err != nil {
			return
		}
		if got := r.Append(nil); !bytes.Equal(got, b[:n]) {
			t.Errorf("got %x, want %x", got, b[:n])
		}
		for range r.HotIDs {
		}
	})
}
