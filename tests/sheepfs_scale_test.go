package tests_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"sheepdog/tests/harness"
)

// TestSheepfsWithAThousandDisks looks at a cluster of many disks. What takes some
// milliseconds on an idle machine is given a second here, the fastest of some
// attempts counting: a scan by reading each inode would not do with that.
func TestSheepfsWithAThousandDisks(t *testing.T) {
	sheepfsProgram(t)
	disks := 1000
	if testing.Short() {
		disks = 100
	}
	c := harness.Start(t, harness.Config{Nodes: 1})
	c.Format(1)
	m := mountSheepfs(t, c, c.Nodes[0])
	var lines strings.Builder
	for i := range disks {
		fmt.Fprintf(&lines, "disk%d 4M\n", i)
	}
	m.must("vdi/create", lines.String())
	for _, look := range []struct {
		about string
		limit time.Duration
		do    func() (int, error)
		want  int // of names or lines; -1 if they may change
	}{
		{"ls vdi", 500 * time.Millisecond, m.listing("vdi"), disks + 4},
		{"ls volume", 500 * time.Millisecond, m.listing("volume"), disks},
		{"ls vdi/NAME/snapshots", 500 * time.Millisecond, m.listing("vdi/disk7/snapshots"), 0},
		{"cat vdi/list", 2 * time.Second, m.lines("vdi/list"), disks + 1},
		{"cat vdi/NAME/info.json", 200 * time.Millisecond, m.lines("vdi/disk7/info.json"), -1},
		{"cat vdi/NAME/lock", 500 * time.Millisecond, m.lines("vdi/disk7/lock"), 1},
		{"cat vdi/NAME/size", 200 * time.Millisecond, m.lines("vdi/disk7/size"), 1},
		{"cat cluster/info", 200 * time.Millisecond, m.lines("cluster/info"), 6},
		{"cat cluster/health", 500 * time.Millisecond, m.lines("cluster/health"), 1},
		{"cat node/list", 200 * time.Millisecond, m.lines("node/list"), 2},
		{"stat of 100 disks", time.Second, m.stats(100), 100},
	} {
		best := time.Hour
		for range 5 {
			began := time.Now()
			n, err := look.do()
			best = min(best, time.Since(began))
			if err != nil || look.want >= 0 && n != look.want {
				t.Errorf("%s: %d, want %d (%v)", look.about, n, look.want, err)
				break
			}
		}
		t.Logf("%s takes %v", look.about, best.Round(100*time.Microsecond))
		if best > look.limit {
			t.Errorf("%s takes %v, want less than %v", look.about, best, look.limit)
		}
	}
}

func (m *sheepfsMount) listing(dir string) func() (int, error) {
	return func() (int, error) {
		entries, err := os.ReadDir(m.path(dir))
		return len(entries), err
	}
}

func (m *sheepfsMount) lines(file string) func() (int, error) {
	return func() (int, error) {
		b, err := os.ReadFile(m.path(file))
		return strings.Count(string(b), "\n"), err
	}
}

func (m *sheepfsMount) stats(disks int) func() (int, error) {
	return func() (n int, err error) {
		for n = range disks {
			for _, path := range []string{"volume/disk%d", "vdi/disk%d"} {
				if _, err := os.Stat(m.path(fmt.Sprintf(path, n))); err != nil {
					return n, err
				}
			}
		}
		return n + 1, nil
	}
}
