package tests_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sheepdog/tests/harness"
)

// A sheepfsMount is a tree that a process of its own serves. This process may
// touch it; when the server dies, or after a while, everything on it ends.
type sheepfsMount struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has ended
	log    string
}

// sheepfsProgram returns the path of sheepfs.
func sheepfsProgram(t *testing.T) string {
	t.Helper()
	if err := syscall.Access("/dev/fuse", 6); err != nil {
		t.Skipf("/dev/fuse: %v", err)
	}
	if p := os.Getenv("SHEEPFS_PROGRAM"); p != "" {
		return p
	}
	return filepath.Join(filepath.Dir(harness.Build(t).Sheep), "sheepfs")
}

// sheepfsTime bounds how long a mount of a test may live, so that a server that
// does not answer cannot hang the test.
const sheepfsTime = 2 * time.Minute

// mountSheepfs mounts the cluster through node n and unmounts it with the test.
func mountSheepfs(t *testing.T, c *harness.Cluster, n *harness.Node, args ...string) *sheepfsMount {
	t.Helper()
	m := startSheepfs(t, c, append([]string{"-p", fmt.Sprint(n.Port.Number)}, args...)...)
	deadline := time.Now().Add(30 * time.Second)
	for !isMounted(m.dir) {
		select {
		case <-m.exited:
			t.Fatalf("sheepfs ended:\n%s", m.Log())
		case <-time.After(10 * time.Millisecond): // between two looks at the table of mounts
		}
		if time.Now().After(deadline) {
			t.Fatalf("sheepfs does not mount:\n%s", m.Log())
		}
	}
	return m
}

// startSheepfs starts sheepfs in the foreground and does not wait for the mount.
func startSheepfs(t *testing.T, c *harness.Cluster, args ...string) *sheepfsMount {
	t.Helper()
	dir, err := os.MkdirTemp(c.Dir, "mnt")
	if err != nil {
		t.Fatal(err)
	}
	m := &sheepfsMount{t: t, dir: dir, exited: make(chan struct{}), log: dir + ".log"}
	log, err := os.Create(m.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	m.cmd = exec.Command(sheepfsProgram(t), append(append([]string{"-f"}, args...), dir)...)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	if err := harness.Spawn(m.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		m.cmd.Wait()
		close(m.exited)
	}()
	watchdog := time.AfterFunc(sheepfsTime, func() { harness.KillGroup(m.cmd) })
	t.Cleanup(func() {
		watchdog.Stop()
		syscall.Unmount(dir, syscall.MNT_DETACH) // fails if the test has done it
		select {
		case <-m.exited:
		case <-time.After(20 * time.Second):
			t.Errorf("sheepfs does not end when it is unmounted:\n%s", m.Log())
		}
		harness.KillGroup(m.cmd)
		<-m.exited
		for _, cry := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
			if strings.Contains(m.Log(), cry) {
				t.Errorf("sheepfs: %s", m.Log())
			}
		}
		if t.Failed() {
			t.Logf("log of sheepfs:\n%s", m.Log())
		}
	})
	return m
}

// isMounted reports whether something is mounted on dir.
func isMounted(dir string) bool {
	mounts, err := os.ReadFile("/proc/self/mounts")
	return err == nil && bytes.Contains(mounts, []byte(" "+dir+" fuse.sheepfs "))
}

