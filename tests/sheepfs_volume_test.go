package tests_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sheepdog/tests/harness"
)

// run runs a program for at most a minute and returns its output.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// A modelDisk is a volume and what it should have.
type modelDisk struct {
	t     *testing.T
	f     *os.File
	want  []byte
	limit int64 // of its size
	rand  *rand.Rand
}

// span returns a random piece of the disk, more often at the borders of blocks.
func (d *modelDisk) span() (off, n int64) {
	n = 1 + d.rand.Int64N(256<<10)
	off = d.rand.Int64N(int64(len(d.want)))
	if d.rand.IntN(2) == 0 {
		off, n = off&^4095, (n+4095)&^4095
	}
	return off, min(n, int64(len(d.want))-off)
}

// step does one thing to both, or compares them.
func (d *modelDisk) step() error {
	off, n := d.span()
	switch op := d.rand.IntN(100); {
	case op < 35:
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(d.rand.Uint32())
		}
		copy(d.want[off:], p)
		_, err := d.f.WriteAt(p, off)
		return wrap("write", off, n, err)
	case op < 65:
		return d.compare(off, n)
	case op < 75:
		clear(d.want[off : off+n])
		return wrap("punch", off, n, unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n))
	case op < 82:
		clear(d.want[off : off+n])
		return wrap("zero", off, n, unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, n))
	case op < 86:
		return wrap("sync", 0, 0, d.f.Sync())
	case op < 88:
		return d.larger()
	case op < 94:
		return d.mapped(off, n)
	default:
		return d.seek(off)
	}
}

func wrap(what string, off, n int64, err error) error {
	if err != nil {
		return fmt.Errorf("%s %d bytes at %d: %w", what, n, off, err)
	}
	return nil
}

func (d *modelDisk) compare(off, n int64) error {
	got := make([]byte, n)
	if _, err := d.f.ReadAt(got, off); err != nil {
		return wrap("read", off, n, err)
	}
	return sameBytes(got, d.want[off:off+n], off)
}

func sameBytes(got, want []byte, off int64) error {
	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				return fmt.Errorf("byte %d is %#x, want %#x", off+int64(i), got[i], want[i])
			}
		}
	}
	return nil
}

// larger grows the disk by some MiB.
func (d *modelDisk) larger() error {
	size := int64(len(d.want)) + d.rand.Int64N(4)<<20
	if size > d.limit {
		return nil
	}
	if err := d.f.Truncate(size); err != nil {
		return wrap("truncate", 0, size, err)
	}
	d.want = append(d.want, make([]byte, size-int64(len(d.want)))...)
	info, err := d.f.Stat()
	if err == nil && info.Size() != size {
		err = fmt.Errorf("after growing to %d the size is %d", size, info.Size())
	}
	return err
}

// mapped changes some bytes through memory.
func (d *modelDisk) mapped(off, n int64) error {
	start := off &^ 4095
	p, err := unix.Mmap(int(d.f.Fd()), start, int(off+n-start), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return wrap("map", off, n, err)
	}
	defer unix.Munmap(p)
	p = p[:off+n-start]
	if err := sameBytes(p, d.want[start:off+n], start); err != nil {
		return fmt.Errorf("mapped: %w", err)
	}
	for i := off - start; i < int64(len(p)); i += 1 + d.rand.Int64N(8192) {
		p[i] = byte(d.rand.Uint32())
		d.want[start+i] = p[i]
	}
	return wrap("sync the map", off, n, unix.Msync(p, unix.MS_SYNC))
}

