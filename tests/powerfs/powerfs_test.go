package powerfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"sheepdog/tests/powerfs"
)

// A world is a mounted disk and the means to use it tersely. Its methods end
// the test when something fails that the test is not about.
type world struct {
	*testing.T
	disk *powerfs.FS
}

func mount(t *testing.T) world {
	t.Helper()
	if err := powerfs.Available(); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	disk, err := powerfs.Mount(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := disk.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return world{t, disk}
}

func (w world) path(name string) string { return filepath.Join(w.disk.Dir(), name) }

func (w world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w world) open(name string, flags int) *os.File {
	w.Helper()
	f, err := os.OpenFile(w.path(name), flags, 0o640)
	w.must(err)
	w.Cleanup(func() { f.Close() })
	return f
}

// write replaces part of a file without syncing it.
func (w world) write(name, text string, off int64) *os.File {
	w.Helper()
	f := w.open(name, os.O_RDWR|os.O_CREATE)
	_, err := f.WriteAt([]byte(text), off)
	w.must(err)
	return f
}

// durable writes a file and syncs it and its directory.
func (w world) durable(name, text string) *os.File {
	w.Helper()
	f := w.write(name, text, 0)
	w.must(f.Sync())
	w.syncDir(filepath.Dir(name))
	return f
}

func (w world) syncDir(name string) {
	w.Helper()
	d, err := os.Open(w.path(name))
	w.must(err)
	defer d.Close()
	w.must(d.Sync())
}

// tree returns the contents of all files, and "/" for directories.
func (w world) tree() map[string]string {
	w.Helper()
	got := make(map[string]string)
	w.must(filepath.WalkDir(w.disk.Dir(), func(path string, e fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(w.disk.Dir(), path)
		switch {
		case err != nil:
			return err
		case rel == ".":
		case e.IsDir():
			got[rel] = "/"
		default:
			b, err := os.ReadFile(path)
			got[rel] = string(b)
			return err
		}
		return nil
	}))
	return got
}

func TestAfterACut(t *testing.T) {
	tests := []struct {
		name string
		do   func(w world)
		want map[string]string
	}{
		{"a write without a sync is forgotten", func(w world) {
			w.durable("a", "old")
			w.write("a", "new", 0)
		}, map[string]string{"a": "old"}},
		{"a synced write is kept", func(w world) {
			w.durable("a", "old")
			w.must(w.write("a", "newer", 0).Sync())
		}, map[string]string{"a": "newer"}},
		{"fdatasync keeps data and size", func(w world) {
			w.durable("a", "old")
			w.must(syscall.Fdatasync(int(w.write("a", "newer", 0).Fd())))
		}, map[string]string{"a": "newer"}},
		{"a write to a file opened with O_DSYNC is kept", func(w world) {
			w.durable("a", "old")
			_, err := w.open("a", os.O_RDWR|syscall.O_DSYNC).WriteAt([]byte("newer"), 0)
			w.must(err)
		}, map[string]string{"a": "newer"}},
		{"a synced file whose name was not synced is gone", func(w world) {
			w.must(w.write("a", "x", 0).Sync())
		}, map[string]string{}},
		{"a synced name of a file that was not synced is empty", func(w world) {
			w.write("a", "x", 0)
			w.syncDir(".")
		}, map[string]string{"a": ""}},
		{"an unlinked name comes back", func(w world) {
			w.durable("a", "x")
			w.must(os.Remove(w.path("a")))
		}, map[string]string{"a": "x"}},
		{"an unlinked name stays away once its directory is synced", func(w world) {
			w.durable("a", "x")
			w.must(os.Remove(w.path("a")))
			w.syncDir(".")
		}, map[string]string{}},
		{"a rename over a file is undone", func(w world) {
			w.durable("a", "old")
			w.durable("a.tmp", "new")
			w.must(os.Rename(w.path("a.tmp"), w.path("a")))
		}, map[string]string{"a": "old", "a.tmp": "new"}},
		{"a rename is kept whole by syncing its directory", func(w world) {
			w.durable("a", "old")
			w.must(w.write("a.tmp", "new", 0).Sync())
			w.must(os.Rename(w.path("a.tmp"), w.path("a")))
			w.syncDir(".")
		}, map[string]string{"a": "new"}},
		{"a rename between directories is kept by syncing one of them", func(w world) {
			w.must(os.Mkdir(w.path("d"), 0o750))
			w.must(os.Mkdir(w.path("e"), 0o750))
			w.syncDir(".")
			w.must(w.write("d/a", "x", 0).Sync())
			w.must(os.Rename(w.path("d/a"), w.path("e/b")))
			w.syncDir("e")
		}, map[string]string{"d": "/", "e": "/", "e/b": "x"}},
		{"a directory is kept by its parent, its names by itself", func(w world) {
			w.must(os.Mkdir(w.path("d"), 0o750))
			w.must(w.write("d/a", "x", 0).Sync())
			w.syncDir(".")
		}, map[string]string{"d": "/"}},
		{"a link is a name like any other", func(w world) {
			w.durable("a", "x")
			w.must(os.Link(w.path("a"), w.path("b")))
			w.syncDir(".")
			w.must(os.Link(w.path("a"), w.path("c")))
		}, map[string]string{"a": "x", "b": "x"}},
		{"a truncation is undone", func(w world) {
			w.must(w.durable("a", "0123456789").Truncate(4))
		}, map[string]string{"a": "0123456789"}},
		{"a synced truncation is kept and growing gives zeroes", func(w world) {
			f := w.durable("a", "0123456789")
			w.must(f.Truncate(4))
			w.must(f.Truncate(6))
			w.must(f.Sync())
		}, map[string]string{"a": "0123\x00\x00"}},
		{"a punched hole is undone", func(w world) {
			f := w.durable("a", string(bytes.Repeat([]byte{'x'}, 8192)))
			w.must(syscall.Fallocate(int(f.Fd()), 3, 0, 4096))
		}, map[string]string{"a": string(bytes.Repeat([]byte{'x'}, 8192))}},
		{"a synced hole is kept", func(w world) {
			f := w.durable("a", string(bytes.Repeat([]byte{'x'}, 8192)))
			w.must(syscall.Fallocate(int(f.Fd()), 3, 100, 8000))
			w.must(f.Sync())
		}, map[string]string{"a": string(slices.Concat(bytes.Repeat([]byte{'x'}, 100), make([]byte, 8000), bytes.Repeat([]byte{'x'}, 92)))}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := mount(t)
			tt.do(w)
			w.disk.Cut(0)
			if got := w.tree(); !maps.Equal(got, tt.want) {
				t.Errorf("after the cut there is %q, want %q", got, tt.want)
			}
			if w.disk.Cut(0); !maps.Equal(w.tree(), tt.want) {
				t.Errorf("a second cut changed something: %q", w.tree())
			}
		})
	}
}