// Log returns what the server has logged.
func (m *sheepfsMount) Log() string {
	b, err := os.ReadFile(m.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// wait waits until the server has ended and returns its exit status.
func (m *sheepfsMount) wait(patience time.Duration) int {
	m.t.Helper()
	select {
	case <-m.exited:
		return m.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		m.t.Fatalf("sheepfs does not end:\n%s", m.Log())
		return -1
	}
}

func (m *sheepfsMount) path(name string) string { return filepath.Join(m.dir, name) }

// read returns the content of a file.
func (m *sheepfsMount) read(name string) string {
	m.t.Helper()
	b, err := os.ReadFile(m.path(name))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

// write writes text into a file as a shell does, and returns the error of the
// write or of the close.
func (m *sheepfsMount) write(name, text string) error {
	m.t.Helper()
	f, err := os.OpenFile(m.path(name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// must fails the test if text cannot be written.
func (m *sheepfsMount) must(name, text string) {
	m.t.Helper()
	if err := m.write(name, text); err != nil {
		m.t.Fatalf("write %q to %s: %v; %s", text, name, err, m.read(name))
	}
}

// names returns what a directory has.
func (m *sheepfsMount) names(dir string) []string {
	m.t.Helper()
	entries, err := os.ReadDir(m.path(dir))
	if err != nil {
		m.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// sheepfsCluster starts three formatted nodes.
func sheepfsCluster(t *testing.T, args ...string) *harness.Cluster {
	t.Helper()
	sheepfsProgram(t)
	c := harness.Start(t, harness.Config{})
	c.Format(2, args...)
	return c
}

func TestSheepfsShowsWhatDogPrints(t *testing.T) {
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[1])
	c.Dog("vdi", "create", "small", "10M")
	c.Dog("vdi", "create", "with space", "5G")
	c.DogAt(c.Nodes[0], bytes.Repeat([]byte("x"), 5<<20), "vdi", "write", "small", "0", "5242880")
	c.Dog("vdi", "snapshot", "-s", "tag1", "small")
	c.Dog("vdi", "clone", "-s", "tag1", "small", "copy")
	for _, show := range []struct {
		file string
		dog  []string
	}{
		{"cluster/info", []string{"cluster", "info"}},
		{"node/list", []string{"node", "list"}},
		{"node/info", []string{"node", "info"}},
		{"vdi/list", []string{"vdi", "list"}},
		{"node/" + c.Nodes[1].Addr() + "/md", []string{"node", "md", "info"}},
	} {
		for try := 1; ; try++ { // the space of the nodes may change in between
			got, want := m.read(show.file), c.DogAt(c.Nodes[1], nil, show.dog...)
			if got == want {
				break
			}
			if try == 5 {
				t.Errorf("%s has\n%swhile dog %s prints\n%s", show.file, got, strings.Join(show.dog, " "), want)
				break
			}
		}
	}
	if got, want := m.read("config/sheep_info"), c.Nodes[1].Addr()+"\n"; got != want {
		t.Errorf("config/sheep_info has %q, want %q", got, want)
	}
}

func TestSheepfsTree(t *testing.T) {
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0])
	m.must("vdi/create", "disk 8M\n")
	if err := os.Mkdir(m.path("vdi/disk/snapshots/one"), 0o777); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := filepath.WalkDir(m.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(m.dir, path)
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if d.IsDir() != info.IsDir() || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		if !d.IsDir() && !strings.HasPrefix(name, "volume/") {
			if b, err := os.ReadFile(path); err != nil || len(b) == 0 && info.Mode().Perm()&0o200 == 0 {
				t.Errorf("read %s: %d bytes, %v", name, len(b), err)
			}
		}
		got = append(got, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		".", "cluster", "cluster/epochs", "cluster/health", "cluster/info",
		"config", "config/object_cache", "config/page_cache", "config/sheep_info", "node", "node/info", "node/list",
		"vdi", "vdi/create", "vdi/list", "vdi/mount", "vdi/unmount",
		"vdi/disk", "vdi/disk/info", "vdi/disk/info.json", "vdi/disk/lock", "vdi/disk/objects", "vdi/disk/size", "vdi/disk/snapshots",
		"vdi/disk/snapshots/one", "vdi/disk/snapshots/one/info", "vdi/disk/snapshots/one/info.json", "vdi/disk/snapshots/one/objects",
		"volume", "volume/disk",
	}
	for _, n := range c.Nodes {
		dir := "node/" + n.Addr()
		want = append(want, dir, dir+"/info", dir+"/md", dir+"/recovery", dir+"/stat")
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the tree is\n%q, want\n%q", got, want)
	}
	if strings.Count(m.read("vdi/disk/objects"), "\n") != 2 { // the header and the inode
		t.Errorf("objects of an empty disk:\n%s", m.read("vdi/disk/objects"))
	}
}

func TestSheepfsCreatesDisks(t *testing.T) {
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0])
	trap := filepath.Join(c.Dir, "trap")
	long := strings.Repeat("n", 255)
	for _, create := range []struct {
		about, text string
		name        string // of the disk that is made
		errno       syscall.Errno
		reason      string
	}{
		{about: "a line", text: "plain 10M\n", name: "plain"},
		{about: "a line without its end", text: "noend 10M", name: "noend"},
		{about: "blanks between the words", text: "  blanks\t 1M   3 \n", name: "blanks"},
		{about: "a name with blanks", text: "with\\ two\\ blanks 1M\n", name: "with two blanks"},
		{about: "a name for a shell", text: "$(touch\\ " + trap + ");`touch\\ " + trap + "` 1M\n", name: "$(touch " + trap + ");`touch " + trap + "`"},
		{about: "a name of 255 bytes", text: long + " 1M\n", name: long},
		{about: "a name that is no UTF-8", text: "\xff\xfe 1M\n", name: "\xff\xfe"},
		{about: "a name for a path", text: "../../etc/x 1M\n", name: "../../etc/x"},
		{about: "the same name again", text: "plain 10M\n", errno: syscall.EEXIST, reason: "VDI exists already"},
		{about: "a name of 256 bytes", text: long + "n 1M\n", errno: syscall.EINVAL, reason: "255"},
		{about: "no size", text: "nosize\n", errno: syscall.EINVAL, reason: "NAME SIZE"},
		{about: "an empty line", text: "\n", errno: syscall.EINVAL, reason: "NAME SIZE"},
		{about: "too many words", text: "a 1M 2 3\n", errno: syscall.EINVAL, reason: "NAME SIZE"},
		{about: "a size that is none", text: "a 1GB\n", errno: syscall.EINVAL, reason: "size"},
		{about: "a negative size", text: "a -1\n", errno: syscall.EINVAL, reason: "size"},
		{about: "a size beyond all", text: "a 5T\n", errno: syscall.EINVAL, reason: "4.0 TB"},
		{about: "no copies", text: "a 1M 0\n", errno: syscall.EINVAL, reason: "copies"},
		{about: "words for copies", text: "a 1M x\n", errno: syscall.EINVAL, reason: "redundancy"},
		{about: "a byte 0", text: "a\x00b 1M\n", errno: syscall.EINVAL, reason: "byte 0"},
		{about: "a shell's work", text: "a; touch " + trap + " 1M\n", errno: syscall.EINVAL, reason: "NAME SIZE"},
		{about: "a backslash at the end", text: "a 1M\\\n", errno: syscall.EINVAL, reason: "backslash"},
		{about: "a line of 2 KiB", text: strings.Repeat("x", 2048) + "\n", errno: syscall.EINVAL, reason: "at most"},
	} {
		t.Run(create.about, func(t *testing.T) {
			err := m.write("vdi/create", create.text)
			if create.errno != 0 && !errors.Is(err, create.errno) || create.errno == 0 && err != nil {
				t.Fatalf("got error %v, want %v", err, create.errno)
			}
			reason := m.read("vdi/create")
			if create.errno == 0 && reason != "" || !strings.Contains(reason, create.reason) || strings.Count(reason, "\n") > 1 {
				t.Errorf("afterwards the file has %q, want words like %q", reason, create.reason)
			}
			if create.name != "" && c.RunDog(c.Nodes[0], nil, "vdi", "list", "-r", create.name).Stdout == "" {
				t.Errorf("there is no disk %q", create.name)
			}
		})
	}
	if _, err := os.Stat(trap); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a name was carried out by a shell: %v", err)
	}
	if got := strings.Count(c.Dog("vdi", "list", "-r"), "\n"); got != 8 {
		t.Errorf("there are %d disks, want 8:\n%s", got, c.Dog("vdi", "list", "-r"))
	}
	m.must("vdi/create", "first 1M\nsecond 2M\nthird 3M") // three lines at once, the last ends with the file
	names := m.names("vdi")
	for _, name := range []string{"first", "second", "third", "with two blanks", long} {
		if !slices.Contains(names, name) {
			t.Errorf("vdi lacks %q: %q", name, names)
		}
	}
	if slices.Contains(names, "../../etc/x") {
		t.Error("vdi lists a name with a slash")
	}
}

func TestSheepfsMakesDisksLarger(t *testing.T) {
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0])
	c.Dog("vdi", "create", "disk", "10M")
	for _, resize := range []struct {
		text  string
		size  string
		errno syscall.Errno
	}{
		{text: "20M\n", size: "20971520\n"},
		{text: "20971520", size: "20971520\n"},
		{text: " 30M \n", size: "31457280\n"},
		{text: "10M\n", size: "31457280\n", errno: syscall.EINVAL},
		{text: "large\n", size: "31457280\n", errno: syscall.EINVAL},
		{text: "-1\n", size: "31457280\n", errno: syscall.EINVAL},
		{text: "5T\n", size: "31457280\n", errno: syscall.EINVAL},
		{text: "1M; reboot\n", size: "31457280\n", errno: syscall.EINVAL},
		{text: "40M\n", size: "41943040\n"},
	} {
		err := m.write("vdi/disk/size", resize.text)
		if resize.errno != 0 && !errors.Is(err, resize.errno) || resize.errno == 0 && err != nil {
			t.Errorf("write %q: got error %v, want %v", resize.text, err, resize.errno)
		}
		got := m.read("vdi/disk/size")
		size, reason, _ := strings.Cut(got, "error: ")
		if size != resize.size || (reason != "") != (resize.errno != 0) {
			t.Errorf("after %q the size is %q, want %q", resize.text, got, resize.size)
		}
	}
	c.Dog("vdi", "resize", "disk", "50M")
	if got := m.read("vdi/disk/size"); got != "52428800\n" {
		t.Errorf("after a resize by dog the size is %q", got)
	}
	if got := c.Dog("vdi", "list", "-r", "disk"); !strings.Contains(got, " 52428800 ") {
		t.Errorf("dog lists %s", got)
	}
}

func TestSheepfsSnapshots(t *testing.T) {
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0])
	c.Dog("vdi", "create", "disk", "10M")
	dir := "vdi/disk/snapshots"
	for i, tag := range []string{"one", "two", "with blank"} {
		c.DogAt(c.Nodes[0], bytes.Repeat([]byte{byte('a' + i)}, 4096), "vdi", "write", "disk", "0", "4096")
		if err := os.Mkdir(m.path(dir+"/"+tag), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c.Dog("vdi", "snapshot", "disk") // without a tag
	if got, want := m.names(dir), []string{"4", "one", "two", "with blank"}; !slices.Equal(got, want) {
		t.Errorf("the snapshots are %q, want %q", got, want)
	}
	for i, tag := range []string{"one", "two", "with blank"} {
		got := c.DogAt(c.Nodes[1], nil, "vdi", "read", "-s", tag, "disk", "0", "1")
		if got != string(rune('a'+i)) {
			t.Errorf("snapshot %s begins with %q", tag, got)
		}
		if info := m.read(dir + "/" + tag + "/info"); !strings.Contains(info, "Tag: "+tag+"\n") || !strings.Contains(info, fmt.Sprintf("Snapshot id: %d\n", i+1)) {
			t.Errorf("info of %s:\n%s", tag, info)
		}
	}
	for _, refused := range []struct {
		op    func(string) error
		name  string
		errno syscall.Errno
	}{
		{mkdir, dir + "/one", syscall.EEXIST},
		{mkdir, dir + "/5", syscall.EINVAL},
		{mkdir, dir + "/" + strings.Repeat("t", 256), syscall.ENAMETOOLONG},
		{mkdir, "vdi/new", syscall.EPERM},
		{mkdir, "vdi/nosuch/snapshots/x", syscall.ENOENT},
		{mkdir, "node/x", syscall.EPERM},
		{mkdir, "x", syscall.EPERM},
		{syscall.Rmdir, dir + "/none", syscall.ENOENT},
		{syscall.Rmdir, dir + "/9", syscall.ENOENT},
		{syscall.Rmdir, "vdi/disk", syscall.EPERM},
		{syscall.Rmdir, "vdi", syscall.EPERM},
		{syscall.Unlink, "vdi/list", syscall.EPERM},
		{syscall.Unlink, dir + "/one/info", syscall.EPERM},
	} {
		if err := refused.op(m.path(refused.name)); !errors.Is(err, refused.errno) {
			t.Errorf("%s: got error %v, want %v", refused.name, err, refused.errno)
		}
	}
	if hint := m.read("vdi/create"); !strings.Contains(hint, "echo NAME SIZE > vdi/create") {
		t.Errorf("the hint after a mkdir is %q", hint)
	}
	for _, label := range []string{"two", "4"} {
		if err := syscall.Rmdir(m.path(dir + "/" + label)); err != nil {
			t.Errorf("rmdir %s: %v", label, err)
		}
	}
	if got, want := m.names(dir), []string{"one", "with blank"}; !slices.Equal(got, want) {
		t.Errorf("the snapshots are %q, want %q", got, want)
	}
	c.Dog("vdi", "delete", "disk")
	if info := m.read(dir + "/one/info"); !strings.Contains(info, "Tag: one\n") {
		t.Errorf("info of a snapshot without its disk:\n%s", info)
	}
	if _, err := os.ReadFile(m.path("vdi/disk/info")); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("info of a deleted disk: %v", err)
	}
}