// seek checks that what is said to be a hole is zero.
func (d *modelDisk) seek(off int64) error {
	data, err := unix.Seek(int(d.f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, syscall.ENXIO) {
		data, err = int64(len(d.want)), nil
	}
	if err != nil || data < off {
		return fmt.Errorf("data after %d is at %d: %w", off, data, err)
	}
	if i := bytes.IndexFunc(d.want[off:data], func(r rune) bool { return r != 0 }); i >= 0 {
		return fmt.Errorf("byte %d is in a hole from %d to %d and not 0", off+int64(i), off, data)
	}
	hole, err := unix.Seek(int(d.f.Fd()), off, unix.SEEK_HOLE)
	if err != nil || hole < off || hole > int64(len(d.want)) {
		return fmt.Errorf("hole after %d is at %d: %w", off, hole, err)
	}
	return nil
}

func TestSheepfsVolumeModel(t *testing.T) {
	c := sheepfsCluster(t)
	seed := seed(t)
	for _, run := range []struct {
		about string
		shift int // 0 for a hyper volume
		steps int
		args  []string
	}{
		{"objects of 4 MiB", 22, 10000, nil},
		{"objects of 4 MiB, page cache", 22, 2000, []string{"-k"}},
		{"objects of 1 MiB", 20, 10000, nil},
		{"objects of 16 MiB", 24, 10000, nil},
		{"a hyper volume", 0, 3000, nil},
	} {
		t.Run(run.about, func(t *testing.T) {
			m := mountSheepfs(t, c, c.Nodes[0], run.args...)
			name := fmt.Sprintf("model%d%d", run.shift, len(run.args))
			const size, limit = 17<<20 + 4096, 40 << 20
			kind := []string{"-z", fmt.Sprint(run.shift)}
			if run.shift == 0 {
				kind = []string{"-y"}
			}
			c.Dog(append(append([]string{"vdi", "create"}, kind...), name, fmt.Sprint(size))...)
			steps := run.steps
			if testing.Short() {
				steps /= 10
			}
			f, err := os.OpenFile(m.path("volume/"+name), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			d := &modelDisk{t: t, f: f, want: make([]byte, size), limit: limit, rand: rand.New(rand.NewPCG(uint64(seed), uint64(run.shift)))}
			for i := range steps {
				if err := d.step(); err != nil {
					t.Fatalf("seed %d, step %d: %v", seed, i, err)
				}
			}
			if err := d.compare(0, int64(len(d.want))); err != nil {
				t.Errorf("seed %d, at the end: %v", seed, err)
			}
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			got := c.DogAt(c.Nodes[2], nil, "vdi", "read", name)
			if err := sameBytes([]byte(got), d.want, 0); err != nil || len(got) != len(d.want) {
				t.Errorf("seed %d, read through another sheep: %d bytes, want %d: %v", seed, len(got), len(d.want), err)
			}
		})
	}
}

func TestSheepfsVolumeFileSystem(t *testing.T) {
	tools := harness.Need(t, "mkfs.ext4", "mount", "umount", "cp", "diff", "fsck.ext4")
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0])
	m.must("vdi/create", "fs 96M\n")
	volume := m.path("volume/fs")
	run(t, tools[0], "-q", "-F", volume)
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	source := root + "/sheep"
	inner := loopMount(t, volume)
	run(t, tools[3], "-a", source, inner.dir+"/copy")
	run(t, tools[4], "-r", source, inner.dir+"/copy")
	inner.unmount()
	run(t, tools[5], "-f", "-n", volume)

	other := mountSheepfs(t, c, c.Nodes[1])
	again := loopMount(t, other.path("volume/fs"))
	run(t, tools[4], "-r", source, again.dir+"/copy")
	again.unmount()
	c.Check("fs")

	if qemu := os.Getenv("QEMU_IMG_SHEEPDOG"); qemu != "" {
		if got := run(t, qemu, "compare", "-f", "raw", "-F", "raw", volume, urls(c, "fs")["tcp"]); !strings.Contains(got, "Images are identical.") {
			t.Errorf("QEMU says %q", got)
		}
	}
}

// A loop is a file system in a volume, mounted.
type loop struct {
	t    *testing.T
	dir  string
	once sync.Once
}

func loopMount(t *testing.T, volume string) *loop {
	t.Helper()
	l := &loop{t: t, dir: t.TempDir()}
	run(t, "mount", "-o", "loop", volume, l.dir)
	t.Cleanup(func() {
		l.once.Do(func() { exec.Command("umount", "-l", l.dir).Run() })
	})
	return l
}

func (l *loop) unmount() {
	l.t.Helper()
	l.once.Do(func() { run(l.t, "umount", l.dir) })
}

