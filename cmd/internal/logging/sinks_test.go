package logging

import (
	"errors"
	"io/fs"
	"log/syslog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// files returns the names and contents of the files in dir.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	content := make(map[string]string)
	for _, f := range found {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		content[f.Name()] = string(b)
	}
	return content
}

func emit(t *testing.T, s Sink, line string) {
	t.Helper()
	if err := s.Emit(Info, []byte(line)); err != nil {
		t.Fatal(err)
	}
}

func compare(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	got := files(t, dir)
	for name := range got {
		if got[name] != want[name] {
			t.Errorf("%s holds %q, want %q", name, got[name], want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("got files %q, want %q", got, want)
	}
}

// open opens a log whose clock stands still.
func open(t *testing.T, dir string, max int64, opened func(*os.File)) *File {
	t.Helper()
	now := func() time.Time { return time.Date(2026, time.March, 4, 5, 6, 7, 0, time.UTC) }
	f, err := openFile(filepath.Join(dir, FileName("sheep")), max, now, opened)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestFileIsAppendedTo(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName("sheep")), []byte("old\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	emit(t, open(t, dir, MaxFile, nil), "new\n")
	compare(t, dir, map[string]string{FileName("sheep"): "old\nnew\n"})
}

func TestFileIsForAllToRead(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, MaxFile, nil)
	info, err := os.Stat(filepath.Join(dir, FileName("sheep")))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got&^0o022 != 0o644 {
		t.Errorf("mode %v, want 0644", got)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	var opened []string
	f := open(t, dir, MaxFile, func(f *os.File) { opened = append(opened, filepath.Base(f.Name())) })
	for _, line := range []string{"one\n", "two\n", "three\n"} {
		emit(t, f, line)
		if err := f.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	emit(t, f, "four\n")
	compare(t, dir, map[string]string{
		"sheep.log.2026-03-04-05-06":   "one\n",
		"sheep.log.2026-03-04-05-06.1": "two\n",
		"sheep.log.2026-03-04-05-06.2": "three\n",
		"sheep.log":                    "four\n",
	})
	if want := slices.Repeat([]string{FileName("sheep")}, 4); !slices.Equal(opened, want) {
		t.Errorf("told of %q, want %q", opened, want)
	}
}

func TestAFullFileIsRotated(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName("sheep")), []byte("0123"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := open(t, dir, 10, nil)
	emit(t, f, "45678\n") // exactly full
	emit(t, f, "a line above the limit\n")
	emit(t, f, "last\n")
	compare(t, dir, map[string]string{
		"sheep.log.2026-03-04-05-06":   "012345678\n",
		"sheep.log.2026-03-04-05-06.1": "a line above the limit\n",
		"sheep.log":                    "last\n",
	})
}

func TestAFileThatWasMovedAwayIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, MaxFile, nil)
	emit(t, f, "one\n")
	if err := os.Rename(filepath.Join(dir, FileName("sheep")), filepath.Join(dir, "sheep.log.1")); err != nil {
		t.Fatal(err)
	}
	emit(t, f, "two\n")
	if err := f.Rotate(); err != nil {
		t.Fatal(err)
	}
	emit(t, f, "three\n")
	compare(t, dir, map[string]string{"sheep.log.1": "one\ntwo\n", FileName("sheep"): "three\n"})
}

func TestARotationThatFailsLosesNothing(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir, MaxFile, nil)
	emit(t, f, "one\n")
	moved := dir + "-moved"
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if err := f.Rotate(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Rotate without the directory: %v, want ErrNotExist", err)
	}
	emit(t, f, "two\n")
	compare(t, moved, map[string]string{FileName("sheep"): "one\ntwo\n"})
}

func TestAClosedFileRefuses(t *testing.T) {
	f := open(t, t.TempDir(), MaxFile, nil)
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := f.Emit(Info, []byte("x\n")); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Emit: %v, want ErrClosed", err)
	}
	if err := f.Rotate(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Rotate: %v, want ErrClosed", err)
	}
}

func TestOpenFileWithoutDirectory(t *testing.T) {
	if _, err := OpenFile(filepath.Join(t.TempDir(), "none"), "sheep", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

func TestSyslogGetsTheSeverity(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	system, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer system.Close()
	s := &Syslog{dial: func() (*syslog.Writer, error) {
		return syslog.Dial("unixgram", path, syslog.LOG_DAEMON, "sheep")
	}}
	if err := s.connect(); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for sev := Emerg; sev.Valid(); sev++ {
		if err := s.Emit(sev, []byte("hello\n")); err != nil {
			t.Fatal(err)
		}
		var b [512]byte
		n, err := system.Read(b[:])
		if err != nil {
			t.Fatal(err)
		}
		got := string(b[:n])
		priority := []string{"<24>", "<25>", "<26>", "<27>", "<28>", "<29>", "<30>", "<31>"}[sev] // facility 3
		if !strings.HasPrefix(got, priority) || !strings.HasSuffix(got, "]: hello\n") || !strings.Contains(got, " sheep[") {
			t.Errorf("%v: got %q, want %s…sheep[pid]: hello", sev, got, priority)
		}
	}
}

func TestSyslogIsLookedForAgain(t *testing.T) {
	calls := 0
	s := &Syslog{dial: func() (*syslog.Writer, error) { calls++; return nil, fs.ErrNotExist }}
	if err := s.connect(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("connect: %v, want ErrNotExist", err)
	}
	if err := s.Emit(Info, []byte("lost\n")); err != nil || calls != 1 {
		t.Errorf("Emit soon after: %v after %d attempts, want a lost record and no attempt", err, calls)
	}
	s.last = s.last.Add(-redial)
	if err := s.Emit(Info, []byte("lost\n")); !errors.Is(err, fs.ErrNotExist) || calls != 2 {
		t.Errorf("Emit later: %v after %d attempts, want another attempt", err, calls)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