func mkdir(path string) error { return syscall.Mkdir(path, 0o755) }

func TestSheepfsBadInput(t *testing.T) {
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0])
	c.Dog("vdi", "create", "disk", "10M")
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(i*7 + i>>8)
	}
	inputs := map[string]string{
		"1 MiB of noise":      string(noise),
		"1 MiB of one letter": strings.Repeat("x", 1<<20),
		"1 MiB of zeroes":     strings.Repeat("\x00", 1<<20),
		"1 MiB of newlines":   strings.Repeat("\n", 1<<20),
		"a shell's work":      "$(reboot); `reboot` | reboot & reboot > /dev/null\n",
		"formats":             "%s%n%d%x\n",
		"a path":              "../../../etc/passwd\n",
		"escapes":             "\x1b[2J\x07\b\n",
	}
	before := c.Dog("vdi", "list", "-r")
	for _, file := range []string{"vdi/create", "vdi/mount", "vdi/unmount", "vdi/disk/size", "config/page_cache", "config/object_cache", "config/sheep_info"} {
		for about, input := range inputs {
			value, _, _ := strings.Cut(m.read(file), "error: ")
			err := m.write(file, input)
			want := syscall.EINVAL
			if file == "vdi/mount" && (about == "formats" || about == "escapes") {
				want = syscall.ENOENT // such a disk might exist
			}
			if !errors.Is(err, want) {
				t.Errorf("%s into %s: got error %v, want %v", about, file, err, want)
			}
			now, reason, _ := strings.Cut(m.read(file), "error: ")
			if now != value || reason == "" || len(reason) > 4096 || strings.ContainsAny(strings.TrimSuffix(reason, "\n"), "\x1b\x07\b\n\x00") {
				t.Errorf("after %s %s has %q and the reason %q, want %q and words", about, file, now, reason, value)
			}
		}
	}
	for _, file := range []string{"cluster/info", "cluster/health", "cluster/epochs", "node/list", "vdi/list", "vdi/disk/info", "vdi/disk/lock", "node/" + c.Nodes[0].Addr() + "/stat"} {
		if err := m.write(file, "x\n"); !errors.Is(err, syscall.EIO) {
			t.Errorf("write into %s: got error %v, want EIO", file, err)
		}
	}
	if after := c.Dog("vdi", "list", "-r"); after != before {
		t.Errorf("the disks were\n%sand are\n%s", before, after)
	}
}

