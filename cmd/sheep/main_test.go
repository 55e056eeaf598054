package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sheepdog/sheep/store/vfs"
)

// nodeVar is the environment variable that makes the test binary a sheep, with
// a node that behaves as the variable says.
const nodeVar = "SHEEPDOG_TEST_NODE"

func TestMain(m *testing.M) {
	behaviour, ok := os.LookupEnv(nodeVar)
	if !ok {
		os.Exit(m.Run())
	}
	p := program{args: os.Args, stdout: os.Stdout, stderr: os.Stderr, node: fakeNode(behaviour)}
	os.Exit(p.main())
}

// fakeNode returns a node that behaves in one of the ways of the tests below.
// While it runs, it obeys commands in files in the store directory.
func fakeNode(behaviour string) func(context.Context, config, func()) error {
	return func(ctx context.Context, cfg config, ready func()) error {
		switch behaviour {
		case "refused":
			return errors.New("failed to join Sheepdog")
		case "locked":
			return fmt.Errorf("open store: %w", vfs.ErrLocked)
		case "busy":
			return &os.SyscallError{Syscall: "bind", Err: syscall.EADDRINUSE}
		case "silent":
			os.Exit(7)
		case "crash":
			panic("the node panics")
		case "slow": // is told to stop while it joins
			os.WriteFile(filepath.Join(cfg.dir, "joining"), nil, 0o600)
			<-ctx.Done()
			return context.Cause(ctx)
		case "expelled at the door":
			return errExpelled
		}
		return obey(ctx, cfg, behaviour, ready)
	}
}

// obey is a node that has joined. Each life adds a line to the file "lives".
func obey(ctx context.Context, cfg config, behaviour string, ready func()) error {
	lives, err := os.OpenFile(filepath.Join(cfg.dir, "lives"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lives.Close()
	dir, _ := os.Getwd()
	fmt.Fprintf(lives, "%d %s %s\n", os.Getpid(), dir, os.Getenv(stageVar))
	ready()
	switch behaviour {
	case "expelled once":
		all, _ := os.ReadFile(lives.Name())
		if bytes.Count(all, []byte("\n")) == 1 {
			return fmt.Errorf("%w: slept too long", errExpelled)
		}
	case "expelled always":
		return errExpelled
	case "crash when ready":
		panic("the node panics late")
	case "fails when ready":
		return errors.New("the disk is gone")
	}
	<-ctx.Done()
	if behaviour == "stubborn" {
		os.WriteFile(filepath.Join(cfg.dir, "draining"), nil, 0o600)
		select {}
	}
	return nil
}

// A run is a sheep that was started by a test.
type run struct {
	t    *testing.T
	dir  string // the store
	cmd  *exec.Cmd
	out  bytes.Buffer
	errs bytes.Buffer
}

// sheepIn returns a sheep with a behaviour, in a working directory of its own.
// The store directory is "st" below it; "ST" in args stands for its path.
func sheepIn(t *testing.T, behaviour string, args ...string) *run {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &run{t: t, dir: filepath.Join(t.TempDir(), "st")}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "ST", r.dir)
	}
	r.cmd = exec.Command(exe, args...)
	r.cmd.Args[0] = "sheep"
	r.cmd.Dir = filepath.Dir(r.dir)
	r.cmd.Env = append(os.Environ(), nodeVar+"="+behaviour, "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.errs
	return r
}

// status runs sheep until it returns and gives its exit status.
func (r *run) status() int {
	r.t.Helper()
	if err := r.cmd.Run(); err != nil {
		if _, exited := errors.AsType[*exec.ExitError](err); !exited {
			r.t.Fatal(err)
		}
	}
	return r.cmd.ProcessState.ExitCode()
}

// daemon waits for the start of a daemon, and sees to its end. It returns the
// process id.
func (r *run) daemon() int {
	r.t.Helper()
	if got := r.status(); got != 0 {
		r.t.Fatalf("status %d\n%s%s", got, &r.out, &r.errs)
	}
	pid := r.lives()[0].pid
	r.t.Cleanup(func() {
		if alive(pid) {
			syscall.Kill(pid, syscall.SIGKILL)
			r.wait("the end of the daemon", func() bool { return !alive(pid) })
		}
	})
	return pid
}

// A lifeLine is what obey writes down at the start of a life.
type lifeLine struct {
	pid   int
	dir   string
	stage string
}

func (r *run) lives() []lifeLine {
	r.t.Helper()
	f, err := os.Open(filepath.Join(r.dir, "lives"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	var all []lifeLine
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.SplitN(s.Text(), " ", 3)
		pid, err := strconv.Atoi(fields[0])
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, lifeLine{pid, fields[1], fields[2]})
	}
	return all
}

// wait polls for something that another process does.
func (r *run) wait(what string, done func() bool) {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !done(); <-tick.C {
		if time.Now().After(deadline) {
			r.t.Fatalf("no sign of %s\n%s%s\n%s", what, &r.out, &r.errs, r.log())
		}
	}
}

func (r *run) exists(name string) bool {
	_, err := os.Stat(filepath.Join(r.dir, name))
	return err == nil
}

// log returns the content of the log file.
func (r *run) log() string {
	b, _ := os.ReadFile(filepath.Join(r.dir, "sheep.log"))
	return string(b)
}

// alive reports whether a process runs; one that nobody has waited for does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

func (r *run) contains(what, text string, wants ...string) {
	r.t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			r.t.Errorf("%s lacks %q:\n%s", what, want, text)
		}
	}
}
