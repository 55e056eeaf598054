package attach_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sheepdog/nbd/attach"
)

const diskSize = 1<<20 + 512

func config(s *fakeServer) attach.Config {
	return attach.Config{Addrs: []attach.Address{s.addr}, Export: "disk"}
}

func TestAttachTellsTheKernel(t *testing.T) {
	for _, test := range []struct {
		name  string
		flags attach.Flags
		cfg   attach.Config
		want  attach.Connection // without sockets and the name
		conns int
	}{
		{"one connection where more are not allowed", attach.SendFlush, attach.Config{},
			attach.Connection{Size: diskSize, BlockSize: 512, Timeout: 30 * time.Second, DeadTime: 10 * time.Minute, Flags: attach.HasFlags | attach.SendFlush}, 1},
		{"four where they are", attach.MultiConn, attach.Config{},
			attach.Connection{Size: diskSize, BlockSize: 512, Timeout: 30 * time.Second, DeadTime: 10 * time.Minute, Flags: attach.HasFlags | attach.MultiConn}, 4},
		{"what the caller wants", attach.MultiConn,
			attach.Config{HasIndex: true, Index: 3, Connections: 2, Timeout: time.Second, DeadTime: time.Minute, BlockSize: 4096, ReadOnly: true},
			attach.Connection{HasIndex: true, Index: 3, Size: 1 << 20, BlockSize: 4096, Timeout: time.Second, DeadTime: time.Minute,
				Flags: attach.HasFlags | attach.MultiConn | attach.ReadOnly}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, k := serve(t, diskSize, test.flags), newKernel(t)
			test.cfg.Addrs, test.cfg.Export = []attach.Address{s.addr}, "disk"
			d, err := k.host().Attach(t.Context(), test.cfg)
			if err != nil {
				t.Fatal(err)
			}
			uri := s.addr.URI("disk")
			if d.Path != k.host().Node(test.want.Index) || d.Size != test.want.Size || d.URI != uri || d.Connections != test.conns || d.ReadOnly != test.cfg.ReadOnly {
				t.Errorf("got the device %+v", d)
			}
			got := k.attached[0]
			if len(got.Sockets) != test.conns || got.Backend != uri {
				t.Errorf("the kernel got %+v", got)
			}
			got.Sockets, got.Backend = nil, ""
			if !equal(got, test.want) {
				t.Errorf("the kernel got %+v, want %+v", got, test.want)
			}
			if list, err := k.host().List(); err != nil || len(list) != 1 || list[0].Path != d.Path || list[0].URI != uri {
				t.Errorf("the list is %+v, %v", list, err)
			}
			if err := k.host().Detach(t.Context(), d.Index, false); err != nil {
				t.Error(err)
			}
			if list, err := k.host().List(); err != nil || len(list) != 0 {
				t.Errorf("after it was detached the list is %+v, %v", list, err)
			}
			if err := k.host().Detach(t.Context(), d.Index, false); !errors.Is(err, attach.ErrNotAttached) {
				t.Errorf("detached twice: %v", err)
			}
		})
	}
}

// equal compares what has no sockets.
func equal(a, b attach.Connection) bool {
	return a.Index == b.Index && a.HasIndex == b.HasIndex && a.Size == b.Size && a.BlockSize == b.BlockSize &&
		a.Timeout == b.Timeout && a.DeadTime == b.DeadTime && a.Flags == b.Flags
}

func TestAttachRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		size   uint64
		change func(*attach.Config, *fakeKernel, *attach.Host)
		want   error
		says   string
	}{
		{"an export that is not there", diskSize, func(c *attach.Config, _ *fakeKernel, _ *attach.Host) { c.Export = "nosuch" }, attach.ErrNoExport, `"nosuch"`},
		{"several connections where they are not allowed", diskSize, func(c *attach.Config, _ *fakeKernel, _ *attach.Host) { c.Connections = 2 }, attach.ErrNoMultiConn, `"disk"`},
		{"blocks that the kernel cannot use", diskSize, func(c *attach.Config, _ *fakeKernel, _ *attach.Host) { c.BlockSize = 8192 }, attach.ErrUnusable, "8192"},
		{"an empty disk", 0, func(*attach.Config, *fakeKernel, *attach.Host) {}, attach.ErrUnusable, "0 bytes"},
		{"a name that is too long", diskSize, func(c *attach.Config, _ *fakeKernel, _ *attach.Host) { c.Export = strings.Repeat("x", 5000) }, attach.ErrNoExport, "5000"},
		{"a device in use", diskSize, func(c *attach.Config, k *fakeKernel, _ *attach.Host) { c.HasIndex = true; k.refuses = syscall.EBUSY }, attach.ErrBusy, "nbd0"},
		{"those who may not", diskSize, func(_ *attach.Config, k *fakeKernel, _ *attach.Host) { k.refuses = syscall.EPERM }, attach.ErrRights, "CAP_SYS_ADMIN"},
		{"whatever the kernel refuses", diskSize, func(_ *attach.Config, k *fakeKernel, _ *attach.Host) { k.refuses = syscall.EINVAL }, syscall.EINVAL, "kernel refuses"},
		{"a kernel without NBD", diskSize, func(_ *attach.Config, k *fakeKernel, h *attach.Host) {
			os.Remove(filepath.Join(k.dir, "sys/module/nbd"))
			h.Open = noKernel
		}, attach.ErrNoKernel, "modprobe nbd"},
		{"a kernel that shows NBD to others", diskSize, func(_ *attach.Config, _ *fakeKernel, h *attach.Host) { h.Open = noKernel }, attach.ErrNoKernel, "network namespace"},
		{"a server that does not listen", diskSize, func(c *attach.Config, k *fakeKernel, _ *attach.Host) {
			c.Addrs[0], _ = attach.ParseAddress("unix:" + k.dir + "/nothing")
		}, fs.ErrNotExist, "connect to nbd server"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, k := serve(t, test.size, 0), newKernel(t)
			cfg, host := config(s), k.host()
			test.change(&cfg, k, &host)
			d, err := host.Attach(t.Context(), cfg)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %+v, %v", d, err)
			}
			if list, err := k.host().List(); err != nil || len(list) != 0 {
				t.Errorf("the list is %+v, %v", list, err)
			}
		})
	}
}

func noKernel() (attach.Kernel, error) { return nil, os.ErrNotExist }

func TestModuleIsLoaded(t *testing.T) {
	s, k := serve(t, diskSize, 0), newKernel(t)
	os.Remove(filepath.Join(k.dir, "sys/module/nbd"))
	host := k.host()
	open := host.Open
	loaded := false
	host.Open = func() (attach.Kernel, error) {
		if !loaded {
			return noKernel()
		}
		return open()
	}
	host.Load = func(context.Context) error { loaded = true; return nil }
	if _, err := host.Attach(t.Context(), config(s)); err != nil || !loaded {
		t.Errorf("loaded: %v, error: %v", loaded, err)
	}
}

func TestDeviceWithoutNodeIsGivenBack(t *testing.T) {
	s, k := serve(t, diskSize, 0), newKernel(t)
	k.noNodes = true
	_, err := k.host().Attach(t.Context(), config(s))
	if !errors.Is(err, attach.ErrNoNode) || !strings.Contains(err.Error(), "43:0") {
		t.Errorf("got %v", err)
	}
	if list, err := k.host().List(); err != nil || len(list) != 0 {
		t.Errorf("the list is %+v, %v", list, err)
	}
}

// TestSecondServerIsAsked has the first server of several be down.
func TestSecondServerIsAsked(t *testing.T) {
	s, k := serve(t, diskSize, 0), newKernel(t)
	down, err := attach.ParseAddress("unix:" + k.dir + "/nothing")
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(s)
	cfg.Addrs = []attach.Address{down, s.addr}
	if d, err := k.host().Attach(t.Context(), cfg); err != nil || d.URI != s.addr.URI("disk") {
		t.Errorf("got %+v, %v", d, err)
	}
}

