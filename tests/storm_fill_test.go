package tests_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/load"
	"sheepdog/tests/native"
)

const (
	fillShift = 20
	fillBytes = 128 << 10 // of each object: the rest is a hole
)

// TestAnEmptyNodeIsFilled replaces one of three machines, each of which has a
// copy of everything, by an empty one: first beside a client, who must keep half
// of his speed, then without.
func TestAnEmptyNodeIsFilled(t *testing.T) {
	objects := fillObjects(t)
	h := harness.NewHosts(t, 5, gossipArgs())
	three := hostsUpTo(3)
	for _, i := range three {
		h.Nodes[i].Start()
	}
	h.WaitMembers(three, three)
	h.Dog(0, nil, "cluster", "format", "-c", "3")
	h.WaitRecovered()
	h.Dog(0, nil, "cluster", "recover", "delay", "off")
	fillDisk(t, h, objects)
	h.Dog(0, nil, "vdi", "create", "-P", "-z", fmt.Sprint(fillShift), "fore", "32M")
	dev, err := native.Open(t.Context(), native.Config{Servers: socks(h, 0)[:1], WriteBack: true}, "fore")
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	alone := speeds(t, dev, func(i int) bool { return i < 4 })
	replace(t, h, 2, 3)
	begin := time.Now()
	beside := speeds(t, dev, func(int) bool { return recovering(t, h, 3) == nil })
	h.WaitRecovered()
	t.Logf("%d objects healed beside a client in %v", objects, time.Since(begin).Round(time.Millisecond))
	alone = append(alone, speeds(t, dev, func(i int) bool { return i < 4 })...)
	keepsHalf(t, alone, beside)
	dev.Close()

	replace(t, h, 3, 4)
	begin = time.Now()
	h.WaitRecovered()
	took := time.Since(begin)
	bytes, copied := copyStore(t, h.Nodes[0].Dir)
	t.Logf("%d objects, %d MiB, healed without clients in %v; a copy of the files takes %v", objects, bytes>>20, took.Round(time.Millisecond), copied.Round(time.Millisecond))
	if got, want := countObjects(t, h.Nodes[4].Dir), countObjects(t, h.Nodes[0].Dir); got != want || got < objects {
		t.Errorf("the node has %d objects, another has %d", got, want)
	}
	h.Check(0, "bulk")
	h.Check(4, "fore")
}

// fillObjects returns how many objects to heal: SHEEP_TEST_OBJECTS, or some that
// do not take long.
func fillObjects(t *testing.T) int {
	t.Helper()
	v := os.Getenv("SHEEP_TEST_OBJECTS")
	if v == "" {
		return 150
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("SHEEP_TEST_OBJECTS: %q", v)
	}
	return n
}

// speeds measures small writes, a second at a time, while more says so, which is
// given the number of seconds that are over.
func speeds(t *testing.T, dev load.Device, more func(n int) bool) []load.Speed {
	t.Helper()
	n := 0
	job := load.Job{Write: true, Block: 4096, Depth: 8, Flush: 64}
	windows, err := load.MeasureWhile(t.Context(), job, dev, time.Second, func() bool {
		n++
		return more(n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return windows
}

// keepsHalf fails the test if a client was slowed down by more than half. What
// counts is the mean of some seconds, as this machine has other work too.
func keepsHalf(t *testing.T, alone, beside []load.Speed) {
	t.Helper()
	const moment = 5 // seconds
	half := describeSpeeds(t, "alone", alone) / 2
	describeSpeeds(t, "beside", beside)
	if len(beside) < moment {
		t.Logf("the recovery took %d s, which is too short to be judged", len(beside))
	}
	for i := 0; i+moment <= len(beside); i++ {
		sum := 0.0
		for _, s := range beside[i : i+moment] {
			sum += s.PerSecond
		}
		if sum/moment < half {
			t.Errorf("from second %d of the recovery on: %.0f/s, less than half of what it is alone, %.0f/s", i+1, sum/moment, 2*half)
		}
	}
}

// fillDisk makes a disk of many objects.
func fillDisk(t *testing.T, h *harness.Hosts, objects int) {
	t.Helper()
	h.Dog(0, nil, "vdi", "create", "-z", fmt.Sprint(fillShift), "bulk", fmt.Sprint(objects<<fillShift))
	const writers = 8
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			dev, err := native.Open(t.Context(), native.Config{Servers: socks(h, 0)[:1], WriteBack: true}, "bulk")
			for i := w; err == nil && i < objects; i += writers {
				err = dev.WriteAt(t.Context(), load.Noise(fillBytes), int64(i)<<fillShift)
			}
			if err == nil {
				err = errors.Join(dev.Flush(t.Context()), dev.Close())
			}
			errs[w] = err
		})
	}
	begin := time.Now()
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d objects made in %v", objects, time.Since(begin).Round(time.Millisecond))
}

// replace kills a sheep and starts another one, and waits until that is a member
// in its place, and lacks something.
func replace(t *testing.T, h *harness.Hosts, old, by int) {
	t.Helper()
	h.Nodes[old].Kill()
	h.Nodes[by].Start()
	begin := time.Now()
	up := h.Up()
	h.WaitMembers(up, up)
	h.Until("the recovery to begin", func(context.Context) error { return recovering(t, h, by) })
	t.Logf("in recovery %v after its start", time.Since(begin).Round(time.Millisecond))
}

// recovering returns an error unless a sheep is in recovery.
func recovering(t *testing.T, h *harness.Hosts, i int) error {
	busy, err := native.Ask(t.Context(), h.Nodes[i].Sock(), native.Recovering)
	if err == nil && !busy {
		err = errors.New("it is not in recovery")
	}
	return err
}

// describeSpeeds logs what came of a job in each second, and returns the median
// of operations per second.
func describeSpeeds(t *testing.T, name string, all []load.Speed) float64 {
	t.Helper()
	var rates []float64
	var p50, p99 time.Duration
	for _, s := range all {
		rates = append(rates, s.PerSecond)
		p50, p99 = max(p50, s.P50), max(p99, s.P99)
	}
	sorted := slices.Sorted(slices.Values(rates))
	median := sorted[len(sorted)/2]
	t.Logf("%s: %.0f operations in a second, %.0f in the worst; half of them within %v in the worst, 99%% within %v; in each: %.0f", name, median, sorted[0], p50, p99, rates)
	return median
}

func countObjects(t *testing.T, dir string) int {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "obj", "????????????????"))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// copyStore copies the objects of a store with a plain program and syncs them.
// It returns how many bytes they take on the disk, and how long that takes.
func copyStore(t *testing.T, dir string) (int64, time.Duration) {
	t.Helper()
	to, err := os.MkdirTemp(filepath.Dir(dir), "copy")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for _, args := range [][]string{{"cp", "-r", filepath.Join(dir, "obj"), to}, {"sync", "-f", to}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", args[0], err, out)
		}
	}
	took := time.Since(begin)
	out, err := exec.Command("du", "-s", "-B1", to).Output()
	if err != nil {
		t.Fatal(err)
	}
	var bytes int64
	if _, err := fmt.Sscan(string(out), &bytes); err != nil {
		t.Fatal(err)
	}
	return bytes, took
}