func TestSheepfsManyOpens(t *testing.T) {
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0])
	c.Dog("vdi", "create", "disk", "10M")
	want := m.read("vdi/list")
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			var open []*os.File
			for i := range 250 {
				file := []string{"vdi/list", "cluster/info", "vdi/disk/info", "node/list", "vdi/disk/size"}[i%5]
				f, err := os.Open(m.path(file))
				if err != nil {
					t.Errorf("open number %d: %v", i, err)
					break
				}
				open = append(open, f)
			}
			b := make([]byte, len(want)+1)
			if n, err := open[0].Read(b); err != nil || string(b[:n]) != want {
				t.Errorf("the first file has %q (%v), want %q", b[:n], err, want)
			}
			for _, f := range open {
				f.Close()
			}
		})
	}
	wg.Wait()
}

func TestSheepfsContentStaysAsItWasAtTheOpen(t *testing.T) {
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0])
	c.Dog("vdi", "create", "before", "10M")
	f, err := os.Open(m.path("vdi/list"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := m.read("vdi/list")
	head := make([]byte, 20)
	if _, err := f.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	m.must("vdi/create", "after 10M\n")
	b := make([]byte, 4096)
	n, err := f.ReadAt(b, 0)
	if got := string(b[:n]); got != want {
		t.Errorf("the open file has %q (%v), want %q", got, err, want)
	}
	if now := m.read("vdi/list"); !strings.Contains(now, "after") {
		t.Errorf("opened again it has %q", now)
	}
}

func TestSheepfsHealth(t *testing.T) {
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0], "-o", "patience=10")
	c.Dog("vdi", "create", "-c", "3", "disk", "10M")
	if got := m.read("cluster/health"); got != "ok\n" {
		t.Errorf("health of a whole cluster: %q", got)
	}
	gone := c.Nodes[2].Addr()
	c.Nodes[2].Kill()
	c.WaitRunning()
	c.Until("bad health", func(context.Context) error {
		got := m.read("cluster/health")
		word, reasons, _ := strings.Cut(got, "\n")
		if word != "degraded" || !strings.Contains(reasons, gone) || !strings.Contains(reasons, "2 zones") {
			return fmt.Errorf("health with a dead node: %q", got)
		}
		return nil
	})
	if got := m.names("node"); slices.Contains(got, gone) {
		t.Errorf("the nodes are %q", got)
	}
	if got := strings.Count(m.read("cluster/epochs"), "\n"); got < 2 {
		t.Errorf("there are %d epochs", got)
	}
	c.Nodes[0].Kill()
	c.Nodes[1].Kill()
	if got := m.read("cluster/health"); !strings.HasPrefix(got, "unreachable\n") {
		t.Errorf("health without a cluster: %q", got)
	}
	if _, err := os.ReadFile(m.path("vdi/list")); !errors.Is(err, syscall.EIO) {
		t.Errorf("vdi/list without a cluster: %v", err)
	}
	if err := m.write("vdi/create", "x 1M\n"); !errors.Is(err, syscall.EIO) {
		t.Errorf("vdi/create without a cluster: %v", err)
	}
	if err := syscall.Unmount(m.dir, 0); err != nil {
		t.Errorf("umount without a cluster: %v", err)
	}
	m.wait(20 * time.Second)
}

