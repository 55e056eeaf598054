package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/sheeptest"
	"sheepdog/sheep/store"
	"sheepdog/sheep/store/vfs/vfstest"
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
	if err := s.Read(id, 0, got, off); err != nil {
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
		wantError(t, s.Read(a, 0, make([]byte, 1), 0), sheep.ErrNoObject)
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

// conform shows a store as a link of the chain.
type conform struct{ *store.Store }

func (c conform) Read(_ context.Context, ref sheep.Ref, p []byte, off uint32) error {
	return c.Store.Read(ref.ID, ref.Size, p, off)
}

func (c conform) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	commit, err := c.Store.Write(ref.ID, ref.Size, ref.Epoch, w)
	if err != nil {
		return err
	}
	return commit.Wait(ctx)
}

func (c conform) Remove(ctx context.Context, ref sheep.Ref) error {
	commit, err := c.Store.Remove(ref.ID, ref.Epoch)
	if err != nil {
		return err
	}
	return commit.Wait(ctx)
}

func TestStoreConforms(t *testing.T) {
	sheeptest.Objects(t, func(t *testing.T) sheep.Objects {
		s := openStore(t, filepath.Join(t.TempDir(), "store"), small)
		t.Cleanup(func() { closeStore(t, s, true) })
		return conform{s}
	})
}

func TestDeferredWriteWaitsOnlyForItsIntent(t *testing.T) {
	s := reopen(t, vfstest.NewMemory(1<<40))
	id := sheep.DataObject(1, 0)
	write(t, s, id, 1, sheep.Write{Create: true})
	closeStore(t, s, true)
	s = reopen(t, vfstest.NewMemory(1<<40))
	write(t, s, id, 1, sheep.Write{Create: true})
	for _, test := range []struct {
		name    string
		id      sheep.ObjectID
		epoch   sheep.Epoch
		write   sheep.Write
		pending bool
	}{
		{"a write to a hot object", id, 1, sheep.Write{Data: []byte("x")}, false},
		{"the first write of an epoch", id, 2, sheep.Write{Data: []byte("x")}, true},
		{"the second write of an epoch", id, 2, sheep.Write{Data: []byte("x")}, false},
		{"a durable write", id, 2, sheep.Write{Data: []byte("x"), Durable: true}, true},
		{"a large write", id, 2, sheep.Write{Data: make([]byte, 100<<10)}, false},
		{"a large durable write", id, 2, sheep.Write{Data: make([]byte, 100<<10), Durable: true}, true},
		{"zeroing", id, 2, sheep.Write{Zero: 4096}, false},
		{"a creation", id + 1, 2, sheep.Write{Create: true}, true},
		{"a creation of metadata", sheep.InodeObject(1), 2, sheep.Write{Create: true}, true},
		{"a write to metadata", sheep.InodeObject(1), 2, sheep.Write{Data: []byte("x")}, true},
	} {
		c, err := s.Write(test.id, modelSize, test.epoch, &test.write)
		if err != nil {
			t.Fatal(err)
		}
		if c.Pending() != test.pending {
			t.Errorf("%s: got pending %t, want %t", test.name, c.Pending(), test.pending)
		}
		if err := c.Wait(t.Context()); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	closeStore(t, s, true)
}

func TestIntentsNameWhatWasWrittenLately(t *testing.T) {
	disk := vfstest.NewMemory(1 << 40)
	cfg := small
	cfg.HotObjects = 4
	cfg.FS = disk
	s := openStore(t, "", cfg)
	for i := range uint32(10) {
		write(t, s, sheep.DataObject(1, i), 1, sheep.Write{Create: true})
	}
	write(t, s, sheep.DataObject(1, 7), 1, sheep.Write{Data: []byte("x")})
	want := []sheep.ObjectID{0x100000007, 0x100000009, 0x100000008, 0x100000006}
	if got := s.Intents(); !slices.Equal(got, want) {
		t.Errorf("got intents %v, want %v", got, want)
	}
	if !s.Hot(want[0]) || s.Hot(0x100000001) {
		t.Error("Hot and Intents differ")
	}
	cfg.FS = disk.Crash(nil)
	after := openStore(t, "", cfg)
	for _, id := range want {
		if !after.Hot(id) {
			t.Errorf("%v is not in the log after a crash: %v", id, after.Intents())
		}
	}
	closeStore(t, after, true)
	closeStore(t, s, true)
	s = reopen(t, disk)
	if got := s.Intents(); len(got) != 0 {
		t.Errorf("got intents %v after a clean stop, want none", got)
	}
	closeStore(t, s, true)
}

func TestIntentsOutliveACleanStopBeforeAllIsCurrent(t *testing.T) {
	disk := vfstest.NewMemory(1 << 40)
	cfg := small
	cfg.FS = disk
	s := openStore(t, "", cfg)
	if err := errors.Join(s.LogEpoch(1, nil, epochTime), s.SetComplete(1), s.LogEpoch(2, nil, epochTime)); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(3) {
		write(t, s, sheep.DataObject(1, i), 1, sheep.Write{Create: true})
	}
	want := s.Intents()
	for range 2 { // a stop right after the start keeps them, too
		closeStore(t, s, true)
		s = reopen(t, disk)
		if got := s.Intents(); !slices.Equal(got, want) {
			t.Errorf("got intents %v, want %v", got, want)
		}
	}
	cfg.FS = disk.Crash(nil)
	after := openStore(t, "", cfg)
	if got := after.Intents(); !slices.Equal(got, want) {
		t.Errorf("got intents %v after a crash, want %v", got, want)
	}
	closeStore(t, after, true)
	if err := s.SetComplete(2); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s, true)
	s = reopen(t, disk)
	if got := s.Intents(); len(got) != 0 {
		t.Errorf("got intents %v when all was current, want none", got)
	}
	closeStore(t, s, true)
}

