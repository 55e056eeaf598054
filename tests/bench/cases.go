package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/load"
	"sheepdog/tests/native"
)

// A job is one way to use a disk.
type job struct {
	name  string
	write bool
	block int
	depth int
	flush int // writes between flushes, 0 if each is durable when answered
}

func jobs() []job {
	var all []job
	for _, mode := range []struct {
		name  string
		flush int
	}{{"write-through", 0}, {"write-back, a flush every 64 writes", 64}} {
		for _, depth := range []int{1, 16} {
			all = append(all, job{fmt.Sprintf("4 KiB random write, depth %d, %s", depth, mode.name), true, 4 << 10, depth, mode.flush})
		}
		all = append(all, job{"1 MiB sequential write, " + mode.name, true, 1 << 20, 1, mode.flush})
	}
	for _, depth := range []int{1, 16} {
		all = append(all, job{fmt.Sprintf("4 KiB random read, depth %d", depth), false, 4 << 10, depth, 0})
	}
	return append(all, job{"1 MiB sequential read", false, 1 << 20, 1, 0})
}

// A figure is what came of a job.
type figure struct {
	perSecond float64 // operations
	p99       time.Duration
	cpu       time.Duration // of the daemons, per operation
}

// A row is a job at a number of copies, measured for each subject.
type row struct {
	job    job
	copies int
	raw    figure
	by     []figure // one for each subject
}

type results struct {
	subjects []string
	rows     []*row
}

// run measures all subjects side by side: what disturbs the machine for a while
// then disturbs them all.
func run(t *bench, cfg config) results {
	var r results
	for _, s := range cfg.subject {
		r.subjects = append(r.subjects, s.name)
	}
	for _, copies := range cfg.copies {
		var cs []*harness.Cluster
		one := &bench{ctx: t.ctx}
		t.Cleanup(one.finish) // if a failure ends the program
		for _, s := range cfg.subject {
			cs = append(cs, start(one, cfg, s, copies))
		}
		raw := newRawFile(one, cfg.size)
		for _, j := range jobs() {
			if strings.Contains(j.name, cfg.only) {
				r.rows = append(r.rows, compare(t, cfg, j, copies, raw, cs))
			}
		}
		one.finish()
	}
	return r
}

// start makes a cluster with a disk full of noise.
func start(t *bench, cfg config, s subject, copies int) *harness.Cluster {
	c := harness.Start(t, harness.Config{Sheep: s.sheep, Dog: s.dog})
	c.Format(copies)
	c.Dog("vdi", "create", "bench", strconv.FormatInt(cfg.size, 10))
	d := open(t, c, 64)
	defer d.Close()
	fill(t, d, cfg.size)
	return c
}

func open(t *bench, c *harness.Cluster, flush int) *native.Disk {
	d, err := native.Open(t.ctx, native.Config{Servers: c.Addrs(0)[:1], WriteBack: flush > 0}, "bench")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// compare runs a job on the file and on each cluster, in turns.
func compare(t *bench, cfg config, j job, copies int, file *rawFile, cs []*harness.Cluster) *row {
	raw := make([]figure, cfg.rounds)
	by := make([][]figure, len(cs))
	for round := range cfg.rounds {
		file.each = j.flush == 0
		raw[round], _ = measure(t, cfg, j, file)
		for i, c := range cs {
			d := open(t, c, j.flush)
			before := cpu(c)
			f, n := measure(t, cfg, j, d)
			f.cpu = (cpu(c) - before) / time.Duration(max(1, n))
			by[i] = append(by[i], f)
			d.Close()
		}
	}
	r := &row{job: j, copies: copies, raw: median(raw)}
	t.Logf("%d copies, %s\n  raw %s", copies, j.name, r.raw.describe(j))
	for i, figures := range by {
		r.by = append(r.by, median(figures))
		t.Logf("  %-3s %s", cfg.subject[i].name, r.by[i].describe(j))
	}
	return r
}

// median returns the figure in the middle.
func median(figures []figure) figure {
	slices.SortFunc(figures, func(a, b figure) int { return cmp.Compare(a.perSecond, b.perSecond) })
	return figures[len(figures)/2]
}

// cpu returns the processor time that the daemons have used.
func cpu(c *harness.Cluster) time.Duration {
	var ticks int64
	for _, n := range c.Nodes {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.Pid()))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		fields := strings.Fields(rest) // the state is the first: user and system time are 14 and 15 of all
		for _, f := range fields[11:13] {
			v, _ := strconv.ParseInt(f, 10, 64)
			ticks += v
		}
	}
	return time.Duration(ticks) * time.Second / 100
}

func fill(t *bench, d load.Device, size int64) {
	p := load.Noise(1 << 20)
	for off := int64(0); off < size; off += int64(len(p)) {
		if err := d.WriteAt(t.ctx, p, off); err != nil {
			t.Fatalf("fill: %v", err)
		}
	}
	if err := d.Flush(t.ctx); err != nil {
		t.Fatalf("fill: %v", err)
	}
}

// measure runs a job for a while.
func measure(t *bench, cfg config, j job, d load.Device) (figure, int64) {
	s, err := load.Measure(t.ctx, load.Job{Write: j.write, Block: j.block, Depth: j.depth, Flush: j.flush}, d, cfg.time)
	if err != nil {
		t.Fatalf("%s: %v", j.name, err)
	}
	return figure{perSecond: s.PerSecond, p99: s.P99}, s.Count
}

// rate returns a figure in the unit that suits the job.
func (f figure) rate(j job) string {
	if j.block >= 1<<20 {
		return fmt.Sprintf("%.0f MiB/s", f.perSecond*float64(j.block)/(1<<20))
	}
	return fmt.Sprintf("%.0f /s", f.perSecond)
}

func (f figure) describe(j job) string {
	s := fmt.Sprintf("%12s  99%% in %8v", f.rate(j), f.p99.Round(time.Microsecond))
	if f.cpu > 0 {
		s += fmt.Sprintf("  %v of the daemons' time each", f.cpu.Round(time.Microsecond))
	}
	return s
}

// table returns all rows in Markdown.
func (r results) table() string {
	var b strings.Builder
	b.WriteString("| copies | case | raw file |")
	for _, s := range r.subjects {
		fmt.Fprintf(&b, " %s | of raw | 99%% | daemons' time |", s)
	}
	if len(r.subjects) == 2 {
		b.WriteString(" Go : C |")
	}
	b.WriteString("\n|---|---|---|" + strings.Repeat("---|---|---|---|", len(r.subjects)))
	if len(r.subjects) == 2 {
		b.WriteString("---|")
	}
	b.WriteByte('\n')
	for _, row := range r.rows {
		fmt.Fprintf(&b, "| %d | %s | %s |", row.copies, row.job.name, row.raw.rate(row.job))
		for _, f := range row.by {
			fmt.Fprintf(&b, " %s | %.2f | %v | %v |", f.rate(row.job), f.perSecond/row.raw.perSecond, f.p99.Round(10*time.Microsecond), f.cpu.Round(time.Microsecond))
		}
		if len(row.by) == 2 {
			fmt.Fprintf(&b, " %.2f |", row.by[0].perSecond/row.by[1].perSecond)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