func TestSheepfsVolumeWithPrograms(t *testing.T) {
	harness.Need(t, "qemu-img", "cp", "dd", "cmp", "truncate")
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0])
	m.must("vdi/create", "disk 32M\n")
	image := c.Dir + "/image"
	content := make([]byte, 32<<20)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(content[3<<20 : 9<<20])
	r.Read(content[20<<20 : 21<<20])
	if err := os.WriteFile(image, content, 0o600); err != nil {
		t.Fatal(err)
	}
	volume := m.path("volume/disk")
	run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, volume)
	run(t, "cmp", image, volume)
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", volume, c.Dir+"/qcow2")
	run(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", c.Dir+"/qcow2", image)
	run(t, "dd", "if=/dev/urandom", "of="+volume, "bs=1M", "count=32", "conv=notrunc")
	run(t, "cp", "--sparse=always", image, volume) // what was there before goes
	run(t, "cmp", image, volume)
	if out := run(t, "qemu-img", "info", "-f", "raw", volume); !strings.Contains(out, "33554432 bytes") {
		t.Errorf("qemu-img info says\n%s", out)
	}
	run(t, "cp", "--sparse=always", volume, c.Dir+"/copy")
	run(t, "cmp", image, c.Dir+"/copy")
	var info syscall.Stat_t
	if err := syscall.Stat(c.Dir+"/copy", &info); err != nil || info.Blocks*512 > 16<<20 {
		t.Errorf("the sparse copy has %d blocks (%v)", info.Blocks, err)
	}
	// Two writers at once, each its half.
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), "dd", "if=/dev/zero", "of="+volume, "bs=1M", "count=16", fmt.Sprintf("seek=%d", 16*i), "conv=notrunc,fsync", "oflag=direct")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("dd: %v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	run(t, "cmp", "-n", "33554432", volume, "/dev/zero")
	run(t, "truncate", "-s", "40M", volume)
	if got := m.read("vdi/disk/size"); got != "41943040\n" {
		t.Errorf("after truncate the size is %q", got)
	}
	if err := os.Truncate(volume, 1<<20); err == nil {
		t.Error("a volume can be made smaller")
	}
}

func TestSheepfsVolumeFollowsTheDisk(t *testing.T) {
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0])
	c.Dog("vdi", "create", "disk", "8M")
	f, err := os.OpenFile(m.path("volume/disk"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	put := func(text string) {
		t.Helper()
		if _, err := f.WriteAt([]byte(text), 4096); err != nil {
			t.Fatalf("write %q: %v", text, err)
		}
		if err := f.Sync(); err != nil {
			t.Fatalf("sync %q: %v", text, err)
		}
	}
	for i, tag := range []string{"one", "two", "three"} {
		put(fmt.Sprint("content of ", i))
		c.DogAt(c.Nodes[i], nil, "vdi", "snapshot", "-s", tag, "disk")
	}
	put("content of 3")
	for i, volume := range []string{"disk@one", "disk@two", "disk:3", "disk"} {
		g, err := os.Open(m.path("volume/" + volume))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 12)
		if _, err := g.ReadAt(got, 4096); err != nil || string(got) != fmt.Sprint("content of ", i) {
			t.Errorf("%s has %q (%v)", volume, got, err)
		}
		g.Close()
	}
	if _, err := os.OpenFile(m.path("volume/disk@one"), os.O_WRONLY, 0); !errors.Is(err, syscall.EROFS) {
		t.Errorf("open of a snapshot for writing: %v, want EROFS", err)
	}
	for _, name := range []string{"nosuch", "disk@none", "disk:9"} {
		if _, err := os.Stat(m.path("volume/" + name)); !errors.Is(err, syscall.ENOENT) {
			t.Errorf("stat of %s: %v", name, err)
		}
	}
	c.Dog("vdi", "resize", "disk", "12M")
	if info, err := os.Stat(m.path("volume/disk")); err != nil || info.Size() != 12<<20 {
		t.Errorf("after a resize by dog stat gives %v, %v", info, err)
	}
	if _, err := f.WriteAt([]byte("end"), 12<<20-3); err != nil {
		t.Errorf("write into what is new: %v", err)
	}
	if n, err := f.WriteAt([]byte("beyond"), 12<<20-3); err == nil {
		t.Errorf("a write beyond the end wrote %d bytes", n)
	}

	m.must("vdi/mount", "disk@two\n")
	if got := strings.Join(m.names("volume"), " "); got != "disk disk@two" {
		t.Errorf("volume has %q", got)
	}
	m.must("vdi/mount", "disk@two\n") // once more is as well
	m.must("vdi/unmount", "disk@two\n")
	if err := m.write("vdi/unmount", "disk@two\n"); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("unmount of what is not mounted: %v, want EINVAL", err)
	}
	if got := strings.Join(m.names("volume"), " "); got != "disk" {
		t.Errorf("volume has %q", got)
	}
}

