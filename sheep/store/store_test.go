package store_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/store"
)

const objectSize = 4 << 20

// small keeps the journal of a test small.
var small = store.Config{SegmentSize: 256 << 10, Segments: 2, Reserve: 1}

func openStore(t *testing.T, dir string, cfg store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// write changes an object and waits for the commit.
func write(t *testing.T, s *store.Store, id sheep.ObjectID, epoch sheep.Epoch, w sheep.Write) {
	t.Helper()
	c, err := s.Write(id, objectSize, epoch, &w)
	if err == nil {
		err = c.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func wantBytes(t *testing.T, s *store.Store, id sheep.ObjectID, off uint32, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if err := s.Read(id, got, off); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%v at %d: the content differs", id, off)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func TestObjectsLiveThroughReopening(t *testing.T) {
	for _, clean := range []bool{true, false} {
		dir := filepath.Join(t.TempDir(), "store")
		s := openStore(t, dir, small)
		a, b := sheep.DataObject(1, 0), sheep.DataObject(1, 1)
		big := bytes.Repeat([]byte("sheep"), 100_000)
		write(t, s, a, 1, sheep.Write{Create: true, Off: 4096, Data: []byte("hello")})
		write(t, s, b, 1, sheep.Write{Create: true, Data: big})
		write(t, s, a, 2, sheep.Write{Off: 4098, Data: []byte("LL")})
		write(t, s, b, 2, sheep.Write{Off: 8192, Zero: 8192})
		if err := s.Close(clean); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, dir, small)
		wantBytes(t, s, a, 4096, []byte("heLLo\x00"))
		clear(big[8192:16384])
		wantBytes(t, s, b, 0, big)
		info, err := s.Stat(a)
		if want := (store.Info{Size: objectSize, WriteEpoch: 2}); err != nil || info != want {
			t.Errorf("got %v, %v, want %v", info, err, want)
		}
		c, err := s.Remove(a, 2)
		if err == nil {
			err = c.Wait(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, s.Read(a, make([]byte, 1), 0), sheep.ErrNoObject)
		err = s.Install(t.Context(), a, objectSize, 1, func(w io.WriterAt) error {
			_, err := w.WriteAt([]byte("copy"), 1000)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(clean); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, dir, small)
		wantBytes(t, s, a, 999, []byte("\x00copy\x00"))
		if err := s.Close(true); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "config")); err != nil || len(b) != 40 || b[30] != 6 || b[31] != 0 {
			t.Errorf("config after a clean stop: %x, %v", b, err)
		}
	}
}

func TestAFileThatWasTakenAwayIsMissed(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, store.Config{})
	defer s.Close(true)
	id := sheep.DataObject(1, 2)
	write(t, s, id, 1, sheep.Write{Data: []byte("x"), Create: true})
	if !s.Has(id) {
		t.Fatal("an object that was made is not there")
	}
	if err := os.Remove(filepath.Join(dir, "obj", id.String())); err != nil {
		t.Fatal(err)
	}
	if s.Has(id) {
		t.Error("an object without a file is said to exist")
	}
	_, err := s.Digest(id)
	wantError(t, err, sheep.ErrNoObject)
	if err := s.Install(t.Context(), id, objectSize, 1, func(w io.WriterAt) error {
		_, err := w.WriteAt([]byte("y"), 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, s, id, 0, []byte("y"))
	if !s.Has(id) {
		t.Error("an object that was replaced is not there")
	}
}

func TestSpaceIsWhatObjectsTakeAndWhatIsFree(t *testing.T) {
	s := openStore(t, t.TempDir(), store.Config{})
	defer s.Close(true)
	before, free := s.Space()
	if before != free {
		t.Errorf("an empty store uses %d bytes", before-free)
	}
	write(t, s, sheep.DataObject(1, 2), 1, sheep.Write{Data: bytes.Repeat([]byte{1}, 64<<10), Create: true, Durable: true})
	if err := s.FlushAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if total, free := s.Space(); total-free < 64<<10 || total-free > 1<<20 {
		t.Errorf("an object with 64 KiB of data uses %d bytes", total-free)
	}
}