func TestInstallLosesToAnyChange(t *testing.T) {
	id := sheep.DataObject(1, 0)
	for name, change := range map[string]func(s *store.Store){
		"a creation": func(s *store.Store) { write(t, s, id, 2, sheep.Write{Create: true, Data: []byte("new")}) },
		"a write":    func(s *store.Store) { write(t, s, id, 2, sheep.Write{Data: []byte("new")}) },
		"a removal and a creation": func(s *store.Store) {
			if _, err := s.Remove(id, 2); err != nil {
				t.Error(err)
			}
			write(t, s, id, 2, sheep.Write{Create: true, Data: []byte("new")})
		},
		"a format": func(s *store.Store) {
			if err := s.Format(config); err != nil {
				t.Error(err)
			}
			write(t, s, id, 2, sheep.Write{Create: true, Data: []byte("new")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := reopen(t, vfstest.NewMemory(1<<40))
			write(t, s, id, 1, sheep.Write{Create: true, Data: []byte("old")})
			err := s.Install(t.Context(), id, objectSize, 1, func(io.WriterAt) error {
				change(s)
				return nil
			})
			wantError(t, err, store.ErrSuperseded)
			wantBytes(t, s, id, 0, []byte("new"))
			closeStore(t, s, true)
		})
	}
}

func TestFailedInstallChangesNothing(t *testing.T) {
	disk := vfstest.NewMemory(1 << 40)
	s := reopen(t, disk)
	id := sheep.DataObject(1, 0)
	write(t, s, id, 1, sheep.Write{Create: true, Data: []byte("old")})
	install := func(size uint32, fill func(w io.WriterAt) error) error {
		return s.Install(t.Context(), id, size, 2, fill)
	}
	wantError(t, install(objectSize, func(io.WriterAt) error { return io.ErrNoProgress }), io.ErrNoProgress)
	wantError(t, install(0, func(io.WriterAt) error { return nil }), sheep.ErrInvalid)
	for _, off := range []int64{-1, 8, 9} {
		wantError(t, install(10, func(w io.WriterAt) error {
			_, err := w.WriteAt([]byte("abc"), off)
			return err
		}), sheep.ErrInvalid)
	}
	wantBytes(t, s, id, 0, []byte("old"))
	if names, err := disk.List("obj"); err != nil || len(names) != 2 {
		t.Errorf("got files %v, %v, want the object and .stale", names, err)
	}
	closeStore(t, s, true)
}

func TestInvalidWritesAreRefused(t *testing.T) {
	s := reopen(t, vfstest.NewMemory(1<<40))
	id := sheep.DataObject(1, 0)
	write(t, s, id, 1, sheep.Write{Create: true})
	for name, w := range map[string]sheep.Write{
		"data and zeroes":                   {Data: []byte("x"), Zero: 1},
		"an unresolved source":              {Create: true, From: &sheep.Ref{}},
		"data past the end":                 {Off: objectSize - 1, Data: []byte("xx")},
		"an offset past the end":            {Off: 1<<32 - 1, Data: []byte("x")},
		"zeroes past the end":               {Off: 1, Zero: 1<<32 - 1},
		"a creation with data past the end": {Create: true, Off: objectSize, Data: []byte("x")},
	} {
		if _, err := s.Write(id, objectSize, 1, &w); !errors.Is(err, sheep.ErrInvalid) {
			t.Errorf("%s: got error %v, want %v", name, err, sheep.ErrInvalid)
		}
	}
	_, err := s.Write(id+1, objectSize, 1, &sheep.Write{Data: []byte("x")})
	wantError(t, err, sheep.ErrNoObject)
	_, err = s.Write(id+1, 0, 1, &sheep.Write{Create: true})
	wantError(t, err, sheep.ErrInvalid)
	_, err = s.Remove(id+1, 1)
	wantError(t, err, sheep.ErrNoObject)
	closeStore(t, s, true)
	_, err = s.Write(id, objectSize, 1, &sheep.Write{})
	wantError(t, err, sheep.ErrShutdown)
}

func TestFormatWipesEverything(t *testing.T) {
	disk := vfstest.NewMemory(1 << 40)
	s := reopen(t, disk)
	id := sheep.DataObject(1, 0)
	write(t, s, id, 1, sheep.Write{Create: true, Data: []byte("old")})
	if err := errors.Join(s.LogEpoch(3, nodes, epochTime), s.SetComplete(3), s.SetHealed(2, 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Format(config); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		healed, forced := s.Healed()
		ids, err := s.IDs(0)
		if err != nil || s.Has(id) || len(ids) != 0 || s.LatestEpoch() != 0 || s.Complete() != 0 || healed != 0 || forced != 0 || len(s.Intents()) != 0 {
			t.Errorf("something of the old cluster is left: %v, %v, epoch %d, complete %d, intents %v",
				ids, err, s.LatestEpoch(), s.Complete(), s.Intents())
		}
		if got := s.Config(); got != config {
			t.Errorf("got config %+v, want %+v", got, config)
		}
		after := disk.Crash(nil)
		closeStore(t, s, false)
		disk = after
		s = reopen(t, disk)
	}
	write(t, s, id, 1, sheep.Write{Create: true, Data: []byte("new")})
	wantBytes(t, s, id, 0, []byte("new"))
	closeStore(t, s, true)
}

func TestManyObjectsNeedFewOpenFiles(t *testing.T) {
	var mu sync.Mutex
	cfg := small
	cfg.Handles = 8
	cfg.FS = vfstest.NewMemory(1 << 40)
	s := openStore(t, "", cfg)
	var wg sync.WaitGroup
	for g := range uint32(4) {
		wg.Go(func() {
			for i := range uint32(100) {
				id := sheep.DataObject(1, i)
				data := []byte{byte(i), byte(g)}
				mu.Lock()
				if !s.Has(id) {
					write(t, s, id, 1, sheep.Write{Create: true})
				}
				mu.Unlock()
				write(t, s, id, 1, sheep.Write{Off: 1000 * g, Data: data})
				wantBytes(t, s, id, 1000*g, data)
			}
		})
	}
	wg.Wait()
	for i := range uint32(100) {
		for g := range uint32(4) {
			wantBytes(t, s, sheep.DataObject(1, i), 1000*g, []byte{byte(i), byte(g)})
		}
	}
	closeStore(t, s, true)
}
