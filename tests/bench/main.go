// Bench measures a cluster of three sheep on this machine.
//
// Each case runs on a disk that is filled with bytes other than zero, through
// the native protocol and the client of package native. Beside the figure
// stands what a file on the same disk reaches under the same rule about when
// data must be durable, and what C sheepdog reaches in the same run if C_SHEEP
// and C_DOG name its programs. Figures of different runs or machines cannot be
// compared; the ratios of one run can.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sheepdog/tests/harness"
)

// A config is what the flags say.
type config struct {
	size    int64
	time    time.Duration
	rounds  int
	copies  []int
	only    string
	nbd     bool
	rebuild bool
	sheepfs bool
	report  string
	machine string
	date    string
	subject []subject
}

// A subject is one implementation to measure.
type subject struct{ name, sheep, dog string }

func main() {
	if len(os.Args) == 4 && (os.Args[1] == serveLoopback || os.Args[1] == serveEmpty) { // as runSheepfs calls it
		if err := serveFiles(os.Args[1], os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	cfg, err := parse()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	t := &bench{ctx: ctx}
	var table string
	switch {
	case cfg.nbd:
		table = runNBD(t, cfg)
	case cfg.rebuild:
		table = runRebuild(t, cfg)
	case cfg.sheepfs:
		table = runSheepfs(t, cfg)
	default:
		table = run(t, cfg).table()
	}
	t.finish()
	stop()
	if t.failed {
		os.Exit(1)
	}
	fmt.Print("\n", table)
	if cfg.report != "" {
		if err := write(cfg, table); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
	}
}

func parse() (config, error) {
	var cfg config
	mib := flag.Int64("size", 128, "size of the disk in MiB")
	flag.DurationVar(&cfg.time, "time", 2*time.Second, "how long each case runs")
	flag.IntVar(&cfg.rounds, "rounds", 3, "how often each case runs; the figure in the middle counts")
	copies := flag.String("copies", "1,3", "numbers of copies, separated by commas")
	flag.StringVar(&cfg.only, "only", "", "run only the cases whose name contains this")
	flag.BoolVar(&cfg.nbd, "nbd", false, "measure NBD beside nbdkit and qemu-nbd instead of the native protocol")
	flag.BoolVar(&cfg.rebuild, "rebuild", false, "measure what clients feel while a node that lost its disk recovers")
	flag.BoolVar(&cfg.sheepfs, "sheepfs", false, "measure a mount of sheepfs beside the client library instead")
	flag.StringVar(&cfg.report, "report", "", "file to write the table into, between its markers")
	flag.StringVar(&cfg.machine, "machine", "", "what the report says about the machine")
	flag.StringVar(&cfg.date, "date", time.Now().Format(time.DateOnly), "what the report says about the date")
	sheep := flag.String("sheep", "bin/sheep", "the daemon to measure")
	dog := flag.String("dog", "bin/dog", "its administration program")
	flag.Parse()
	cfg.size = *mib << 20
	if cfg.rounds < 1 || cfg.size < 1<<20 {
		return cfg, errors.New("-rounds and -size must be at least 1")
	}
	for f := range strings.SplitSeq(*copies, ",") {
		n, err := strconv.Atoi(f)
		if err != nil || n < 1 || n > 3 {
			return cfg, fmt.Errorf("-copies %s: want numbers from 1 to 3", *copies)
		}
		cfg.copies = append(cfg.copies, n)
	}
	cfg.subject = append(cfg.subject, subject{"Go", *sheep, *dog})
	if c, d := os.Getenv("C_SHEEP"), os.Getenv("C_DOG"); c != "" && d != "" {
		cfg.subject = append(cfg.subject, subject{"C", c, d})
	}
	for i, s := range cfg.subject {
		for _, p := range []*string{&s.sheep, &s.dog} {
			abs, err := filepath.Abs(*p)
			if err == nil {
				_, err = os.Stat(abs)
			}
			if err != nil {
				return cfg, err
			}
			*p = abs
		}
		cfg.subject[i] = s
	}
	return cfg, nil
}

// A bench is the harness's idea of a test.
type bench struct {
	ctx     context.Context
	cleanup []func()
	failed  bool
}

var _ harness.TB = (*bench)(nil)

func (b *bench) Helper()                  {}
func (b *bench) Cleanup(fn func())        { b.cleanup = append(b.cleanup, fn) }
func (b *bench) Context() context.Context { return b.ctx }
func (b *bench) Failed() bool             { return b.failed }

func (b *bench) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (b *bench) Error(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	b.failed = true
}

func (b *bench) Errorf(format string, args ...any) { b.Error(fmt.Sprintf(format, args...)) }

func (b *bench) Fatal(args ...any) {
	b.Error(args...)
	b.finish()
	os.Exit(1)
}

func (b *bench) Fatalf(format string, args ...any) { b.Fatal(fmt.Sprintf(format, args...)) }
func (b *bench) Skipf(format string, args ...any)  { b.Fatalf(format, args...) }

// finish undoes what the harness has set up, last things first.
func (b *bench) finish() {
	for len(b.cleanup) > 0 {
		last := b.cleanup[len(b.cleanup)-1]
		b.cleanup = b.cleanup[:len(b.cleanup)-1]
		last()
	}
}

// The table of a report stands between these lines.
const begin, end = "<!-- begin of the table that make bench writes -->\n", "<!-- end of the table -->\n"

// write replaces the table in the report.
func write(cfg config, table string) error {
	old, err := os.ReadFile(cfg.report)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the table", cfg.report)
	}
	head := fmt.Sprintf("Measured on %s, %s; a disk of %d MiB; each case ran %d times for %v, and the figure in the middle counts.\n\n", cfg.date, cfg.machine, cfg.size>>20, cfg.rounds, cfg.time)
	return os.WriteFile(cfg.report, []byte(before+begin+head+table+end+after), 0o644)
}
