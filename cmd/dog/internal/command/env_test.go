package command_test

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sheepdog/cmd/dog/internal/command"
	"sheepdog/cmd/dog/internal/fakesheep"
	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// sortedLines returns the lines of s in order.
func sortedLines(s string) string {
	return strings.Join(slices.Sorted(strings.Lines(s)), "")
}

func getenv(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestEnvironment(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	for _, test := range []struct {
		name string
		vars map[string]string
		args []string
		want result
	}{
		{"the environment says where the daemon is", map[string]string{"SHEEPDOG_DOG_ADDR": "127.0.0.9", "SHEEPDOG_DOG_PORT": "7005"},
			[]string{"vdi", "list", "-r"}, result{status: 2, stderr: strings.Repeat("failed to connect to 127.0.0.9:7005: Connection refused\n", 2)}},
		{"options come before the environment", map[string]string{"SHEEPDOG_DOG_ADDR": "127.0.0.9", "SHEEPDOG_DOG_PORT": "7005"},
			[]string{"vdi", "list", "-r", "-a", "127.0.0.1", "-p", "7000"}, result{}},
		{"a bad port in the environment is refused", map[string]string{"SHEEPDOG_DOG_PORT": "7000a"},
			[]string{"vdi", "list", "-r"}, result{status: 64, stderr: "Invalid port number '7000a'\n"}},
		{"a bad address in the environment is refused", map[string]string{"SHEEPDOG_DOG_ADDR": "bad..name"},
			[]string{"vdi", "list", "-r"}, result{status: 1, stderr: "Invalid ip address bad..name\n"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			wantResult(t, runEnv(t, c, command.Env{Args: test.args, Getenv: getenv(test.vars)}), test.want)
		})
	}
}

func TestInvocationIsLogged(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	path := filepath.Join(t.TempDir(), "log")
	vars := map[string]string{"SHEEPDOG_DOG_LOG": "1", "SHEEPDOG_DOG_LOG_PATH": path}
	runEnv(t, c, command.Env{Args: []string{"vdi", "list", "-r", "v2"}, Getenv: getenv(vars)})
	runEnv(t, c, command.Env{Args: []string{"node", "list"}, Getenv: getenv(vars)})
	got, err := os.ReadFile(path)
	if want := "2026 Nov 21 00:07:11 :  dog vdi list -r v2\n2026 Nov 21 00:07:11 :  dog node list\n"; err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestNodeFormat(t *testing.T) {
	dir := t.TempDir()
	c := fakesheep.New(0)
	mustRun(t, c, "", "node", "format", dir, "tree")
	got, err := os.ReadFile(filepath.Join(dir, "node_config"))
	if want := "tree" + strings.Repeat("\x00", 12); err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	wantResult(t, run(t, c, "", "node", "format", dir, "plain"),
		result{stderr: "config file already exists: " + dir + "/node_config\n", status: 2})
}

func TestNodesThatDoNotAnswer(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	c.Kill(1)
	r := run(t, c, "", "node", "info", "-r")
	want := "0 107374182400 0 107374182400 0%\n2 107374182400 0 107374182400 0%\nTotal 214748364800 0 214748364800 0% 0\n"
	if r.stdout != want || r.status != 0 || !strings.HasPrefix(r.stderr, "failed to connect to 127.0.0.1:7001") {
		t.Errorf("got %+v, want %q", r, want)
	}
	c.Fail(proto.OpStatSheep, proto.ResultShutdown)
	r = run(t, c, "", "node", "info")
	if r.status != 2 || !strings.HasSuffix(r.stderr, "Cannot get information from any nodes\n") {
		t.Errorf("got %+v", r)
	}
}

func TestRecoveryIsShown(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	c.Recovering(1, proto.RecoveryState{Active: true, Phase: proto.RecoveryRunning, Finished: 4, Total: 69})
	want := "Nodes In Recovery:\n  Id   Host:Port         V-Nodes       Zone       Progress\n" +
		"   1   127.0.0.1:7001        128          1        5.8%  4/69 objects, 12 MB fetched, 4.0 MB/s, 1m5s left\n"
	if got := mustRun(t, c, "", "node", "recovery"); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	if got := mustRun(t, c, "", "node", "recovery", "-r"); got != "1 127.0.0.1:7001 128 1 4 69\n" {
		t.Errorf("raw: got %q", got)
	}
	c.Plain = true
	want = strings.Split(want, "5.8%")[0] + "5.8%  4/69 objects\n"
	if got := mustRun(t, c, "", "node", "recovery"); got != want {
		t.Errorf("of C Sheepdog: got:\n%swant:\n%s", got, want)
	}
}

func TestHealingThatWaitsIsShown(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	c.Recovering(1, proto.RecoveryState{Active: true, Phase: proto.RecoveryRunning, Finished: 62, Total: 69})
	c.Absent(proto.AbsentNode{Node: sheep.Node{Addr: netip.MustParseAddrPort("127.0.0.1:7009")}, Since: 1700000000, Left: 252 * time.Second}, 7)
	for _, test := range []struct {
		args []string
		want string // a part of the output
	}{
		{[]string{"node", "recovery"}, "; 7 objects wait for 127.0.0.1:7009 for 4m12s\n"},
		{[]string{"node", "recovery", "--json"}, "\"waiting_objects\": 7,\n    \"waits_seconds\": 252\n"},
		{[]string{"node", "recovery", "-P", "-p", "7001"}, "7 objects wait for 127.0.0.1:7009 for 4m12s\n"},
		{[]string{"cluster", "info"}, "\n\nNode 127.0.0.1:7009 is absent: healing waits another 4m12s for it\n"},
		{[]string{"cluster", "info", "--json"}, "\"left_seconds\": 252,"},
		{[]string{"cluster", "recover", "delay"}, "Node 127.0.0.1:7009 is absent: healing waits another 4m12s for it\n"},
		{[]string{"node", "maintenance"}, "Node 127.0.0.1:7009 is absent: healing waits another 4m12s for it\n"},
	} {
		if got := mustRun(t, c, "", test.args...); !strings.Contains(got, test.want) {
			t.Errorf("dog %v: got:\n%swant %q", test.args, got, test.want)
		}
	}
	r := run(t, c, "", "cluster", "health")
	if want := "healing waits for 127.0.0.1:7009 another 4m12s: 7 copies are missing meanwhile\n"; r.status != 1 || !strings.Contains(r.stdout, want) || strings.Contains(r.stdout, "of 69 objects") {
		t.Errorf("health: %+v, want %q", r, want)
	}
	lone := fakesheep.Formatted(3, 2, 0)
	lone.Recovering(1, proto.RecoveryState{Active: true, Finished: 62, Total: 69})
	lone.Absent(proto.AbsentNode{Node: sheep.Node{Addr: netip.MustParseAddrPort("127.0.0.1:7009")}, Left: proto.Forever, Maintained: true}, 7)
	if got := mustRun(t, lone, "", "node", "recovery"); !strings.HasSuffix(got, "; 7 objects wait until 127.0.0.1:7009 is back\n") {
		t.Errorf("got:\n%s", got)
	}
	c.Absent(proto.AbsentNode{Node: sheep.Node{Addr: netip.MustParseAddrPort("127.0.0.1:7008")}, Left: proto.Forever, Maintained: true}, 9)
	if got := mustRun(t, c, "", "cluster", "info"); !strings.HasSuffix(got, "Node 127.0.0.1:7008 is being maintained: healing waits until it is back\n") {
		t.Errorf("maintenance: got:\n%s", got)
	}
}

// TestRecoveryIsWatchedUntilItEnds has two nodes recover one after the other.
func TestRecoveryIsWatchedUntilItEnds(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	c.Recovering(1, proto.RecoveryState{Active: true, Finished: 4, Total: 69})
	pauses := 0
	env := command.Env{Args: []string{"node", "recovery", "-w"}, StdoutWidth: 80, Pause: func(context.Context, time.Duration) error {
		pauses++
		c.Recovering(pauses-1, proto.RecoveryState{})
		if pauses < 3 {
			c.Recovering(pauses, proto.RecoveryState{Active: true, Finished: uint64(10 * pauses), Total: 40})
		}
		return nil
	}}
	r := runEnv(t, c, env)
	pictures := strings.Split(r.stdout, "\x1b[3A\x1b[J")
	if r.status != 0 || pauses != 3 || len(pictures) != 4 ||
		!strings.Contains(pictures[0], "4/69 objects") || !strings.Contains(pictures[1], "10/40") || !strings.Contains(pictures[2], "20/40") || strings.Contains(pictures[3], "objects") {
		t.Errorf("after %d pauses, status %d: %q", pauses, r.status, r.stdout)
	}
	env.StdoutWidth, pauses = 0, 0
	c.Recovering(1, proto.RecoveryState{Active: true, Finished: 4, Total: 69})
	if r := runEnv(t, c, env); strings.Contains(r.stdout, "\x1b") || strings.Count(r.stdout, "Nodes In Recovery") != 4 {
		t.Errorf("not on a terminal: %q", r.stdout)
	}
}

// TestADrainEndsWhenNothingDependsOnTheNode has a node recover for a while.
func TestADrainEndsWhenNothingDependsOnTheNode(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	c.Recovering(0, proto.RecoveryState{Active: true, Finished: 10, Total: 40})
	pauses := 0
	env := command.Env{Args: []string{"node", "drain", "2"}, StdoutWidth: 80, Pause: func(context.Context, time.Duration) error {
		if pauses++; pauses == 3 {
			c.Recovering(0, proto.RecoveryState{})
		} else {
			c.Recovering(0, proto.RecoveryState{Active: true, Finished: uint64(10 * (pauses + 1)), Total: 40})
		}
		return nil
	}}
	r := runEnv(t, c, env)
	if !strings.Contains(r.stdout, " 25.0 % [") || !strings.Contains(r.stdout, "Nothing depends on node 127.0.0.1:7002 any more, it may be stopped.\n") ||
		r.status != 0 || pauses != 3 {
		t.Errorf("got %+v after %d pauses", r, pauses)
	}
	c.Recovering(0, proto.RecoveryState{Active: true, Finished: 10, Total: 40})
	mustRun(t, c, "", "node", "drain", "2", "--undo")
	env.Pause = func(context.Context, time.Duration) error { return context.Canceled }
	env.Stdin = nil
	if r := runEnv(t, c, env); r.status != command.ExitSystem || !strings.HasSuffix(r.stderr, "--undo ends it\n") {
		t.Errorf("interrupted: got %+v", r)
	}
}

func TestWhatWaitsForItsCopiesIsShown(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	c.Recovering(1, proto.RecoveryState{Active: true, Phase: proto.RecoveryRunning, Finished: 4, Total: 69})
	r := run(t, c, "", "node", "recovery", "waiting")
	want := "  Id   Object            Since                Reason\n" +
		"   1   007c2b2500000003  2023-11-14 22:13:20  node 127.0.0.1:7009 is absent:; ask again\n"
	if r.status != 0 || r.stdout != want || r.stderr != "node 1 has 299 more\n" {
		t.Errorf("got %+v\nwant %q", r, want)
	}
	want = "1 007c2b2500000003 1700000000 node 127.0.0.1:7009 is absent:; ask again\n"
	if r := run(t, c, "", "node", "recovery", "waiting", "-r"); r.stdout != want {
		t.Errorf("raw: got %q, want %q", r.stdout, want)
	}
	r = run(t, c, "", "node", "recovery", "waiting", "--json")
	if !strings.Contains(r.stdout, `"object": "007c2b2500000003"`) || !strings.Contains(r.stdout, `"since": 1700000000`) {
		t.Errorf("JSON: got %q", r.stdout)
	}
	r = run(t, c, "", "cluster", "health")
	if r.status != 1 || !strings.HasPrefix(r.stdout, "degraded\nnode 127.0.0.1:7001 cannot make 300 objects current, the first of them since ") {
		t.Errorf("health: got %+v", r)
	}
}

func TestEpochsAreShown(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	c.Join(0, 1)
	c.Join(0, 1, 2)
	want := `Cluster status: running, auto-recovery enabled

Cluster created at Sat Nov 21 00:07:11 2026

Epoch Time           Version [Host:Port:V-Nodes,,,]
2026-11-21 00:09:11      3 [+127.0.0.1:7002]
2026-11-21 00:08:11      2 [-127.0.0.1:7002]
2026-11-21 00:07:11      1 [formated]
`
	if got := mustRun(t, c, "", "cluster", "info", "-d"); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	want = `1795219751 3 [127.0.0.1:7000:128, 127.0.0.1:7001:128, 127.0.0.1:7002:128]
1795219691 2 [127.0.0.1:7000:128, 127.0.0.1:7001:128]
1795219631 1 [127.0.0.1:7000:128, 127.0.0.1:7001:128, 127.0.0.1:7002:128]
`
	if got := mustRun(t, c, "", "cluster", "info", "-r"); !strings.HasSuffix(got, want) {
		t.Errorf("raw: got:\n%swant:\n%s", got, want)
	}
}

func TestClusterStates(t *testing.T) {
	for _, test := range []struct {
		result proto.Result
		want   string
	}{
		{proto.ResultWaitForFormat, "Cluster status: Waiting for cluster to be formatted\n\n"},
		{proto.ResultWaitForJoin, "Cluster status: Waiting for other nodes to join cluster\n\n"},
		{proto.ResultHalt, "Cluster status: IO has halted as there are not enough living nodes\n\n"},
		{proto.ResultShutdown, "Cluster status: System is shutting down\n\n"},
	} {
		c := fakesheep.Formatted(3, 2, 0)
		c.Fail(proto.OpStatCluster, test.result)
		if got := mustRun(t, c, "", "cluster", "info"); got != test.want {
			t.Errorf("%v: got %q, want %q", test.result, got, test.want)
		}
	}
}

func TestCompletion(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	mustRun(t, c, "", "vdi", "create", "alice", "1M")
	mustRun(t, c, "", "vdi", "create", "bob", "1M")
	for _, test := range []struct {
		name string
		line []string
		want []string // among the completions
	}{
		{"groups", []string{""}, []string{"vdi", "node", "cluster", "vm"}},
		{"commands of a group", []string{"vdi", "cr"}, []string{"create"}},
		{"third words", []string{"vdi", "object", ""}, []string{"location", "map", "dump-inode"}},
		{"names of VDIs", []string{"vdi", "read", ""}, []string{"alice", "bob"}},
		{"names of VDIs after a third word", []string{"vdi", "object", "map", ""}, []string{"alice", "bob"}},
		{"options", []string{"vdi", "list", "--r"}, []string{"--raw"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := run(t, c, "", append([]string{"__complete"}, test.line...)...)
			for _, want := range test.want {
				found := false
				for line := range strings.Lines(r.stdout) {
					word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
					found = found || word == want
				}
				if !found {
					t.Errorf("%q is not among:\n%s", want, r.stdout)
				}
			}
		})
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := mustRun(t, c, "", "completion", shell); !strings.Contains(got, "__complete") {
			t.Errorf("no script for %s", shell)
		}
	}
}

// TestStandardErrorComesFirst checks the order of merged output that scripts
// compare: what a command prints is held back until it has told its errors.
func TestStandardErrorComesFirst(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	c.Kill(0)
	var merged bytes.Buffer
	command.Run(t.Context(), command.Env{
		Program: "dog", Args: []string{"vdi", "list"}, Stdout: &merged, Stderr: &merged, Dial: c.Dial,
	})
	if !strings.HasPrefix(merged.String(), "failed to connect to") || !strings.HasSuffix(merged.String(), "Shift\n") {
		t.Errorf("got:\n%s", merged.String())
	}
}

func TestProgressBar(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	mustRun(t, c, "", "vdi", "create", "test", "16M")
	var stdout, stderr bytes.Buffer
	env := command.Env{Program: "dog", Stdout: &stdout, Stderr: &stderr, StdoutWidth: 80, Dial: c.Dial}
	env.Args = []string{"vdi", "create", "-P", "bar", "16M"}
	if status := command.Run(t.Context(), env); status != 0 {
		t.Fatalf("status %d: %s", status, stderr.String())
	}
	lines := strings.Split(stdout.String(), "\r")
	last := lines[len(lines)-1]
	want := "100.0 % [" + strings.Repeat("=", 50) + "] 16 MB / 16 MB"
	if strings.TrimRight(last, " \n") != want || len(last) != 81 {
		t.Errorf("got %q, want %q in 80 columns", last, want)
	}

	stdout.Reset()
	env.StdoutWidth, env.StderrWidth = 0, 80
	env.Args = []string{"vdi", "read", "bar"}
	if status := command.Run(t.Context(), env); status != 0 {
		t.Fatalf("status %d: %s", status, stderr.String())
	}
	if !strings.Contains(stderr.String(), "100.0 % [") || stdout.Len() != 16<<20 {
		t.Errorf("%d bytes on standard output, and on standard error %q", stdout.Len(), stderr.String())
	}
}
