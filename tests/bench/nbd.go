package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sheepdog/tests/harness"
)

// An nbdJob is one way in which fio's NBD engine uses an export over one
// connection.
type nbdJob struct {
	name  string
	rw    string // as fio calls it
	block string
	depth int
}

func nbdJobs() []nbdJob {
	return []nbdJob{
		{"4 KiB random read, depth 1", "randread", "4k", 1},
		{"4 KiB random read, depth 32", "randread", "4k", 32},
		{"4 KiB random write, depth 1", "randwrite", "4k", 1},
		{"4 KiB random write, depth 32", "randwrite", "4k", 32},
		{"4 KiB random write, depth 64", "randwrite", "4k", 64},
		{"1 MiB sequential read, depth 4", "read", "1M", 4},
		{"1 MiB sequential write, depth 4", "write", "1M", 4},
	}
}

// An export is a disk that some server offers over NBD.
type export struct{ name, uri string }

// runNBD lets fio use a disk of each server in turns and returns a table.
func runNBD(t *bench, cfg config) string {
	if _, err := exec.LookPath("fio"); err != nil {
		t.Fatal(err)
	}
	exports := []export{
		nbdkitMemory(t, cfg), qemuRaw(t, cfg), sheepNBD(t, cfg, "1 copy", 1, 0), sheepNBD(t, cfg, "3 copies", 3, 0),
		sheepNBD(t, cfg, "3 copies, 1 ms between nodes", 3, time.Millisecond/2),
	}
	for _, e := range exports { // full of what fio writes, which is not zero
		fio(t, cfg, e, nbdJob{rw: "write", block: "1M", depth: 4}, "--end_fsync=1")
	}
	var b strings.Builder
	b.WriteString("| case |")
	for _, e := range exports {
		fmt.Fprintf(&b, " %s |", e.name)
	}
	b.WriteString(" sheep, 1 copy : qemu-nbd |\n|---|" + strings.Repeat("---|", len(exports)+1) + "\n")
	for _, j := range nbdJobs() {
		if !strings.Contains(j.name, cfg.only) {
			continue
		}
		rates := make([][]float64, len(exports))
		for range cfg.rounds {
			for i, e := range exports {
				rates[i] = append(rates[i], fio(t, cfg, e, j, "--time_based", fmt.Sprintf("--runtime=%.0f", cfg.time.Seconds())))
			}
		}
		t.Logf("%s", j.name)
		fmt.Fprintf(&b, "| %s |", j.name)
		middle := make([]float64, len(exports))
		for i, e := range exports {
			slices.SortFunc(rates[i], cmp.Compare)
			middle[i] = rates[i][len(rates[i])/2]
			t.Logf("  %-36s %s", e.name, j.rate(middle[i]))
			fmt.Fprintf(&b, " %s |", j.rate(middle[i]))
		}
		fmt.Fprintf(&b, " %.2f |\n", middle[2]/middle[1])
	}
	return b.String()
}

func (j nbdJob) rate(perSecond float64) string {
	if j.block == "1M" {
		return fmt.Sprintf("%.0f MiB/s", perSecond)
	}
	return fmt.Sprintf("%.0f /s", perSecond)
}

// fio runs a job and returns the operations per second.
func fio(t *bench, cfg config, e export, j nbdJob, args ...string) float64 {
	args = append([]string{"--name=bench", "--ioengine=nbd", "--uri=" + e.uri, "--rw=" + j.rw, "--bs=" + j.block,
		fmt.Sprintf("--iodepth=%d", j.depth), fmt.Sprintf("--size=%d", cfg.size), "--output-format=json"}, args...)
	cmd := exec.CommandContext(t.ctx, "fio", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("fio %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	var result struct {
		Jobs []struct {
			Error       int
			Read, Write struct{ IOPS float64 }
		}
	}
	if _, text, ok := strings.Cut(string(out), "{"); !ok {
		err = fmt.Errorf("no JSON in %q", out)
	} else {
		err = json.Unmarshal([]byte("{"+text), &result)
	}
	if err != nil || len(result.Jobs) != 1 || result.Jobs[0].Error != 0 {
		t.Fatalf("fio: %v\n%s", err, out)
	}
	return result.Jobs[0].Read.IOPS + result.Jobs[0].Write.IOPS
}

// nbdkitMemory is nbdkit's plugin that keeps a disk in memory: what NBD itself
// can reach here.
func nbdkitMemory(t *bench, cfg config) export {
	socket := serve(t, func(socket string) *exec.Cmd {
		return exec.Command("nbdkit", "-f", "-U", socket, "memory", fmt.Sprintf("size=%d", cfg.size))
	})
	return export{"nbdkit memory", "nbd+unix:///?socket=" + socket}
}

// qemuRaw is a file on the disk that holds the stores, served by qemu-nbd.
func qemuRaw(t *bench, cfg config) export {
	raw := newRawFile(t, cfg.size)
	socket := serve(t, func(socket string) *exec.Cmd {
		return exec.Command("qemu-nbd", "-k", socket, "-f", "raw", "-t", "-e", "8", "--cache=writeback", raw.f.Name())
	})
	return export{"qemu-nbd raw", "nbd+unix:///?socket=" + socket}
}

// sheepNBD is a disk on as many nodes as it has copies, served by one of them.
// What the nodes send each other takes delay.
func sheepNBD(t *bench, cfg config, name string, copies int, delay time.Duration) export {
	c := harness.New(t, harness.Config{Nodes: copies, Delay: delay, Sheep: cfg.subject[0].sheep, Dog: cfg.subject[0].dog})
	socket := filepath.Join(c.Nodes[0].Dir, "nbd.sock")
	c.Nodes[0].Args = append(c.Nodes[0].Args, "--nbd", "unix:"+socket)
	for _, n := range c.Nodes {
		n.Start()
		c.WaitJoined()
	}
	c.Format(copies)
	c.Dog("vdi", "create", "bench", fmt.Sprint(cfg.size))
	return export{"sheep, " + name, "nbd+unix:///bench?socket=" + socket}
}

// serve runs a server on a socket of its own until the end.
func serve(t *bench, command func(socket string) *exec.Cmd) (socket string) {
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	cmd := command(socket)
	cmd.Stderr = os.Stderr
	if err := harness.Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		harness.KillGroup(cmd)
		cmd.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return socket
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come up", cmd.Path)
		}
	}
}