func TestSheepfsVolumeTakesTheLock(t *testing.T) {
	c := sheepfsCluster(t, "-l")
	here, there := mountSheepfs(t, c, c.Nodes[0]), mountSheepfs(t, c, c.Nodes[1])
	here.must("vdi/create", "disk 8M\n")
	f, err := os.OpenFile(here.path("volume/disk"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // again, if all is well
	if got, want := there.read("vdi/disk/lock"), "locked "+c.Nodes[0].Addr()+"\n"; got != want {
		t.Errorf("the lock is %q, want %q", got, want)
	}
	if g, err := os.OpenFile(there.path("volume/disk"), os.O_RDWR, 0); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("open of a locked disk for writing: %v, want EBUSY", err)
		g.Close()
	}
	if g, err := os.Open(there.path("volume/disk")); err != nil {
		t.Errorf("open of a locked disk for reading: %v", err)
	} else {
		g.Close()
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	c.Until("the lock to be free", func(context.Context) error {
		g, err := os.OpenFile(there.path("volume/disk"), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return g.Close()
	})
}

func TestSheepfsVolumeSurvivesItsSheep(t *testing.T) {
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0])
	m.must("vdi/create", "disk 128M\n")
	f, err := os.OpenFile(m.path("volume/disk"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := rand.NewChaCha8([32]byte{2})
	hash := sha256.New()
	buf := make([]byte, 256<<10)
	var killed sync.WaitGroup
	defer killed.Wait()
	for i := range 512 {
		if i == 200 { // and go on while it dies
			c.Nodes[0].Doomed = true
			killed.Go(c.Nodes[0].Kill)
		}
		r.Read(buf)
		hash.Write(buf)
		if _, err := f.WriteAt(buf, int64(i*len(buf))); err != nil {
			t.Fatalf("write number %d: %v", i, err)
		}
		if i%100 == 99 {
			if err := f.Sync(); err != nil {
				t.Fatalf("sync after write number %d: %v", i, err)
			}
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("%x", hash.Sum(nil))
	for about, read := range map[string]func() (io.Reader, error){
		"through the mount": func() (io.Reader, error) {
			_, err := f.Seek(0, io.SeekStart)
			return f, err
		},
		"by dog": func() (io.Reader, error) {
			return strings.NewReader(c.DogAt(c.Nodes[2], nil, "vdi", "read", "disk")), nil
		},
	} {
		from, err := read()
		if err != nil {
			t.Fatal(err)
		}
		hash := sha256.New()
		if _, err := io.Copy(hash, from); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", hash.Sum(nil)); got != want {
			t.Errorf("%s the disk has the checksum %s, want %s", about, got, want)
		}
	}
	m.read("node/list") // the tree has a connection of its own, and moves when it needs one
	if got := m.read("config/sheep_info"); got == c.Nodes[0].Addr()+"\n" {
		t.Errorf("it still asks %s", got)
	}
}

func TestSheepfsVolumeAtTheEnd(t *testing.T) {
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0], "-o", "patience=5")
	m.must("vdi/create", "disk 8M\n")
	f, err := os.OpenFile(m.path("volume/disk"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("not yet durable"), 0); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Unmount(m.dir, 0); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("umount of a tree in use: %v, want EBUSY", err)
	}
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := m.wait(30 * time.Second); code != 0 {
		t.Errorf("after SIGTERM the status is %d", code)
	}
	f.Close()
	if got := c.DogAt(c.Nodes[1], nil, "vdi", "read", "disk", "0", "15"); got != "not yet durable" {
		t.Errorf("after SIGTERM the disk has %q", got)
	}

	gone := mountSheepfs(t, c, c.Nodes[0], "-o", "patience=5")
	g, err := os.OpenFile(gone.path("volume/disk"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.WriteAt([]byte("lost"), 0); err != nil {
		t.Fatal(err)
	}
	c.Kill()
	started := time.Now()
	if err := g.Sync(); err == nil {
		t.Error("fsync succeeds without a cluster")
	}
	g.Close()
	if err := syscall.Unmount(gone.dir, 0); err != nil {
		t.Errorf("umount without a cluster: %v", err)
	}
	gone.wait(40 * time.Second)
	if took := time.Since(started); took > 40*time.Second {
		t.Errorf("the end took %v without a cluster", took)
	}
}