func TestSheepfsMovesToAnotherSheep(t *testing.T) {
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0])
	c.Dog("vdi", "create", "disk", "10M")
	if got := len(m.names("node")); got != 5 {
		t.Errorf("node has %d names", got)
	}
	f, err := os.Open(m.path("vdi/list"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c.Nodes[0].Kill()
	c.WaitRunning()
	b := make([]byte, 4096)
	if n, err := f.ReadAt(b, 0); n == 0 || !errors.Is(err, io.EOF) {
		t.Errorf("a file that was open has %d bytes (%v)", n, err)
	}
	if got, want := m.read("vdi/list"), c.Dog("vdi", "list"); got != want {
		t.Errorf("vdi/list has\n%swhile dog prints\n%s", got, want)
	}
	m.must("vdi/create", "more 1M\n")
	moved := strings.TrimSuffix(m.read("config/sheep_info"), "\n")
	if moved != c.Nodes[1].Addr() && moved != c.Nodes[2].Addr() {
		t.Errorf("it asks %s", moved)
	}
	for i, other := range []*harness.Node{c.Nodes[2], c.Nodes[1]} {
		m.must("config/sheep_info", other.Addr()+"\n")
		if got := m.read("config/sheep_info"); got != other.Addr()+"\n" {
			t.Errorf("told to ask %s, it asks %s", other.Addr(), got)
		}
		m.must("vdi/create", fmt.Sprintf("more%d 1M\n", i))
	}
	for _, bad := range []string{c.Nodes[0].Addr(), "127.0.0.1", "", ":", "127.0.0.1:0", "127.0.0.1:99999", "127.0.0.1:x"} {
		if err := m.write("config/sheep_info", bad+"\n"); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("told to ask %q: got error %v, want EINVAL", bad, err)
		}
		if got, _, _ := strings.Cut(m.read("config/sheep_info"), "\n"); got != c.Nodes[1].Addr() {
			t.Errorf("after %q it asks %s", bad, got)
		}
	}
	stranger := harness.Start(t, harness.Config{Nodes: 1})
	stranger.Format(1)
	if err := m.write("config/sheep_info", stranger.Nodes[0].Addr()+"\n"); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("told to ask another cluster: got error %v, want EINVAL", err)
	}
}

func TestSheepfsTurnsAwayFromASheepThatHangs(t *testing.T) {
	c := sheepfsCluster(t)
	m := mountSheepfs(t, c, c.Nodes[0])
	want := m.read("node/list")
	if err := c.Nodes[0].Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer c.Nodes[0].Signal(syscall.SIGCONT)
	started := time.Now()
	for m.read("config/sheep_info") == c.Nodes[0].Addr()+"\n" { // it may stop a moment later
		if got := m.read("node/list"); got != want {
			t.Fatalf("the nodes are %q, want %q", got, want)
		}
		if took := time.Since(started); took > 20*time.Second {
			t.Fatalf("after %v it still asks the sheep that hangs", took)
		}
	}
	if got := m.read("node/list"); got != want {
		t.Errorf("the nodes are %q, want %q", got, want)
	}
}
