package tests_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sheepdog/tests/harness"
)

// leaks compares what the sheep hold on to after a storm with what one of them
// holds on to when it has just started. It kills them for that, and checks in
// passing that the data outlives it; then it stops the cluster in good order and
// compares the files.
func leaks(t *testing.T, s *storm) {
	t.Helper()
	after := held(t, s.Nodes)
	for _, n := range s.Nodes {
		n.Start()
	}
	s.WaitRecovered()
	verifyHosts(t, s.Hosts, s.clients)
	one := s.Nodes[:1]
	fresh := held(t, one)[0]
	one[0].Start()
	s.WaitRecovered()
	for i := range s.Nodes {
		compareHeld(t, i, after[i], fresh)
	}
	s.Dog(0, nil, "cluster", "shutdown")
	for _, n := range s.Nodes {
		if code, err := n.Wait(patience); err != nil || code != 0 {
			t.Fatalf("node %d ended with status %d (%v)", n.ID, code, err)
		}
	}
	sameFiles(t, s.Hosts, 3)
}

// Slack for what comes and goes, and for what one node has more because it leads.
const (
	spareHandles    = 40
	spareGoroutines = 10
)

// A holding is what a process holds on to, by kind.
type holding map[string]int

// held returns what sheep hold on to. They are killed, as it is in dying that they
// tell their goroutines.
func held(t *testing.T, nodes []*harness.Node) []holding {
	t.Helper()
	all := make([]holding, len(nodes))
	for i, n := range nodes {
		all[i] = handles(t, n.Pid())
	}
	for i, n := range nodes {
		before := len(n.Log())
		if err := n.Signal(syscall.SIGQUIT); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Wait(patience); err != nil {
			t.Fatal(err)
		}
		maps.Copy(all[i], goroutines(n.Log()[before:]))
	}
	return all
}

// handles counts the open files of a process by what they are.
func handles(t *testing.T, pid int) holding {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	kinds := holding{}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // closed meanwhile
		case err != nil:
			t.Fatal(err)
		case strings.Contains(to, "/obj/"):
			kinds["open objects"]++ // kept for the next use
		case strings.HasPrefix(to, "/"):
			kinds["open file"]++
		default:
			kind, _, _ := strings.Cut(to, ":")
			kinds["open "+kind]++
		}
	}
	return kinds
}

// goroutines counts the goroutines in a dump by what they were started to do.
// Those of the server that wait for a next request are left out: it keeps them.
func goroutines(dump string) holding {
	by := holding{}
	for g := range strings.SplitSeq(dump, "\n\n") {
		if !strings.HasPrefix(g, "goroutine ") {
			continue
		}
		g, _, _ = strings.Cut(g, "\ncreated by ")
		var calls []string // from the inside
		for line := range strings.Lines(g) {
			if end := strings.LastIndex(line, "("); end > 0 && !strings.HasPrefix(line, "\t") && !isStarter(line) {
				calls = append(calls, line[:end])
			}
		}
		if len(calls) > 0 && !strings.HasSuffix(calls[0], "server.(*workers).work") {
			by["goroutine in "+calls[len(calls)-1]]++
		}
	}
	return by
}

// isStarter reports whether a call says nothing about what a goroutine is for.
func isStarter(call string) bool {
	for _, p := range []string{"goroutine ", "runtime.", "internal/", "sync.(*WaitGroup).Go", "github.com/hashicorp/raft.(*raftState).goFunc"} {
		if strings.HasPrefix(call, p) {
			return true
		}
	}
	return false
}

func compareHeld(t *testing.T, node int, after, fresh holding) {
	t.Helper()
	for _, kind := range slices.Sorted(maps.Keys(after)) {
		spare := spareHandles
		if strings.HasPrefix(kind, "goroutine") {
			spare = spareGoroutines
		}
		if after[kind] > fresh[kind]+spare && kind != "open objects" {
			t.Errorf("node %d has %d of %q after the storm, and one that has just started %d", node, after[kind], kind, fresh[kind])
		}
	}
	t.Logf("node %d after the storm: %v; one that has just started: %v", node, after, fresh)
	if fresh.goroutines() == 0 {
		t.Errorf("a sheep that died tells no goroutines")
	}
}

func (h holding) goroutines() (n int) {
	for kind, k := range h {
		if strings.HasPrefix(kind, "goroutine") {
			n += k
		}
	}
	return n
}

func (h holding) String() string {
	return fmt.Sprintf("%d goroutines, %d sockets, %d files, %d objects", h.goroutines(), h["open socket"], h["open file"], h["open objects"])
}

// sameFiles compares the files of all copies of every object, after the sheep
// have been stopped in good order.
func sameFiles(t *testing.T, h *harness.Hosts, copies int) {
	t.Helper()
	type copyOf struct {
		node int
		sum  [sha256.Size]byte
	}
	objects := map[string][]copyOf{}
	for i, n := range h.Nodes {
		names, err := filepath.Glob(filepath.Join(n.Dir, "obj", "????????????????"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			objects[filepath.Base(name)] = append(objects[filepath.Base(name)], copyOf{i, sum(t, name)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		all := objects[name]
		for _, c := range all {
			if c.sum != all[0].sum {
				t.Errorf("object %s differs on nodes %d and %d", name, all[0].node, c.node)
			}
		}
		if len(all) != copies {
			t.Errorf("object %s has %d copies, want %d", name, len(all), copies)
		}
	}
	t.Logf("%d objects, compared byte by byte", len(objects))
	if len(objects) == 0 {
		t.Error("there are no objects")
	}
}

func sum(t *testing.T, name string) (sum [sha256.Size]byte) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