func TestAttributesNeedAnFsync(t *testing.T) {
	w := mount(t)
	f := w.durable("a", "x")
	w.must(syscall.Setxattr(f.Name(), "user.epoch", []byte("1"), 0))
	w.must(f.Sync())
	w.must(syscall.Setxattr(f.Name(), "user.epoch", []byte("2"), 0))
	w.must(syscall.Fdatasync(int(f.Fd())))
	w.disk.Cut(0)
	var got [8]byte
	n, err := syscall.Getxattr(f.Name(), "user.epoch", got[:])
	w.must(err)
	if string(got[:n]) != "1" {
		t.Errorf("user.epoch is %q, want what the last fsync saw, 1", got[:n])
	}
}

func TestOpenFilesDieInACut(t *testing.T) {
	w := mount(t)
	f := w.durable("a", "x")
	d, err := os.Open(w.disk.Dir())
	w.must(err)
	defer d.Close()
	w.disk.Cut(0)
	if _, err := f.WriteAt([]byte("y"), 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("write: %v, want EIO", err)
	}
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("fsync: %v, want EIO", err)
	}
	if err := d.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("fsync of the directory: %v, want EIO", err)
	}
}

func TestASeedKeepsSomeOfWhatWasNotSynced(t *testing.T) {
	const pages = 16
	w := mount(t)
	kept, lost, names := 0, 0, make(map[string]int)
	for seed := uint64(1); seed <= 30; seed++ {
		w.must(os.RemoveAll(w.path("d")))
		w.must(os.Mkdir(w.path("d"), 0o750))
		w.syncDir(".")
		w.durable("d/a", string(bytes.Repeat([]byte{'o'}, pages*4096)))
		w.write("d/a", string(bytes.Repeat([]byte{'n'}, pages*4096)), 0)
		w.write("d/b", "x", 0)
		w.must(os.Rename(w.path("d/b"), w.path("d/c")))
		w.disk.Cut(seed)
		tree := w.tree()
		got := tree["d/a"]
		if len(got) != pages*4096 {
			t.Fatalf("seed %d: the file has %d bytes", seed, len(got))
		}
		for p := range pages {
			switch page := got[p*4096 : (p+1)*4096]; page {
			case string(bytes.Repeat([]byte{'o'}, 4096)):
				lost++
			case string(bytes.Repeat([]byte{'n'}, 4096)):
				kept++
			default:
				t.Fatalf("seed %d: page %d is torn", seed, p)
			}
		}
		_, b := tree["d/b"]
		_, c := tree["d/c"]
		names[fmt.Sprint(b, c)]++
	}
	if kept == 0 || lost == 0 {
		t.Errorf("%d pages kept and %d lost, want some of both", kept, lost)
	}
	if names["true true"] != 0 {
		t.Errorf("a rename left both names behind")
	}
	for _, want := range []string{"false false", "true false", "false true"} {
		if names[want] == 0 {
			t.Errorf("no cut gave %q for the names before and after the rename: %v", want, names)
		}
	}
}

