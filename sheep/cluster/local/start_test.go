package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// A teller is a machine that tells what it is told.
type teller struct {
	entries  chan cluster.Entry
	restored []uint64
	refuse   bool // snapshots
}

func (m *teller) Restore(index uint64, snapshot []byte) error {
	if m.refuse && len(snapshot) > 0 {
		return sheep.ErrVersion
	}
	m.restored = append(m.restored, index)
	return nil
}

func (m *teller) Apply(e cluster.Entry) { m.entries <- e }
func (m *teller) Snapshot() []byte      { return []byte("snapshot") }

// started runs a driver until the test ends.
type started struct {
	*Driver
	machine *teller
	cancel  context.CancelFunc
	done    chan error
}

func startDriver(t *testing.T, path string, inc sheep.Incarnation, cfg Config) *started {
	t.Helper()
	s := &started{
		Driver:  New(path, cfg),
		machine: &teller{entries: make(chan cluster.Entry, 1000)},
		done:    make(chan error, 1),
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.done <- s.Run(ctx, cluster.Self{Incarnation: inc, Hello: []byte("hello")}, s.machine)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return s
}

// joined waits for the driver's own join and returns its index.
func (s *started) joined(t *testing.T) uint64 {
	t.Helper()
	for {
		select {
		case e := <-s.machine.entries:
			if e.Kind == cluster.EntryJoin && e.Member == s.self {
				return e.Index
			}
		case err := <-s.done:
			t.Fatalf("Run returned %v", err)
		case <-time.After(10 * time.Second):
			t.Fatal("no join")
		}
	}
}

func TestDirectoryThatCannotBeTrustedIsRefused(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, path string) error
		want string
	}{
		{"others may write to it", func(_ *testing.T, p string) error {
			return errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, 0o777))
		}, "others may write"},
		{"it is a link", func(_ *testing.T, p string) error { return os.Symlink(os.TempDir(), p) }, "not a directory"},
		{"it belongs to somebody else", func(t *testing.T, p string) error {
			if os.Geteuid() != 0 {
				t.Skip("only root can give a directory away")
			}
			return errors.Join(os.Mkdir(p, 0o700), os.Chown(p, 12345, 12345))
		}, "belongs to user 12345"},
		{"there is no place for it", func(*testing.T, string) error { return nil }, "no such file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c")
			if err := test.make(t, path); err != nil {
				t.Fatal(err)
			}
			if test.want == "no such file" {
				path = filepath.Join(path, "sub")
			}
			err := New(path, Config{}).Run(t.Context(), cluster.Self{Incarnation: 1}, &teller{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Run returned %v, want %q", err, test.want)
			}
		})
	}
}

func TestSharedFileOfTheOriginalIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shm")
	if err := os.WriteFile(path, []byte("theirs"), 0o644); err != nil {
		t.Fatal(err)
	}
	startDriver(t, path, 1, Config{}).joined(t)
	if b, err := os.ReadFile(path); err != nil || string(b) != "theirs" {
		t.Errorf("the file has %q, %v", b, err)
	}
	if _, err := os.Stat(path + ".d/log.1"); err != nil {
		t.Error(err)
	}
}

