package tests_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sheepdog/tests/harness"
	"sheepdog/tests/load"
	"sheepdog/tests/native"
)

// A damage spoils the file of an object.
type damage struct {
	name string
	do   func(t *testing.T, file, older string)
	loud bool // whoever reads the copy notices, without a check
}

var damages = []damage{
	{"a bit has flipped", func(t *testing.T, file, _ string) { spoil(t, file, 12345, 1) }, false},
	{"a block is lost", func(t *testing.T, file, _ string) { spoil(t, file, 8192, 4096) }, false},
	{"its end is missing", func(t *testing.T, file, _ string) {
		if err := os.Truncate(file, 1<<20); err != nil {
			t.Fatal(err)
		}
	}, true},
	{"it is empty", func(t *testing.T, file, _ string) {
		if err := os.Truncate(file, 0); err != nil {
			t.Fatal(err)
		}
	}, true},
	{"it is gone", func(t *testing.T, file, _ string) {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}, true},
	{"it is an older one", func(t *testing.T, file, older string) {
		copyFile(t, older, older+".copy")
		if err := os.Rename(older+".copy", file); err != nil {
			t.Fatal(err)
		}
	}, false},
}

// copyFile copies a file with its attributes.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
}

// spoil inverts n bytes of a file.
func spoil(t *testing.T, file string, off int64, n int) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, n)
	if _, err := f.ReadAt(p, off); err != nil {
		t.Fatal(err)
	}
	for i := range p {
		p[i] ^= 0x10
	}
	if _, err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

// openFiles returns the names of the files that a process has open.
func openFiles(t *testing.T, pid int) (names []string) {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if name, err := os.Readlink(link); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// TestDamagedCopiesAreRepaired spoils a copy of an object, under a node that runs
// and under one that does not. A check finds it, repairs it from the others, and
// finds nothing the next time; who reads meanwhile gets an answer.
func TestDamagedCopiesAreRepaired(t *testing.T) {
	c := harness.Start(t, harness.Config{})
	c.Format(3)
	const name = "disk"
	victim := c.Nodes[1]
	c.Dog("vdi", "create", name, "8M")
	open := func(n *harness.Node) *native.Disk {
		t.Helper()
		d, err := native.Open(t.Context(), native.Config{Servers: []string{n.Addr()}, WriteBack: true}, name)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	content := func(version uint64) []byte {
		p := make([]byte, 8<<20)
		for i := range len(p) / load.BlockSize {
			load.Fill(p[i*load.BlockSize:][:load.BlockSize], 1, int64(i), version)
		}
		return p
	}
	fill := func(version uint64) {
		t.Helper()
		d := open(victim) // who owns it reads its own copy
		defer d.Close()
		if err := errors.Join(d.WriteAt(t.Context(), content(version), 0), d.Flush(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	want := content(2)
	read := func(n *harness.Node) {
		t.Helper()
		d := open(n)
		defer d.Close()
		p := make([]byte, len(want))
		if err := d.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, want) {
			t.Fatalf("what node %d has is wrong, %v", n.ID, err)
		}
	}
	files := func() []string {
		t.Helper()
		all, err := filepath.Glob(filepath.Join(victim.Dir, "obj", "00*"))
		if err != nil || len(all) != 2 {
			t.Fatalf("got the objects %q, %v; want two", all, err)
		}
		return all
	}
	fill(1)
	victim.Stop()
	file := files()[1]
	older := filepath.Join(t.TempDir(), "older") // with its attributes
	copyFile(t, file, older)
	victim.Start()
	c.WaitRecovered()
	fill(2)
	for _, running := range []bool{true, false} {
		for _, d := range damages {
			t.Run(fmt.Sprintf("%s, running %t", d.name, running), func(t *testing.T) {
				if !running {
					victim.Stop()
				}
				d.do(t, file, older)
				if !running {
					victim.Start()
					c.WaitRecovered()
				}
				if d.loud {
					read(victim)
				}
				r := c.RunDog(c.Nodes[0], nil, "vdi", "check", name)
				if r.Code != 0 || !strings.Contains(r.Stdout, "finish check&repair") {
					t.Errorf("check: status %d\n%s%s", r.Code, r.Stdout, r.Stderr)
				}
				t.Logf("%s", r.Stdout)
				c.Check(name)
				for _, n := range c.Nodes {
					read(n)
				}
			})
		}
	}
	for contact, use := range map[string]func(){"read": func() { read(victim) }, "written": func() { fill(2) }} {
		t.Run("it is gone when it is "+contact+", and was closed", func(t *testing.T) {
			c.Until("the node to have it closed", func(context.Context) error {
				c.Shutdown()
				c.StartAll()
				c.WaitRecovered()
				if slices.Contains(openFiles(t, victim.Pid()), file) {
					return errors.New("it was compared with the others") // which it is the next time no more
				}
				return nil
			})
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			use()
			c.Until("the copy to be made again", func(context.Context) error {
				_, err := os.Stat(file)
				return err
			})
			c.WaitRecovered()
			c.Check(name)
			for _, n := range c.Nodes {
				read(n)
			}
		})
	}
	t.Run("an inode, of a node that starts with it", func(t *testing.T) {
		inodes, err := filepath.Glob(filepath.Join(victim.Dir, "obj", "80*"))
		if err != nil || len(inodes) != 1 {
			t.Fatalf("got the inodes %q, %v; want one", inodes, err)
		}
		for _, size := range []int64{100, 5000} {
			victim.Stop()
			if err := os.Truncate(inodes[0], size); err != nil {
				t.Fatal(err)
			}
			victim.Start()
			c.WaitRecovered()
			c.Check(name)
			read(victim)
		}
	})
}

// TestTwoCopiesThatDiffer has a bit flip in one of two copies. Nobody can tell which
// is right, so a check overwrites neither, until a person lets it.
func TestTwoCopiesThatDiffer(t *testing.T) {
	c := harness.Start(t, harness.Config{Nodes: 2})
	c.Format(2)
	c.Dog("vdi", "create", "disk", "4M")
	want := bytes.Repeat([]byte("something"), 4<<20/9)
	c.DogAt(c.Nodes[0], want, "vdi", "write", "disk")
	var files []string
	for _, n := range c.Nodes {
		all, err := filepath.Glob(filepath.Join(n.Dir, "obj", "00*"))
		if err != nil || len(all) != 1 {
			t.Fatalf("got the objects %q, %v; want one", all, err)
		}
		files = append(files, all...)
	}
	spoil(t, files[1], 12345, 1)
	id := filepath.Base(files[1])
	for range 2 {
		r := c.RunDog(c.Nodes[0], nil, "vdi", "check", "disk")
		if r.Code != 1 || !strings.Contains(r.Stderr, "no majority of "+id) || !strings.Contains(r.Stderr, "equally new") || strings.Contains(r.Stdout, "fixed") {
			t.Fatalf("check: %+v", r)
		}
	}
	out := c.Dog("vdi", "check", "-f", "-v", "disk")
	if !strings.Contains(out, "fixed replica "+id+" at "+c.Nodes[1].Addr()+" by the copy of "+c.Nodes[0].Addr()) {
		t.Errorf("check -f says\n%s", out)
	}
	c.Check("disk")
	for _, n := range c.Nodes {
		if got := c.DogAt(n, nil, "vdi", "read", "disk"); !strings.HasPrefix(got, string(want)) {
			t.Errorf("what node %d reads is wrong", n.ID)
		}
	}
}
