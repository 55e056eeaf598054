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
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sheepdog/tests/harness"
)

// TestSheepfsCopySurvivesItsSheep lets cp write a disk and kills the sheep that the
// mount uses when it has written a part. What cp writes comes through a pipe, so
// that it cannot be through before.
func TestSheepfsCopySurvivesItsSheep(t *testing.T) {
	harness.Need(t, "cp")
	for _, test := range []struct {
		about string
		shift string
		args  []string
	}{
		{"directly", "22", nil},
		{"through the page cache, small objects", "20", []string{"-k"}},
	} {
		t.Run(test.about, func(t *testing.T) {
			c := sheepfsCluster(t)
			m := mountSheepfs(t, c, c.Nodes[0], test.args...)
			const size = 192 << 20
			c.Dog("vdi", "create", "-z", test.shift, "disk", fmt.Sprint(size))
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
			defer cancel()
			cp := exec.CommandContext(ctx, "cp", "/dev/stdin", m.path("volume/disk"))
			var said bytes.Buffer
			cp.Stdin, cp.Stderr = r, &said
			if err := cp.Start(); err != nil {
				t.Fatal(err)
			}
			r.Close()
			dead := make(chan struct{})
			want := sha256.New()
			source, buf := rand.NewChaCha8([32]byte{3}), make([]byte, 1<<20)
			for i := range size / len(buf) {
				if i == 70 { // it dies while cp goes on
					c.Nodes[0].Doomed = true
					go func() {
						defer close(dead)
						c.Nodes[0].Kill()
					}()
				}
				source.Read(buf)
				want.Write(buf)
				if _, err := w.Write(buf); err != nil {
					t.Fatalf("cp took %d MiB: %v", i, err)
				}
			}
			w.Close()
			if err := cp.Wait(); err != nil {
				t.Errorf("cp: %v\n%s", err, said.String())
			}
			<-dead
			f, err := os.Open(m.path("volume/disk"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			for about, from := range map[string]io.Reader{
				"through the mount": f,
				"by dog":            strings.NewReader(c.DogAt(c.Nodes[2], nil, "vdi", "read", "disk")),
			} {
				got := sha256.New()
				if _, err := io.Copy(got, from); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
					t.Errorf("%s the disk has another checksum", about)
				}
			}
		})
	}
}

// TestSheepfsHandsTheLockOn has a sheep die that holds the lock for a mount: the
// mount takes it at another one, writes on, and nobody else can meanwhile.
func TestSheepfsHandsTheLockOn(t *testing.T) {
	c := sheepfsCluster(t, "-l")
	m, other := mountSheepfs(t, c, c.Nodes[0]), mountSheepfs(t, c, c.Nodes[1])
	m.must("vdi/create", "disk 8M\n")
	f, err := os.OpenFile(m.path("volume/disk"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("before"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(m.path("vdi/disk/snapshots/one"), 0o755); err != nil { // the head and its lock move on
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("after"), 4096); err != nil {
		t.Fatal(err)
	}
	c.Nodes[0].Kill()
	c.WaitRunning()
	if _, err := f.WriteAt([]byte("later"), 8192); err != nil {
		t.Fatal(err)
	}
	if g, err := os.OpenFile(other.path("volume/disk"), os.O_RDWR, 0); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("open by another mount: %v, want EBUSY", err)
		g.Close()
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 12<<10)
	g, err := os.Open(other.path("volume/disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := g.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]string{0: "before", 4096: "after", 8192: "later"} {
		if got := string(p[at:][:len(want)]); got != want {
			t.Errorf("at %d there is %q, want %q", at, got, want)
		}
	}
	if lock := m.read("vdi/disk/lock"); !slices.Contains([]string{"locked " + c.Nodes[1].Addr() + "\n", "locked " + c.Nodes[2].Addr() + "\n"}, lock) {
		t.Errorf("the lock is %q", lock)
	}
}