// A watch is a running monitor.
type watch struct {
	cancel context.CancelFunc
	done   chan error
}

// monitor watches nbd0 with the servers and waits until it listens.
func monitor(t *testing.T, k *fakeKernel, conns int, servers ...*fakeServer) watch {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := watch{cancel, make(chan error, 1)}
	ready := make(chan struct{})
	cfg := attach.MonitorConfig{Connections: conns, Log: slog.New(slog.DiscardHandler), Ready: func() { close(ready) }}
	for _, s := range servers {
		cfg.Addrs = append(cfg.Addrs, s.addr)
	}
	ended := make(chan struct{})
	go func() {
		w.done <- k.host().Monitor(ctx, 0, cfg)
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	select {
	case <-ready:
	case err := <-w.done:
		t.Fatalf("the monitor ended: %v", err)
	}
	return w
}

func TestMonitor(t *testing.T) {
	first, second, k := serve(t, diskSize, attach.MultiConn), serve(t, diskSize, attach.MultiConn), newKernel(t)
	cfg := config(first)
	cfg.Connections = 2
	d, err := k.host().Attach(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := monitor(t, k, 2, first, second)
	offered := func(n int) {
		t.Helper()
		for range n {
			if c := <-k.offers; len(c.Sockets) != 1 || c.Backend != d.URI || c.Size != 0 {
				t.Fatalf("the kernel got %+v", c)
			}
		}
	}
	offered(2) // in place of what may have died before
	before := second.chosen()
	if before != 0 {
		t.Fatalf("%d connections to the second server, which is not needed", before)
	}
	first.becomes(diskSize, attach.MultiConn|attach.ReadOnly) // no more the disk that was attached
	k.deaths <- 7                                             // another device
	k.deaths <- 0
	k.deaths <- 0
	offered(2)
	if n := second.chosen(); n == 0 {
		t.Error("no connection to the second server")
	}
	offered(2) // the second look
	if err := k.host().Detach(t.Context(), 0, false); err != nil {
		t.Fatal(err)
	}
	if err := <-w.done; err != nil {
		t.Errorf("the monitor of a device that was detached ended with %v", err)
	}
	if len(k.offers) != 0 {
		t.Errorf("%d offers too many", len(k.offers))
	}
}

// TestMonitorWaits has the server be away for a while and the disk be larger
// when it comes back: connections that are still there know the old size, so the
// device keeps it.
func TestMonitorWaits(t *testing.T) {
	s, k := serve(t, diskSize, 0), newKernel(t)
	if _, err := k.host().Attach(t.Context(), config(s)); err != nil {
		t.Fatal(err)
	}
	monitor(t, k, 1, s)
	<-k.offers
	back := serve(t, 2*diskSize, 0)
	path := strings.TrimPrefix(s.addr.String(), "unix:")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	k.deaths <- 0
	select {
	case c := <-k.offers:
		t.Fatalf("the kernel got %+v from nowhere", c)
	case <-time.After(300 * time.Millisecond): // some attempts fail
	}
	if err := os.Rename(strings.TrimPrefix(back.addr.String(), "unix:"), path); err != nil {
		t.Fatal(err)
	}
	if c := <-k.offers; c.Size != 0 || len(c.Sockets) != 1 {
		t.Errorf("the kernel got %+v", c)
	}
}

// TestMonitorOfOldKernels has a kernel that does not remember exports.
func TestMonitorOfOldKernels(t *testing.T) {
	s, k := serve(t, diskSize, 0), newKernel(t)
	k.made(0, map[string]string{"pid": "1", "size": "16", "ro": "0"})
	cfg := attach.MonitorConfig{Addrs: []attach.Address{s.addr}, Log: slog.New(slog.DiscardHandler)}
	if err := k.host().Monitor(t.Context(), 0, cfg); !errors.Is(err, attach.ErrUnusable) {
		t.Errorf("without a name: %v", err)
	}
	cfg.Export, cfg.Connections = "disk", 1
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.host().Monitor(ctx, 0, cfg) }()
	if c := <-k.offers; c.Backend != "" || len(c.Sockets) != 1 {
		t.Errorf("the kernel got %+v", c)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestMonitorEndsWithTheContext(t *testing.T) {
	s, k := serve(t, diskSize, 0), newKernel(t)
	if _, err := k.host().Attach(t.Context(), config(s)); err != nil {
		t.Fatal(err)
	}
	w := monitor(t, k, 1)
	w.cancel()
	if err := <-w.done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if list, err := k.host().List(); err != nil || len(list) != 1 {
		t.Errorf("the device is gone: %v, %v", list, err)
	}
}

func TestDevices(t *testing.T) {
	k := newKernel(t)
	k.made(10, map[string]string{"pid": "1", "size": "16", "ro": "1"})
	k.made(2, map[string]string{"pid": "5", "size": "8", "ro": "0", "backend": "nbd://host:1/a%2Fb"})
	got, err := k.host().List()
	if err != nil || len(got) != 2 || got[0].Index != 2 || got[0].Size != 4096 || got[0].URI != "nbd://host:1/a%2Fb" ||
		got[1].Index != 10 || !got[1].ReadOnly || got[1].URI != "" {
		t.Errorf("got %+v, %v", got, err)
	}
	for s, want := range map[string]int64{
		"/dev/nbd0": 0, "nbd15": 15, "/dev/nbd1048575": 1048575,
		"/dev/nbd": -1, "/dev/nbd01": -1, "/dev/nbd0p1": -1, "/dev/nbd1048576": -1, "/dev/sda": -1, "disk": -1, "/dev/nbd-1": -1, "nbd+1": -1, "": -1,
	} {
		if n, ok := attach.ParseDevice(s); ok != (want >= 0) || ok && int64(n) != want {
			t.Errorf("%q: got %d, %v", s, n, ok)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, test := range []struct{ in, want, uri string }{
		{"localhost", "localhost:10809", "nbd://localhost:10809/a%2Fb@1"},
		{"10.0.0.1:7", "10.0.0.1:7", "nbd://10.0.0.1:7/a%2Fb@1"},
		{":7", "127.0.0.1:7", "nbd://127.0.0.1:7/a%2Fb@1"},
		{"::1", "[::1]:10809", "nbd://[::1]:10809/a%2Fb@1"},
		{"[::1]:7", "[::1]:7", "nbd://[::1]:7/a%2Fb@1"},
		{"unix:/run/a b", "unix:/run/a b", "nbd+unix:///a%2Fb@1?socket=/run/a%20b"},
		{"", "", ""}, {"host:", "", ""}, {"host:0", "", ""}, {"host:x", "", ""}, {"host:99999", "", ""},
		{"a:b:c", "", ""}, {"unix:", "", ""}, {"nbd://host", "", ""}, {"/run/sock", "", ""},
		{"unix:" + strings.Repeat("x", 108), "", ""},
	} {
		a, err := attach.ParseAddress(test.in)
		if (err == nil) != (test.want != "") || err == nil && a.String() != test.want {
			t.Errorf("%q: got %q, %v, want %q", test.in, a, err, test.want)
		}
		if err != nil {
			continue
		}
		if got := a.URI("a/b@1"); got != test.uri {
			t.Errorf("%q: the URI is %q, want %q", test.in, got, test.uri)
		}
		if back, export, err := attach.ParseURI(test.uri); err != nil || back != a || export != "a/b@1" {
			t.Errorf("%q is read as %v, %q, %v", test.uri, back, export, err)
		}
	}
	for _, uri := range []string{"", "nbds://host/x", "nbd:///x", "nbd+unix:///x", "%"} {
		if a, _, err := attach.ParseURI(uri); err == nil {
			t.Errorf("%q is read as %v", uri, a)
		}
	}
}