func TestAFullDiskSaysSo(t *testing.T) {
	w := mount(t)
	w.disk.SetCapacity(10 * 4096)
	w.write("a", string(make([]byte, 8*4096)), 0)
	f := w.open("b", os.O_RDWR|os.O_CREATE)
	if _, err := f.Write(make([]byte, 3*4096)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a write beyond the capacity: %v, want ENOSPC", err)
	}
	var st syscall.Statfs_t
	w.must(syscall.Statfs(w.disk.Dir(), &st))
	if st.Blocks*uint64(st.Bsize) != 10*4096 || st.Bfree > 2 {
		t.Errorf("statfs says %d of %d blocks are free", st.Bfree, st.Blocks)
	}
	w.write("a", "overwriting needs no room", 0)
	w.must(syscall.Fallocate(int(w.open("a", os.O_RDWR).Fd()), 3, 0, 4*4096))
	_, err := f.WriteAt(make([]byte, 3*4096), 0)
	w.must(err)
}

func TestAReadOnlyDiskRefusesChanges(t *testing.T) {
	w := mount(t)
	f := w.durable("a", "x")
	w.disk.SetReadOnly(true)
	_, err := f.WriteAt([]byte("y"), 0)
	for what, err := range map[string]error{
		"write":  err,
		"create": os.WriteFile(w.path("b"), nil, 0o640),
		"mkdir":  os.Mkdir(w.path("d"), 0o750),
		"rename": os.Rename(w.path("a"), w.path("b")),
		"unlink": os.Remove(w.path("a")),
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v, want EROFS", what, err)
		}
	}
	w.disk.SetReadOnly(false)
	w.must(os.Remove(w.path("a")))
}

func TestSparseFiles(t *testing.T) {
	w := mount(t)
	f := w.write("a", "x", 1<<20)
	w.must(f.Truncate(4 << 20))
	st, err := f.Stat()
	w.must(err)
	if got := st.Sys().(*syscall.Stat_t).Blocks * 512; got != 4096 || st.Size() != 4<<20 {
		t.Errorf("the file has %d bytes in %d bytes of pages, want 4 MiB in one page", st.Size(), got)
	}
	for _, tt := range []struct{ whence, off, want int64 }{{3, 0, 1 << 20}, {4, 0, 0}, {4, 1 << 20, 1<<20 + 4096}} {
		got, err := f.Seek(tt.off, int(tt.whence))
		w.must(err)
		if got != tt.want {
			t.Errorf("seek to the next data (3) or hole (4): %d from %d is %d, want %d", tt.whence, tt.off, got, tt.want)
		}
	}
	if _, err := f.Seek(2<<20, 3); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("seek to data after the last: %v, want ENXIO", err)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 1<<20-1, 3))
	w.must(err)
	if string(b) != "\x00x\x00" {
		t.Errorf("around the byte there is %q", b)
	}
}

func TestLocksAreTheKernels(t *testing.T) {
	w := mount(t)
	a, b := w.write("a", "", 0), w.open("a", os.O_RDWR)
	w.must(syscall.Flock(int(a.Fd()), syscall.LOCK_EX))
	if err := syscall.Flock(int(b.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("a second lock: %v, want EWOULDBLOCK", err)
	}
}

func TestUsedCountsWhatCanBeReached(t *testing.T) {
	w := mount(t)
	w.durable("a", string(make([]byte, 5*4096)))
	w.must(os.Remove(w.path("a")))
	w.syncDir(".")
	w.disk.Cut(0)
	if got := w.disk.Used(); got != 0 {
		t.Errorf("an empty disk uses %d bytes", got)
	}
}
