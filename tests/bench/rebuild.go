package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/load"
	"sheepdog/tests/native"
)

// rebuildShare is how much more than the disk under load an empty node has to
// fetch.
const rebuildShare = 8

func rebuildJobs() []job {
	return []job{
		{"4 KiB random write, depth 1, a flush every 64 writes", true, 4 << 10, 1, 64},
		{"4 KiB random write, depth 16, a flush every 64 writes", true, 4 << 10, 16, 64},
		{"4 KiB random read, depth 16", false, 4 << 10, 16, 0},
	}
}

// runRebuild replaces a node by an empty one and returns a table of what clients
// feel of its recovery, and how long that takes without clients.
func runRebuild(t *bench, cfg config) string {
	s := cfg.subject[0]
	c := start(t, cfg, s, 3)
	bulk := cfg.size * rebuildShare
	c.Dog("vdi", "create", "bulk", strconv.FormatInt(bulk, 10))
	d, err := native.Open(t.ctx, native.Config{Servers: c.Addrs(0)[:1], WriteBack: true}, "bulk")
	if err != nil {
		t.Fatal(err)
	}
	fill(t, d, bulk)
	d.Close()
	var b strings.Builder
	b.WriteString("| case | alone | beside a recovery | of alone | in its worst second | 99% alone | 99% beside |\n|---|---|---|---|---|---|---|\n")
	for _, j := range rebuildJobs() {
		if !strings.Contains(j.name, cfg.only) {
			continue
		}
		d := open(t, c, j.flush)
		alone, _ := measure(t, cfg, j, d)
		empty(t, c)
		beside, worst := besideRecovery(t, cfg, j, c, d)
		d.Close()
		t.Logf("%s\n  alone  %s\n  beside %s", j.name, alone.describe(j), beside.describe(j))
		fmt.Fprintf(&b, "| %s | %s | %s | %.2f | %.2f | %v | %v |\n", j.name, alone.rate(j), beside.rate(j), beside.perSecond/alone.perSecond,
			worst/alone.perSecond, alone.p99.Round(10*time.Microsecond), beside.p99.Round(10*time.Microsecond))
	}
	empty(t, c)
	began := time.Now()
	c.WaitRecovered()
	took := time.Since(began)
	copied := copyObjects(t, c.Nodes[0].Dir)
	mib := float64(cfg.size+bulk) / (1 << 20)
	t.Logf("recovery %v, copy %v", took, copied)
	fmt.Fprintf(&b, "\nWithout clients %.0f MiB are fetched and synced at %.0f MiB/s; `cp` and `sync` of the same files reach %.0f MiB/s.\n",
		mib, mib/took.Seconds(), mib/copied.Seconds())
	return b.String()
}

// besideRecovery measures a job, a second at a time, until the recovery of c is
// over. It returns the mean and the rate of the slowest second.
func besideRecovery(t *bench, cfg config, j job, c *harness.Cluster, d load.Device) (mean figure, worst float64) {
	lj := load.Job{Write: j.write, Block: j.block, Depth: j.depth, Flush: j.flush}
	windows, err := load.MeasureWhile(t.ctx, lj, d, time.Second, func() bool {
		busy, err := native.Ask(t.ctx, c.Nodes[2].Addr(), native.Recovering)
		return err == nil && busy
	})
	if err != nil {
		t.Fatalf("%s: %v", j.name, err)
	}
	c.WaitRecovered()
	worst = windows[0].PerSecond
	for _, w := range windows {
		worst = min(worst, w.PerSecond)
		mean.perSecond += w.PerSecond / float64(len(windows))
		mean.p99 = max(mean.p99, w.P99)
	}
	return mean, worst
}

// empty kills the last node and starts it again with an empty directory.
func empty(t *bench, c *harness.Cluster) {
	n := c.Nodes[2]
	n.Kill()
	if err := errors.Join(os.RemoveAll(n.Dir), os.Mkdir(n.Dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	n.Start()
	c.Until("the recovery to begin", func(ctx context.Context) error {
		busy, err := native.Ask(ctx, n.Addr(), native.Recovering)
		if err == nil && !busy {
			err = errors.New("it is not in recovery")
		}
		return err
	})
}

// copyObjects returns how long a plain copy of a store's objects takes.
func copyObjects(t *bench, dir string) time.Duration {
	to, err := os.MkdirTemp(filepath.Dir(dir), "copy")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(to)
	began := time.Now()
	for _, args := range [][]string{{"cp", "-r", filepath.Join(dir, "obj"), to}, {"sync", "-f", to}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", args[0], err, out)
		}
	}
	return time.Since(began)
}
