package tests_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sheepdog/tests/harness"
)

// TestTheDemonstration runs what make demo and make demo-stop run.
func TestTheDemonstration(t *testing.T) {
	programs := harness.Build(t)
	dir, err := os.MkdirTemp("", "demo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ports := harness.FreePorts(t, 3)
	demo := func(verb string) string {
		t.Helper()
		cmd := exec.Command("demo/demo.sh", verb)
		cmd.Env = append(os.Environ(), "DEMO_DIR="+filepath.Join(dir, "data"), "DEMO_BIN="+filepath.Dir(programs.Sheep), "DEMO_PORT="+strconv.Itoa(ports))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("demo.sh %s: %v\n%s", verb, err, out)
		}
		return string(out)
	}
	defer demo("stop")
	out := demo("start")
	if n := strings.Count(out, "the same as was written"); n != 2 {
		t.Errorf("the data was found right %d times, want twice:\n%s", n, out)
	}
	if !strings.Contains(out, "make demo-stop") {
		t.Error("it does not say how to end it")
	}
	demo("stop")
	if _, err := os.Stat(filepath.Join(dir, "data")); !os.IsNotExist(err) {
		t.Errorf("demo.sh stop leaves its data behind: %v", err)
	}
	if left := processesOf(t, programs.Sheep); left != "" {
		t.Errorf("demo.sh stop leaves processes behind: %s", left)
	}
}

// processesOf lists the processes that run a program.
func processesOf(t *testing.T, program string) string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, l := range links {
		if exe, err := os.Readlink(l); err == nil && exe == program {
			found = append(found, l)
		}
	}
	return strings.Join(found, " ")
}
