package command_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sheepdog/cmd/dog/internal/command"
	"sheepdog/cmd/dog/internal/fakesheep"
	"sheepdog/nbd"
	"sheepdog/nbd/attach"
)

// Two disks that can be opened and then do nothing.
type exports struct{}

func (exports) List(context.Context) ([]nbd.Export, error) {
	return []nbd.Export{{Name: "alice", Description: "a disk"}, {Name: "alice@one", Description: "a \x1b[1m snapshot"}}, nil
}

func (exports) Stat(_ context.Context, name string) (nbd.Info, error) {
	switch name {
	case "alice":
		return nbd.Info{Size: 64 << 20, MultiConn: true, Preferred: 4096}, nil
	case "alice@one":
		return nbd.Info{Size: 32 << 20, ReadOnly: true, MultiConn: true, Preferred: 4096}, nil
	}
	return nbd.Info{}, syscall.ENOENT
}

func (e exports) Open(ctx context.Context, name string) (nbd.Device, error) {
	info, err := e.Stat(ctx, name)
	return idle{info: info}, err
}

type idle struct {
	nbd.Device
	info nbd.Info
}

func (d idle) Info() nbd.Info              { return d.info }
func (d idle) Flush(context.Context) error { return nil }
func (d idle) Close() error                { return nil }

// A kernel is one without devices to begin with, under its directory.
type kernel struct{ dir string }

func (k kernel) Connect(_ context.Context, c attach.Connection) (uint32, error) {
	dir := filepath.Join(k.dir, "sys/block", fmt.Sprintf("nbd%d", c.Index))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	ro := fmt.Sprint(c.Flags >> 1 & 1)
	for name, text := range map[string]string{"pid": "1", "size": fmt.Sprint(c.Size / 512), "ro": ro, "backend": c.Backend} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o644); err != nil {
			return 0, err
		}
	}
	return c.Index, os.WriteFile(filepath.Join(k.dir, fmt.Sprintf("dev/nbd%d", c.Index)), nil, 0o644)
}

func (k kernel) Reconfigure(context.Context, uint32, attach.Connection) error { return nil }

func (k kernel) Disconnect(_ context.Context, index uint32) error {
	return os.RemoveAll(filepath.Join(k.dir, "sys/block", fmt.Sprintf("nbd%d", index)))
}

func (k kernel) Deaths(ctx context.Context, ready func(), _ func(uint32), _ func()) error {
	ready()
	<-ctx.Done()
	return context.Cause(ctx)
}

func (k kernel) Close() error { return nil }

// An nbdWorld is a server and a machine that is its client.
type nbdWorld struct {
	dir, addr string
	started   [][]string // what was started in the background
	host      attach.Host
}