// leaveLog leaves a log in a new directory as an earlier boot would have.
func leaveLog(t *testing.T, boot [16]byte, index uint64) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "c")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := createLog(dir, 4, 9, boot, index, roll{9: 0}.marshal(), []byte("state")); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnusableLogIsReplaced(t *testing.T) {
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	future := uint64(time.Now().Add(1000 * time.Hour).UnixNano()) // of a clock that went back
	tests := []struct {
		name  string
		boot  [16]byte
		spoil func(t *testing.T, name string)
		least uint64
	}{
		{"of an earlier boot", [16]byte{1}, func(*testing.T, string) {}, future},
		{"empty", boot, func(t *testing.T, name string) { truncate(t, name, 0) }, 0},
		{"cut", boot, func(t *testing.T, name string) { truncate(t, name, logHeader+3) }, future},
		{"with a changed byte", boot, func(t *testing.T, name string) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)-1]++
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, future},
	}
	for _, test := range tests {
		t.Run("log "+test.name, func(t *testing.T) {
			path := leaveLog(t, test.boot, future)
			test.spoil(t, filepath.Join(path, "log.4"))
			s := startDriver(t, path, 1, Config{})
			if index := s.joined(t); index <= test.least || index < uint64(time.Now().Add(-time.Hour).UnixNano()) {
				t.Errorf("the new log has index %d, which may have been used", index)
			}
			if _, err := os.Stat(filepath.Join(path, "log.5")); err != nil {
				t.Error(err)
			}
		})
	}
}

func truncate(t *testing.T, name string, size int64) {
	t.Helper()
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
}

func TestLogOfThisBootGoesOn(t *testing.T) {
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	s := startDriver(t, leaveLog(t, boot, 1000), 1, Config{})
	if e := <-s.machine.entries; e.Kind != cluster.EntryLeave || e.Member != 9 || e.Index != 1001 {
		t.Errorf("the first entry is %+v, not the leave of the member that died", e)
	}
	if index := s.joined(t); index != 1002 {
		t.Errorf("the join has index %d", index)
	}
}

func TestLogOfAnotherVersionIsReplacedUnlessItIsUsed(t *testing.T) {
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	path := leaveLog(t, boot, 1000)
	dir, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	other, err := createMember(dir, 9, boottime())
	if err != nil {
		t.Fatal(err)
	}
	if err := other.use(); err != nil {
		t.Fatal(err)
	}
	err = New(path, Config{}).Run(t.Context(), cluster.Self{Incarnation: 1}, &teller{refuse: true})
	if err == nil || !strings.Contains(err.Error(), "other processes use") {
		t.Errorf("Run returned %v", err)
	}
	other.close()
	s := &started{Driver: New(path, Config{}), done: make(chan error, 1)}
	s.machine = &teller{entries: make(chan cluster.Entry, 10), refuse: true}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { s.done <- s.Run(ctx, cluster.Self{Incarnation: 2, Hello: []byte("x")}, s.machine) }()
	if e := <-s.machine.entries; e.Kind != cluster.EntryJoin || e.Member != 2 {
		t.Errorf("the first entry is %+v", e)
	}
	cancel()
	if err := <-s.done; err != nil {
		t.Errorf("Run returned %v", err)
	}
}

func TestProcessWhoseFileWasRemovedStops(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	s := startDriver(t, path, 1, Config{Beat: 10 * time.Millisecond, Lease: time.Second, Expel: 2 * time.Second})
	s.joined(t)
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := <-s.done; err == nil || !strings.Contains(err.Error(), "somebody removed") {
		t.Errorf("Run returned %v", err)
	}
}

func TestUnhealthyMemberIsExpelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	cfg := Config{Beat: 20 * time.Millisecond, Lease: 200 * time.Millisecond, Expel: 600 * time.Millisecond, Poll: 20 * time.Millisecond}
	a := startDriver(t, path, 1, cfg)
	a.joined(t)
	sick := New(path, cfg)
	m := &teller{entries: make(chan cluster.Entry, 10)}
	err := sick.Run(t.Context(), cluster.Self{Incarnation: 2, Health: func() error { return errors.New("disk hangs") }}, m)
	if err == nil || !strings.Contains(err.Error(), "no heartbeat") {
		t.Errorf("Run returned %v", err)
	}
	if err := sick.Lease(); err == nil {
		t.Error("the expelled member has a lease")
	}
	if err := sick.Propose(t.Context(), []byte("x")); err == nil {
		t.Error("the expelled member may propose")
	}
	if err := sick.Sync(t.Context()); err == nil {
		t.Error("the expelled member may sync")
	}
}

