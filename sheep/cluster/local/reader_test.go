package local

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
)

// readAll returns what a reader yields from a file that gets the pieces one
// after the other, and how much of it was left over.
func readAll(t *testing.T, pieces [][]byte, salt uint32) []string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := reader{log: &logFile{file: f, salt: salt}}
	var got []string
	for _, piece := range pieces {
		if _, err := f.Write(piece); err != nil {
			t.Fatal(err)
		}
		for {
			rec, ok, err := r.next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			got = append(got, fmt.Sprintf("%d %v %d %d %q", rec.kind, rec.author, rec.number, rec.time, rec.data))
		}
	}
	return got
}

func TestReaderSkipsTornRecords(t *testing.T) {
	const salt = 77
	whole := func(n uint64, size int) []byte {
		return record{kind: recordMessage, author: 5, number: n, time: 9, data: bytes.Repeat([]byte{0xc6}, size)}.append(nil, salt)
	}
	other := record{kind: recordMessage, author: 6, number: 1}.append(nil, salt+1)
	tests := []struct {
		name   string
		pieces [][]byte
		want   int
	}{
		{"nothing", nil, 0},
		{"a record", [][]byte{whole(1, 10)}, 1},
		{"a record without data", [][]byte{whole(1, 0)}, 1},
		{"a record in two pieces", [][]byte{whole(1, 100)[:50], whole(1, 100)[50:]}, 1},
		{"a torn record at the end", [][]byte{whole(1, 10), whole(2, 1000)[:500]}, 1},
		{"a torn record before another", [][]byte{whole(1, 1000)[:500], whole(2, 10)}, 1},
		{"a torn header before another", [][]byte{whole(1, 10)[:3], whole(2, 10)}, 1},
		{"two torn records before another", [][]byte{whole(1, 1000)[:500], whole(2, 1000)[:41], whole(3, 10)}, 1},
		{"a long torn record that others fill up", [][]byte{whole(1, 1000)[:500], whole(2, 400), whole(3, 400)}, 2},
		{"zeroes", [][]byte{make([]byte, 5000), whole(1, 10)}, 1},
		{"a changed byte", [][]byte{append([]byte("x"), whole(1, 10)[1:]...), whole(2, 10)}, 1},
		{"a record of another log", [][]byte{other, whole(1, 10)}, 1},
		{"a record of another log within a message", [][]byte{
			record{kind: recordMessage, data: other}.append(nil, salt)[:recordHeader+20], whole(1, 10)}, 1},
		{"a length that is too large", [][]byte{append(bytes.Clone(whole(1, 10)[:8]), 0xff, 0xff, 0xff, 0x7f), whole(2, 10)}, 1},
		{"records longer than a buffer", [][]byte{whole(1, 3*readSize), whole(2, readSize), whole(3, 10)}, 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inPieces := readAll(t, test.pieces, salt)
			if len(inPieces) != test.want {
				t.Errorf("read %d records, want %d", len(inPieces), test.want)
			}
			if atOnce := readAll(t, [][]byte{bytes.Join(test.pieces, nil)}, salt); fmt.Sprint(atOnce) != fmt.Sprint(inPieces) {
				t.Errorf("read at once the records are others:\n%s\n%s", atOnce, inPieces)
			}
		})
	}
}

// TestReadersAgree has processes that die in the middle of writing, and readers
// that see the file grow in different steps.
func TestReadersAgree(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 100 {
		salt := rng.Uint32()
		var appends [][]byte
		want := 0
		for n := range 1 + rng.IntN(20) {
			data := make([]byte, rng.IntN(300))
			for i := range data {
				data[i] = []byte{0xc6, 0x10, 0x5a, 0x9e, 0x7b, 0xe3, 0xd8, 0x21, 0}[rng.IntN(9)] // bytes of the marks
			}
			b := record{kind: recordMessage, author: 1, number: uint64(n), data: data}.append(nil, salt)
			if rng.IntN(3) == 0 {
				b = b[:max(0, len(b)-1-rng.IntN(6))]
				if rng.IntN(2) == 0 {
					b = b[:rng.IntN(len(b))]
				}
			} else {
				want++
			}
			appends = append(appends, b)
		}
		first := readAll(t, appends, salt)
		second := readAll(t, [][]byte{bytes.Join(appends, nil)}, salt)
		if len(first) != want || fmt.Sprint(first) != fmt.Sprint(second) {
			t.Fatalf("%d records were written, readers got\n%s\n%s", want, first, second)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(record{kind: recordMessage, author: 1, number: 2, time: 3, data: []byte("data")}.append(nil, 7), uint32(7))
	f.Fuzz(func(t *testing.T, b []byte, salt uint32) {
		if i := findRecord(b, salt); i < 0 || i > len(b) {
			t.Fatalf("found a record at %d of %d", i, len(b))
		}
		r, size, _ := decodeRecord(b, salt)
		if size == 0 {
			return
		}
		if got := r.append(nil, salt); !bytes.Equal(got, b[:size]) && bytes.Equal(b[13:16], []byte{0, 0, 0}) {
			t.Errorf("%x decodes to %+v, which appends to %x", b[:size], r, got)
		}
	})
}

func TestRollIsAsTheLogTells(t *testing.T) {
	r := roll{1: 0, 2: 0}
	if r.leave(leaving{who: 3}) {
		t.Error("one who never joined left")
	}
	r.wake(1, le.AppendUint64(nil, 100))
	r.wake(3, le.AppendUint64(nil, 100))
	r.wake(1, []byte("short"))
	if r.leave(leaving{who: 1, beat: 90}) {
		t.Error("a member was expelled for a heartbeat older than the one it came back with")
	}
	if got := decodeRoll(r.marshal()); fmt.Sprint(got) != fmt.Sprint(r) || got[1] != 100 || len(got) != 2 {
		t.Errorf("the roll %v is read as %v", r, got)
	}
	if !r.leave(leaving{who: 1, beat: 100}) || !r.leave(leaving{who: 2}) || len(r) != 0 {
		t.Errorf("the roll is %v after all have left", r)
	}
}

func TestLeavingIsReadAsWritten(t *testing.T) {
	want := leaving{who: 7, beat: 8, reason: "no heartbeat"}
	if got, ok := decodeLeaving(want.append(nil)); !ok || got != want {
		t.Errorf("got %+v, %t", got, ok)
	}
	if _, ok := decodeLeaving(make([]byte, 15)); ok {
		t.Error("fifteen bytes are a leave")
	}
}
