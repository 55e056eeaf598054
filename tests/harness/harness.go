// Package harness runs real clusters of sheep for tests.
//
// It builds the programs once per test binary, and starts each daemon as a
// process of its own on a private port, in a private directory, with a private
// cluster file, so that several suites can run on one machine at the same time.
// It waits for a state by asking the daemons for it over the protocol. Whatever
// happens to the test, no process outlives it: daemons are killed by the
// test's cleanup, and by the kernel if the test binary itself dies.
package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
)

// A TB is what the harness needs of a test; each testing.TB is one, and so is
// a program that measures.
type TB interface {
	Helper()
	Cleanup(fn func())
	Context() context.Context
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
}

// Programs are the paths of the programs under test.
type Programs struct {
	Sheep, Dog, Collie string
}

// Main runs the tests of a package that uses this one. It is to be called by
// TestMain, because it makes the directory for what Build builds, and removes
// it in the end.
func Main(m *testing.M) {
	dir, err := os.MkdirTemp("", "sheepbin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Setenv(programsVar, dir)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

const programsVar = "SHEEP_TEST_PROGRAMS"

// Build builds the programs of this module, once per test binary. With
// SHEEP_RACE=1 in the environment they have the race detector; SHEEP_PROGRAM
// and DOG_PROGRAM name others to test in their place.
func Build(t TB) Programs {
	t.Helper()
	p, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var build = sync.OnceValues(func() (Programs, error) {
	if sheep, dog := os.Getenv("SHEEP_PROGRAM"), os.Getenv("DOG_PROGRAM"); sheep != "" && dog != "" {
		return Programs{sheep, dog, dog}, nil
	}
	dir := os.Getenv(programsVar)
	if dir == "" {
		return Programs{}, errors.New("harness.Main was not called")
	}
	root, err := Root()
	if err != nil {
		return Programs{}, err
	}
	args := []string{"build", "-o", dir + "/"}
	if Race() {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/...")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return Programs{}, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	p := Programs{filepath.Join(dir, "sheep"), filepath.Join(dir, "dog"), filepath.Join(dir, "collie")}
	return p, os.Symlink("dog", p.Collie)
})

// Race reports whether Build builds with the race detector, which makes
// everything slow.
func Race() bool { return os.Getenv("SHEEP_RACE") == "1" }

// Root returns the directory of this module's go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		dir = filepath.Dir(dir)
	}
	return "", errors.Join(errors.New("no go.mod above the working directory"), err)
}

// Need skips the test if one of the programs is not installed, and returns
// their paths.
func Need(t TB, programs ...string) []string {
	t.Helper()
	paths := make([]string, len(programs))
	for i, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			path, err = exec.LookPath(filepath.Join("/usr/sbin", name))
		}
		if err != nil {
			t.Skipf("%s is not installed", name)
		}
		paths[i] = path
	}
	return paths
}

// FromEnv skips the test if the variable is not set, and returns it otherwise.
func FromEnv(t TB, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Skipf("%s names no program", name)
	}
	return v
}

// Spawn starts cmd in a process group of its own. The kernel kills it when
// this process ends.
func Spawn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	done := make(chan error)
	spawner() <- func() { done <- cmd.Start() }
	return <-done
}

// spawner returns the queue of a thread that never ends: to the kernel a
// child's parent is a thread.
var spawner = sync.OnceValue(func() chan<- func() {
	queue := make(chan func())
	go func() {
		runtime.LockOSThread()
		for start := range queue {
			start()
		}
	}()
	return queue
})

// KillGroup ends the process group that cmd was started in.
func KillGroup(cmd *exec.Cmd) {
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
}