func TestProcessThatFellGenerationsBehindMakesNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	s := startDriver(t, path, 1, Config{})
	s.joined(t)
	root, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := createLog(root, 3, 9, s.boot, 1, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.append(recordRotate, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-s.done; err == nil {
		t.Error("Run returned nil")
	}
	if _, err := os.Stat(filepath.Join(path, "log.2")); err == nil {
		t.Error("a generation that was removed is back")
	}
}

func TestTidyRemovesWhatNobodyNeeds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	s := startDriver(t, path, 1, Config{MaxLog: 1000})
	s.joined(t)
	for range 30 {
		if err := s.Propose(t.Context(), make([]byte, 200)); err != nil {
			t.Fatal(err)
		}
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-time.Hour)
	gens, err := generations(s.dir)
	if err != nil || len(gens) < 3 {
		t.Fatalf("generations %v, %v", gens, err)
	}
	for _, g := range gens {
		if err := os.Chtimes(filepath.Join(path, logName(g)), long, long); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{memberName(77), "log.9.tmp"} {
		if err := os.WriteFile(filepath.Join(path, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(filepath.Join(path, name), long, long); err != nil {
			t.Fatal(err)
		}
	}
	s.tidy()
	names, err := readNames(s.dir)
	if err != nil || len(names) != 2 {
		t.Errorf("left are %v, %v; want this process's file and the last log", names, err)
	}
}

// TestGenerationsMayChangeFast has several members end generations that hold
// a few records only, all at the same time.
func TestGenerationsMayChangeFast(t *testing.T) {
	const members, messages = 3, 300
	path := filepath.Join(t.TempDir(), "c")
	var all []*started
	for i := range members {
		s := startDriver(t, path, sheep.Incarnation(i+1), Config{MaxLog: 1000})
		s.joined(t)
		all = append(all, s)
	}
	for _, s := range all {
		go func() {
			for i := range messages {
				if err := s.Propose(t.Context(), []byte{byte(s.self), byte(i), byte(i >> 8)}); err != nil {
					t.Errorf("propose: %v", err)
					return
				}
			}
		}()
	}
	var first []string
	for _, s := range all {
		var got []string
		for len(got) < members*messages {
			select {
			case e := <-s.machine.entries:
				if e.Kind == cluster.EntryMessage {
					got = append(got, string(e.Data))
				}
			case err := <-s.done:
				t.Fatalf("Run returned %v", err)
			}
		}
		if first == nil {
			first = got
		} else if !slices.Equal(first, got) {
			t.Error("the members were told different messages")
		}
	}
}

// A hanging machine does not come back from a message before it is released.
type hanging struct {
	teller
	released chan struct{}
}

func (m *hanging) Apply(e cluster.Entry) {
	if e.Kind == cluster.EntryMessage {
		<-m.released
	}
}

func TestMemberThatHangsInAnEntryIsExpelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	cfg := Config{Beat: 20 * time.Millisecond, Lease: 200 * time.Millisecond, Expel: 600 * time.Millisecond, Poll: 20 * time.Millisecond}
	a := startDriver(t, path, 1, cfg)
	a.joined(t)
	b := New(path, cfg)
	m := &hanging{released: make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- b.Run(t.Context(), cluster.Self{Incarnation: 2}, m) }()
	for e := range a.machine.entries {
		if e.Kind == cluster.EntryJoin && e.Member == 2 {
			break
		}
	}
	if err := a.Propose(t.Context(), []byte("hang")); err != nil {
		t.Fatal(err)
	}
	for e := range a.machine.entries {
		if e.Kind == cluster.EntryLeave && e.Member == 2 {
			break
		}
	}
	if err := b.Lease(); err == nil {
		t.Error("the member had a lease when it was expelled")
	}
	close(m.released)
	if err := <-done; err == nil || !strings.Contains(err.Error(), "expelled") {
		t.Errorf("Run returned %v", err)
	}
}
