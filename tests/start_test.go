package tests_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/powerfs"
)

// TestASheepThatCannotStart ends with status 1 and one clear line, and does not
// disturb the cluster that it was about to join.
func TestASheepThatCannotStart(t *testing.T) {
	c := harness.Start(t, harness.Config{})
	c.Format(2)
	var disk *powerfs.FS
	onDisk := func(t *testing.T, n *harness.Node) {
		t.Helper()
		disks, dirs := newDisks(t, 1)
		disk, n.Dir = disks[0], dirs[0]
	}
	tests := []struct {
		name string
		prep func(t *testing.T, n *harness.Node)
		want string // one of these is in what it says, in lower case
	}{
		{"a store of an older layout", func(t *testing.T, n *harness.Node) {
			config := make([]byte, 40)
			config[0], config[30] = 1, 1
			writeStore(t, n.Dir, config)
		}, "layout|version"},
		{"a store of a layout from the future", func(t *testing.T, n *harness.Node) {
			config := make([]byte, 40)
			config[0], config[30], config[31] = 1, 0xff, 0x7f
			writeStore(t, n.Dir, config)
		}, "layout|version"},
		{"a config that is cut short", func(t *testing.T, n *harness.Node) {
			writeStore(t, n.Dir, make([]byte, 17))
		}, "config"},
		{"a port that is taken", func(_ *testing.T, n *harness.Node) { n.Port = c.Nodes[0].Port }, "address already in use"},
		{"a directory that is in use", func(_ *testing.T, n *harness.Node) { n.Dir = c.Nodes[0].Dir }, "another sheep daemon is using"},
		{"a directory without a parent", func(_ *testing.T, n *harness.Node) { n.Dir = filepath.Join(n.Dir, "no", "such") }, "cannot create the directory"},
		{"a file in place of a directory", func(t *testing.T, n *harness.Node) {
			if err := os.WriteFile(n.Dir, nil, 0o640); err != nil {
				t.Fatal(err)
			}
		}, "not a directory|file exists"},
		{"a disk that is read-only", func(t *testing.T, n *harness.Node) {
			onDisk(t, n)
			disk.SetReadOnly(true)
		}, "read-only file system"},
		{"a disk without any room", func(t *testing.T, n *harness.Node) {
			onDisk(t, n)
			disk.SetCapacity(0)
		}, "no space left on device"},
		{"a pid file that cannot be", func(_ *testing.T, n *harness.Node) { n.Args = []string{"-P", "/no/such/pid"} }, "/no/such/pid"},
		{"a disk directory that is another node's store", func(_ *testing.T, n *harness.Node) { n.Dir += "," + c.Nodes[0].Dir }, "is meta-store|not supported yet"},
		{"a driver that does not exist", func(_ *testing.T, n *harness.Node) { n.Args = []string{"-c", "foo"} }, "invalid cluster driver 'foo'"},
		{"a bad port", func(_ *testing.T, n *harness.Node) { n.Args = []string{"-p", "1a"} }, "invalid port number '1a'"},
		{"a bad zone", func(_ *testing.T, n *harness.Node) { n.Args = []string{"-z", "-1"} }, "invalid zone id '-1'"},
		{"a bad address", func(_ *testing.T, n *harness.Node) { n.Args = []string{"-b", "nowhere"} }, "bad address 'nowhere'"},
		{"a bad log level", func(_ *testing.T, n *harness.Node) { n.Args = []string{"-l", "level=loud"} }, "invalid log level 'loud'"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := c.Extra(t, 7)
			tt.prep(t, n)
			n.Start()
			code, err := n.Wait(20 * time.Second)
			if err != nil {
				t.Fatal(err)
			}
			log := n.Log()
			if _, after, ok := strings.Cut(log, "\n"); ok { // behind what the harness wrote
				log = after
			}
			said := slices.ContainsFunc(strings.Split(tt.want, "|"), func(w string) bool { return strings.Contains(strings.ToLower(log), w) })
			if code != 1 || !said {
				t.Errorf("it ended with status %d, want 1, and said\n%s\nwant %q", code, log, tt.want)
			}
			if strings.Contains(log, "goroutine ") {
				t.Error("it panicked")
			}
		})
	}
	c.WaitRunning()
	if got := strings.Count(c.Dog("cluster", "info", "-r"), "\n"); got != 3 {
		t.Errorf("the cluster has gone through %d epochs, want 1:\n%s", got-2, c.Dog("cluster", "info"))
	}
}

func writeStore(t *testing.T, dir string, config []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "epoch"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), config, 0o640); err != nil {
		t.Fatal(err)
	}
}

// TestThePidFile is written and removed.
func TestThePidFile(t *testing.T) {
	c := harness.New(t, harness.Config{Nodes: 1})
	n := c.Nodes[0]
	pid := filepath.Join(c.Dir, "pid")
	n.Args = []string{"-P", pid}
	n.Start()
	c.WaitJoined()
	b, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(b)); got != strconv.Itoa(n.Pid()) {
		t.Errorf("the pid file says %q, want %d", got, n.Pid())
	}
	n.Stop()
	if _, err := os.Stat(pid); !os.IsNotExist(err) {
		t.Errorf("after a clean end the pid file is still there: %v", err)
	}
}

// TestTheNamesInAStore shows that a store has the names that operators know.
func TestTheNamesInAStore(t *testing.T) {
	c := harness.Start(t, harness.Config{Nodes: 1})
	c.Format(1)
	for _, name := range []string{"config", "epoch/00000001", "obj", "lock", "sock"} {
		if _, err := os.Stat(filepath.Join(c.Nodes[0].Dir, name)); err != nil {
			t.Error(err)
		}
	}
}