func newNBDWorld(t *testing.T) *nbdWorld {
	t.Helper()
	w := &nbdWorld{dir: t.TempDir()}
	for _, dir := range []string{"sys/block", "dev"} {
		if err := os.MkdirAll(filepath.Join(w.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.host = attach.Host{
		Sys: filepath.Join(w.dir, "sys"), Dev: filepath.Join(w.dir, "dev"), Proc: filepath.Join(w.dir, "proc"),
		Open: func() (attach.Kernel, error) { return kernel{w.dir}, nil },
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- nbd.NewServer(exports{}, nbd.Config{}).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return w
}

// run runs dog nbd; what it says about this world's directory and the server's
// address is told by DIR and ADDR.
func (w *nbdWorld) run(t *testing.T, args ...string) result {
	t.Helper()
	r := runEnv(t, fakesheep.New(0), command.Env{
		Args: append([]string{"nbd"}, args...), Getenv: getenv(map[string]string{"SHEEPDOG_NBD_ADDR": w.addr}), Host: w.host,
		Background: func(_ context.Context, args []string) error {
			w.started = append(w.started, args)
			return nil
		},
	})
	for _, s := range []*string{&r.stdout, &r.stderr} {
		*s = strings.NewReplacer(w.dir, "DIR", w.addr, "ADDR").Replace(*s)
	}
	return r
}

func TestNBDLife(t *testing.T) {
	w := newNBDWorld(t)
	none := "  Name                     Size  Device        Description\n" +
		"  alice                   64 MB  -             a disk\n" +
		"r alice@one               32 MB  -             \"a \\x1b[1m snapshot\"\n"
	for _, step := range []struct {
		args string
		want result
	}{
		{"list", result{stdout: none}},
		{"attach alice /dev/nbd1 -c 2 -l /log", result{stdout: "DIR/dev/nbd1\n"}},
		{"list -r", result{stdout: "- \"alice\" 67108864 DIR/dev/nbd1\nr \"alice@one\" 33554432 -\n"}},
		{"attach alice", result{status: 1, stderr: "alice is attached already, as DIR/dev/nbd1\n"}},
		{"attach alice@one -M", result{stdout: "DIR/dev/nbd0\n"}},
		{"attach nosuch", result{status: 1, stderr: "Failed: nbd export \"nosuch\": nbd server ADDR: refused: no such export\n"}},
		{"attach alice@one nbd2 -b 4096 -c 65", result{status: 1, stderr: "The number of connections must be between 1 and 64\n"}},
		{"list --json", result{stdout: `[
  {
    "name": "alice",
    "size": 67108864,
    "read_only": false,
    "exported": true,
    "description": "a disk",
    "device": "DIR/dev/nbd1",
    "uri": "nbd://ADDR/alice"
  },
  {
    "name": "alice@one",
    "size": 33554432,
    "read_only": true,
    "exported": true,
    "description": "a \u001b[1m snapshot",
    "device": "DIR/dev/nbd0",
    "uri": "nbd://ADDR/alice@one"
  }
]
`}},
		{"detach alice@one", result{}},
		{"detach nbd1", result{}},
		{"detach alice", result{status: 1, stderr: "alice is not attached\n"}},
		{"detach /dev/nbd1", result{status: 1, stderr: "Failed: DIR/dev/nbd1: not attached\n"}},
		{"monitor alice", result{status: 1, stderr: "alice is not attached\n"}},
		{"list", result{stdout: none}},
	} {
		t.Run(step.args, func(t *testing.T) { wantResult(t, w.run(t, strings.Fields(step.args)...), step.want) })
	}
	want := [][]string{{"nbd", "monitor", "--connections", "2", "--nbd-addr", w.addr, "--log", "/log", "--", filepath.Join(w.dir, "dev/nbd1"), "alice"}}
	if fmt.Sprint(w.started) != fmt.Sprint(want) {
		t.Errorf("started in the background: %q, want %q", w.started, want)
	}
}

// TestNBDListWithoutServer has devices that are attached to another server.
func TestNBDListWithoutServer(t *testing.T) {
	w := newNBDWorld(t)
	if r := w.run(t, "attach", "alice", "-M"); r.status != 0 {
		t.Fatalf("got %+v", r)
	}
	sock := filepath.Join(w.dir, "nothing")
	wantResult(t, w.run(t, "list", "-n", "unix:"+sock), result{
		status: 2, stderr: "Failed: connect to nbd server unix:DIR/nothing: connect: no such file or directory\n",
		stdout: "  Name                     Size  Device        Description\n" +
			"  alice                   64 MB  DIR/dev/nbd0  nbd://ADDR/alice\n",
	})
	wantResult(t, w.run(t, "detach", "alice", "-n", "unix:"+sock), result{status: 1, stderr: "alice is not attached\n"})
	wantResult(t, w.run(t, "detach", "alice"), result{})
}

func TestNBDWithoutKernel(t *testing.T) {
	w := newNBDWorld(t)
	w.host.Open = func() (attach.Kernel, error) { return nil, os.ErrNotExist }
	r := w.run(t, "attach", "alice")
	if r.status != 2 || r.stdout != "" || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, "modprobe nbd") {
		t.Errorf("got %+v", r)
	}
}

func TestNBDCompletion(t *testing.T) {
	w := newNBDWorld(t)
	if r := w.run(t, "attach", "alice", "-M"); r.status != 0 {
		t.Fatalf("got %+v", r)
	}
	for command, want := range map[string]string{"attach": "alice\nalice@one\n", "detach": filepath.Join(w.dir, "dev/nbd0") + "\n"} {
		r := runEnv(t, fakesheep.New(0), commandEnv(w, "__complete", "nbd", command, ""))
		if !strings.HasPrefix(r.stdout, want) {
			t.Errorf("%s: got %q, want %q", command, r.stdout, want)
		}
	}
}

func commandEnv(w *nbdWorld, args ...string) command.Env {
	return command.Env{Args: args, Getenv: getenv(map[string]string{"SHEEPDOG_NBD_ADDR": w.addr}), Host: w.host}
}
