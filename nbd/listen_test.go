package nbd_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"sheepdog/nbd"
)

func TestParseAddress(t *testing.T) {
	for _, tc := range []struct {
		in, out string // "" is an error
		public  bool
	}{
		{"127.0.0.1:10809", "127.0.0.1:10809", false},
		{"127.0.0.1", "127.0.0.1:10809", false},
		{"[::1]:1", "[::1]:1", false},
		{"[::1]", "[::1]:10809", false},
		{"localhost:1", "localhost:1", false},
		{":10809", ":10809", true},
		{"0.0.0.0:1", "0.0.0.0:1", true},
		{"10.1.2.3", "10.1.2.3:10809", true},
		{"disks.example.org:7", "disks.example.org:7", true},
		{"unix:/run/nbd.sock", "unix:/run/nbd.sock", false},
		{"unix:///run/nbd.sock", "unix:/run/nbd.sock", false},
		{"systemd", "systemd", false},
		{"", "", false},
		{"unix:", "", false},
		{"127.0.0.1:x", "", false},
		{"127.0.0.1:65536", "", false},
		{"/run/nbd.sock", "", false},
		{"tcp://1.2.3.4:5", "", false},
	} {
		a, err := nbd.ParseAddress(tc.in)
		if (err != nil) != (tc.out == "") {
			t.Errorf("%q: %v", tc.in, err)
			continue
		}
		if err == nil && (a.String() != tc.out || a.Public() != tc.public) {
			t.Errorf("%q is %v, public %v, want %v, %v", tc.in, a, a.Public(), tc.out, tc.public)
		}
	}
}

func listen(t *testing.T, s string) (net.Listener, error) {
	t.Helper()
	a, err := nbd.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	l, err := nbd.Listen(t.Context(), a)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { l[0].Close() })
	return l[0], nil
}

func TestUnixSocketsArePrivateAndReplaceOnlyTheDead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := listen(t, "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	if nbd.PublicListener(l) {
		t.Error("the socket counts as public")
	}
	if _, err := listen(t, "unix:"+path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listening twice: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if l, err = listen(t, "unix:"+path); err != nil {
		t.Fatalf("a dead socket stays in the way: %v", err)
	}
	l.Close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(t, "unix:"+path); err == nil {
		t.Error("a file was replaced by a socket")
	}
}

func TestPublicListener(t *testing.T) {
	for at, want := range map[string]bool{"127.0.0.1:0": false, ":0": true} {
		l, err := listen(t, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := nbd.PublicListener(l); got != want {
			t.Errorf("%s is public: %v", at, got)
		}
	}
}

func TestActivationNeedsSystemd(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "1")
	if _, err := listen(t, "systemd"); err == nil {
		t.Error("took the sockets of another process")
	}
}
