package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/store"
	"sheepdog/sheep/store/vfs/vfstest"
)

// A fault makes calls of a disk fail.
type fault struct {
	mu   sync.Mutex
	hook func(op vfstest.Op, name string) error // nil: nothing fails
}

func (f *fault) set(hook func(vfstest.Op, string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

func (f *fault) call(op vfstest.Op, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hook == nil {
		return nil
	}
	return f.hook(op, name)
}

// badSync returns a hook that fails all syncs of files with part in the name
// under which they were opened.
func badSync(part string) func(vfstest.Op, string) error {
	return func(op vfstest.Op, name string) error {
		if (op == vfstest.OpSync || op == vfstest.OpDataSync) && strings.Contains(name, part) {
			return syscall.EIO
		}
		return nil
	}
}

// memoryStore opens a store on a disk in memory whose calls can be made fail.
func memoryStore(t *testing.T, disk *vfstest.Memory) (*store.Store, *fault) {
	t.Helper()
	f := &fault{}
	cfg := small
	cfg.FS = vfstest.Hooked(disk, f.call)
	return openStore(t, "", cfg), f
}

func reopen(t *testing.T, disk *vfstest.Memory) *store.Store {
	t.Helper()
	cfg := small
	cfg.FS = disk
	return openStore(t, "", cfg)
}

func closeStore(t *testing.T, s *store.Store, clean bool) {
	t.Helper()
	if err := s.Close(clean); err != nil {
		t.Error(err)
	}
}

// TestEveryCallMayFail lets each call of the disk fail in turn. Whatever
// fails, what was answered is there after a crash, or its object is known to
// be bad.
func TestEveryCallMayFail(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
		t.Run(errno.Error(), func(t *testing.T) {
			for n := 1; ; n++ {
				if done := failNth(t, n, errno); done || t.Failed() {
					t.Logf("the script makes about %d calls", n)
					return
				}
			}
		})
	}
}

// failNth runs the script with the nth call failing. It reports whether the
// script made fewer calls.
func failNth(t *testing.T, n int, errno error) bool {
	t.Helper()
	disk := vfstest.NewMemory(1 << 40)
	calls := 0
	what := ""
	f := &fault{hook: func(op vfstest.Op, name string) error {
		if op == vfstest.OpRead || errno == syscall.ENOSPC && op != vfstest.OpWrite && op != vfstest.OpOpen {
			return nil
		}
		if calls++; calls == n {
			what = fmt.Sprintf("call %d, %s %s: %v", n, op, name, errno)
			return errno
		}
		return nil
	}}
	cfg := small
	cfg.FS = vfstest.Hooked(disk, f.call)
	m := &model{objects: map[sheep.ObjectID]history{}}
	s, err := store.Open("", cfg)
	if err == nil {
		play(t, s, m)
		m.mu.Lock()
		want := m.snapshot()
		m.mu.Unlock()
		crashed := disk.Crash(nil)
		checkAfterFault(t, crashed, want, what)
		if s.Close(true) == nil {
			for id := range want {
				if _, err := disk.Open("damaged/"+id.String(), 0); err == nil {
					delete(want, id) // the bad object was put aside
				}
			}
			checkAfterFault(t, disk.Crash(nil), cold(want), what+", closed clean")
		}
	} else {
		checkAfterFault(t, disk.Crash(nil), nil, what)
	}
	return what == ""
}

// play does something of everything. Errors are allowed, but not to pass for
// something else.
func play(t *testing.T, s *store.Store, m *model) {
	t.Helper()
	doubtful := map[sheep.ObjectID]bool{}
	rng := rand.New(rand.NewPCG(7, 7))
	note := func(id sheep.ObjectID, err error) bool {
		if err == nil {
			return true
		}
		doubtful[id] = true
		if !errors.Is(err, sheep.ErrIO) && !errors.Is(err, sheep.ErrNoSpace) {
			t.Errorf("%v: got error %v, want %v or %v", id, err, sheep.ErrIO, sheep.ErrNoSpace)
		}
		return false
	}
	for step := range 30 {
		id := sheep.DataObject(1, uint32(step%5))
		if doubtful[id] {
			continue
		}
		w := worker{t: t, s: s, m: m, rng: rng, vdi: 1}
		now := m.now(id)
		switch {
		case step%11 == 10:
			if s.Flush(t.Context(), 1) == nil && len(doubtful) == 0 {
				w.settleAll()
			}
		case !now.exists && step%2 == 0 || step == 20:
			to := version{true, 3, w.bytes(modelSize)}
			m.start(id, to)
			err := s.Install(t.Context(), id, modelSize, 3, func(f io.WriterAt) error {
				_, err := f.WriteAt(to.data, 0)
				return err
			})
			if note(id, err) {
				m.end(id, 0, 0, true, false)
			}
		case step == 22:
			m.start(id, version{})
			c, err := s.Remove(id, 3)
			if err == nil {
				err = c.Wait(t.Context())
			}
			if note(id, err) {
				m.end(id, 0, 0, true, true)
			}
		default:
			w.tryWrite(id, now, note)
		}
	}
}

// tryWrite is write that lets note judge the error.
func (w *worker) tryWrite(id sheep.ObjectID, to version, note func(sheep.ObjectID, error) bool) {
	c := w.change(!to.exists)
	if !to.exists {
		to = version{true, 3, make([]byte, modelSize)}
	}
	to.data = append([]byte{}, to.data...)
	clear(to.data[c.Off : c.Off+c.Zero])
	copy(to.data[c.Off:], c.Data)
	w.m.start(id, to)
	commit, err := w.s.Write(id, modelSize, 3, c)
	if err == nil {
		err = w.wait(commit)
	}
	if !note(id, err) {
		return
	}
	n := 0
	if c.Durable {
		n = int(c.Len())
	}
	w.m.end(id, int(c.Off), n, c.Create, true)
}

// settleAll notes that everything is durable.
func (w *worker) settleAll() {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	for id, h := range w.m.objects {
		h.settle()
		w.m.objects[id] = h
	}
}

// checkAfterFault opens a disk after a crash and compares all objects but the
// bad ones.
func checkAfterFault(t *testing.T, disk *vfstest.Memory, want map[sheep.ObjectID]history, what string) {
	t.Helper()
	cfg := small
	cfg.FS = disk
	s, err := store.Open("", cfg)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	for id := range want {
		if err := s.Read(id, 0, make([]byte, 1), 0); errors.Is(err, sheep.ErrIO) {
			delete(want, id)
		}
	}
	check(t, s, want)
	if t.Failed() {
		t.Log(what)
	}
	_ = s.Close(false) // which tells of bad objects
}

func TestObjectIsBadAfterAFailedSync(t *testing.T) {
	disk := vfstest.NewMemory(1 << 40)
	s, f := memoryStore(t, disk)
	bad, good := sheep.DataObject(1, 0), sheep.DataObject(2, 0)
	big := make([]byte, 100<<10)
	big[0] = 1
	for _, id := range []sheep.ObjectID{bad, good} {
		write(t, s, id, 1, sheep.Write{Create: true})
		write(t, s, id, 1, sheep.Write{Data: big})
	}
	f.set(badSync(bad.String()))
	wantError(t, s.Flush(t.Context(), 1), sheep.ErrIO)
	f.set(nil)
	if err := s.Flush(t.Context(), 2); err != nil {
		t.Errorf("flush of another VDI: %v", err)
	}
	refused := func(s *store.Store) {
		t.Helper()
		wantError(t, s.Read(bad, 0, make([]byte, 1), 0), sheep.ErrIO)
		_, err := s.Write(bad, modelSize, 1, &sheep.Write{Data: big})
		wantError(t, err, sheep.ErrIO)
		wantError(t, s.Flush(t.Context(), 1), sheep.ErrIO)
		wantBytes(t, s, good, 0, big)
		if err := s.Err(); err != nil {
			t.Errorf("the whole store failed: %v", err)
		}
	}
	refused(s)
	after := reopen(t, disk.Crash(nil))
	refused(after)
	wantError(t, s.Close(false), sheep.ErrIO)

	err := after.Install(t.Context(), bad, modelSize, 1, func(w io.WriterAt) error {
		_, err := w.WriteAt(big, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, after, bad, 0, big)
	if err := after.Flush(t.Context(), 1); err != nil {
		t.Errorf("flush after the repair: %v", err)
	}
	closeStore(t, after, true)
}

func TestBadObjectIsPutAsideByACleanStop(t *testing.T) {
	disk := vfstest.NewMemory(1 << 40)
	s, f := memoryStore(t, disk)
	id := sheep.DataObject(1, 0)
	write(t, s, id, 1, sheep.Write{Create: true})
	f.set(badSync(id.String()))
	closeStore(t, s, true)
	if _, err := disk.Open("damaged/"+id.String(), 0); err != nil {
		t.Errorf("the file of the bad object: %v", err)
	}
	s = reopen(t, disk)
	if s.Has(id) {
		t.Error("the bad object is still there")
	}
	closeStore(t, s, true)
}

func TestBadObjectMadeAnewIsGood(t *testing.T) {
	disk := vfstest.NewMemory(1 << 40)
	s, f := memoryStore(t, disk)
	id := sheep.DataObject(1, 0)
	write(t, s, id, 1, sheep.Write{Create: true})
	write(t, s, id, 1, sheep.Write{Data: make([]byte, 100<<10)})
	f.set(badSync(id.String()))
	wantError(t, s.Flush(t.Context(), 1), sheep.ErrIO)
	f.set(nil)
	write(t, s, id, 2, sheep.Write{Create: true, Data: []byte("new")})
	wantBytes(t, s, id, 0, []byte("new\x00"))
	if err := s.Flush(t.Context(), 1); err != nil {
		t.Errorf("flush: %v", err)
	}
	closeStore(t, s, true)
	s = reopen(t, disk)
	wantBytes(t, s, id, 0, []byte("new\x00"))
	closeStore(t, s, true)
}

// TestAListThatFailsIsNotShort: whoever recovers would believe that there is no more.
func TestAListThatFailsIsNotShort(t *testing.T) {
	s, f := memoryStore(t, vfstest.NewMemory(1<<40))
	write(t, s, sheep.DataObject(1, 0), 1, sheep.Write{Create: true, Data: []byte("data")})
	f.set(func(op vfstest.Op, name string) error {
		if op == vfstest.OpList {
			return syscall.EMFILE
		}
		return nil
	})
	_, err := s.IDs(0)
	wantError(t, err, sheep.ErrIO)
	f.set(nil)
	if ids, err := s.IDs(0); err != nil || len(ids) != 1 {
		t.Errorf("got %v, %v, want one object", ids, err)
	}
}

func TestFailedJournalRefusesChanges(t *testing.T) {
	disk := vfstest.NewMemory(1 << 40)
	s, f := memoryStore(t, disk)
	id := sheep.DataObject(1, 0)
	write(t, s, id, 1, sheep.Write{Create: true, Data: []byte("old")})
	f.set(badSync("journal/"))
	c, err := s.Write(id, modelSize, 1, &sheep.Write{Data: []byte("new"), Durable: true})
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, c.Wait(t.Context()), sheep.ErrIO)
	f.set(nil)
	wantError(t, s.Err(), sheep.ErrIO)
	_, err = s.Write(id, modelSize, 1, &sheep.Write{Data: []byte("new")})
	wantError(t, err, sheep.ErrIO)
	_, err = s.Remove(id, 1)
	wantError(t, err, sheep.ErrIO)
	if err := s.Read(id, 0, make([]byte, 1), 0); err != nil {
		t.Errorf("read: %v", err)
	}
	wantError(t, s.Close(true), sheep.ErrIO)
	s = reopen(t, disk.Crash(nil))
	wantBytes(t, s, id, 0, []byte("old"))
	closeStore(t, s, true)
}

// remove removes an object.
func remove(t *testing.T, s *store.Store, id sheep.ObjectID) {
	t.Helper()
	c, err := s.Remove(id, 1)
	if err == nil {
		err = c.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// exhaust writes as much as may be written between two looks at the free space
// of a disk that has had 2 MiB.
func exhaust(t *testing.T, s *store.Store, id sheep.ObjectID) {
	t.Helper()
	for range 2 << 20 / 4096 {
		write(t, s, id, 1, sheep.Write{Data: make([]byte, 4096)})
	}
}

func TestFullDisk(t *testing.T) {
	disk := vfstest.NewMemory(1 << 40)
	f := &fault{}
	cfg := small
	cfg.Reserve = 1 << 20
	cfg.FS = vfstest.Hooked(disk, f.call)
	s := openStore(t, "", cfg)
	a, b := sheep.DataObject(1, 0), sheep.DataObject(1, 1)
	write(t, s, a, 1, sheep.Write{Create: true})

	fill := func(io.WriterAt) error { return nil }
	install := func(ctx context.Context, id sheep.ObjectID) error { return s.Install(ctx, id, modelSize, 1, fill) }
	disk.SetFree(2<<20 - 1) // nearly full
	wantError(t, install(store.Unhurried(t.Context()), b), sheep.ErrNoSpace)
	if err := install(t.Context(), b); err != nil {
		t.Errorf("a copy that a client waits for, on a disk that is nearly full: %v", err)
	}
	remove(t, s, b)

	write(t, s, a, 1, sheep.Write{Data: []byte("this has its space")})
	disk.SetFree(1<<20 - 1) // full
	_, err := s.Write(b, modelSize, 1, &sheep.Write{Create: true})
	wantError(t, err, sheep.ErrNoSpace)
	wantError(t, install(t.Context(), b), sheep.ErrNoSpace)
	exhaust(t, s, a)
	_, err = s.Write(a, modelSize, 1, &sheep.Write{Off: 4096, Data: []byte("x")})
	wantError(t, err, sheep.ErrNoSpace)
	write(t, s, a, 1, sheep.Write{Data: []byte("overwriting goes on")})
	write(t, s, a, 1, sheep.Write{Zero: 8192})
	if err := install(store.Unhurried(t.Context()), a); err != nil {
		t.Errorf("a copy that takes the place of another, on a full disk: %v", err)
	}
	write(t, s, sheep.DataObject(1, 9).Ledger(), 1, sheep.Write{Create: true, Data: []byte("what is deleted must be recorded")})
	_, err = s.Write(sheep.InodeObject(2), modelSize, 1, &sheep.Write{Create: true})
	wantError(t, err, sheep.ErrNoSpace)
	disk.SetFree(1<<19 - 1)
	wantError(t, install(t.Context(), a), sheep.ErrNoSpace)
	disk.SetFree(0)
	remove(t, s, a)
	disk.SetFree(1 << 40)
	write(t, s, a, 1, sheep.Write{Create: true})

	f.set(func(op vfstest.Op, name string) error {
		if op == vfstest.OpWrite && strings.HasPrefix(name, "obj/") {
			return syscall.ENOSPC
		}
		return nil
	})
	_, err = s.Write(b, modelSize, 1, &sheep.Write{Create: true, Data: []byte("x")})
	wantError(t, err, sheep.ErrNoSpace)
	_, err = s.Write(a, modelSize, 1, &sheep.Write{Data: []byte("x")})
	wantError(t, err, sheep.ErrNoSpace)
	f.set(nil)
	names, err := disk.List("obj")
	if err != nil || len(names) != 3 { // a, the ledger and .stale
		t.Errorf("got files %v, %v after the failed creation, want no trace of it", names, err)
	}
	closeStore(t, s, true)
}

func TestDiskWithoutAttributesIsRefused(t *testing.T) {
	f := &fault{}
	f.set(func(op vfstest.Op, name string) error {
		if op == vfstest.OpSetAttr {
			return syscall.EOPNOTSUPP
		}
		return nil
	})
	_, err := store.Open("", store.Config{FS: vfstest.Hooked(vfstest.NewMemory(1<<40), f.call)})
	if err == nil || !strings.Contains(err.Error(), "extended attributes") {
		t.Errorf("got error %v, want one about extended attributes", err)
	}
}

func TestDeferredWritesBecomeDurableWithAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := vfstest.NewMemory(1 << 40)
		s, _ := memoryStore(t, disk)
		a, b := sheep.DataObject(1, 0), sheep.DataObject(1, 1)
		big := make([]byte, 100<<10)
		big[99<<10] = 7
		for _, id := range []sheep.ObjectID{a, b} {
			write(t, s, id, 1, sheep.Write{Create: true})
		}
		if err := s.FlushAll(t.Context()); err != nil {
			t.Fatal(err)
		}
		write(t, s, a, 1, sheep.Write{Data: []byte("small")})
		write(t, s, b, 1, sheep.Write{Data: big})
		lost := reopen(t, disk.Crash(nil))
		wantBytes(t, lost, a, 0, make([]byte, 5))
		closeStore(t, lost, false)
		sleep(store.DefaultFlushAge)
		kept := reopen(t, disk.Crash(nil))
		wantBytes(t, kept, a, 0, []byte("small"))
		wantBytes(t, kept, b, 0, big)
		closeStore(t, kept, false)
		closeStore(t, s, true)
	})
}

func TestInterruptedFormatNeverMixesOldAndNew(t *testing.T) {
	id := sheep.DataObject(1, 0)
	prepare := func() (*vfstest.Memory, *store.Store, *fault) {
		disk := vfstest.NewMemory(1 << 40)
		s, f := memoryStore(t, disk)
		if err := s.SetConfig(proto.StoreConfig{Ctime: 1}); err != nil {
			t.Fatal(err)
		}
		if err := s.LogEpoch(1, nil, epochTime); err != nil {
			t.Fatal(err)
		}
		write(t, s, id, 1, sheep.Write{Create: true, Data: []byte("old")})
		return disk, s, f
	}
	for n := 1; ; n++ {
		disk, s, f := prepare()
		var crashed *vfstest.Memory
		calls := 0
		f.set(func(vfstest.Op, string) error {
			if calls++; calls == n {
				crashed = disk.Crash(rand.New(rand.NewPCG(uint64(n), 1)))
			}
			return nil
		})
		if err := s.Format(proto.StoreConfig{Ctime: 2}); err != nil {
			t.Fatal(err)
		}
		f.set(nil)
		closeStore(t, s, false)
		if crashed == nil {
			break
		}
		s = reopen(t, crashed)
		switch ctime := s.Config().Ctime; {
		case ctime == 1 && !s.Has(id):
			t.Errorf("crash before call %d: the old object is gone, but not the old cluster", n)
		case ctime == 2 && (s.Has(id) || s.LatestEpoch() != 0 || len(s.Intents()) != 0):
			t.Errorf("crash before call %d: something old is in the new cluster", n)
		}
		closeStore(t, s, false)
	}
}

func TestNoSyncNeverSyncs(t *testing.T) {
	f := &fault{}
	disk := vfstest.NewMemory(1 << 40)
	cfg := small
	cfg.NoSync = true
	cfg.FS = vfstest.Hooked(disk, f.call)
	f.set(func(op vfstest.Op, name string) error {
		if op == vfstest.OpSync || op == vfstest.OpDataSync || op == vfstest.OpSyncDir {
			t.Errorf("%s %s", op, name)
		}
		return nil
	})
	s := openStore(t, "", cfg)
	write(t, s, sheep.DataObject(1, 0), 1, sheep.Write{Create: true, Data: []byte("x")})
	closeStore(t, s, true)
}
