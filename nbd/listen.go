package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// DefaultPort is the port of the protocol.
const DefaultPort = 10809

// An Address is where a server listens: HOST:PORT, :PORT for every address of
// the machine, unix:PATH, or systemd for the sockets that systemd has passed.
type Address struct {
	network string // "tcp", "unix" or "systemd"
	where   string
}

// ParseAddress parses an Address. Without a port it takes the default one.
func ParseAddress(s string) (Address, error) {
	if s == "systemd" {
		return Address{network: s}, nil
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path = strings.TrimPrefix(path, "//"); path == "" || strings.ContainsRune(path, 0) {
			return Address{}, fmt.Errorf("nbd address %q: no path", s)
		}
		return Address{"unix", path}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		if host, port, err = net.SplitHostPort(s + ":" + strconv.Itoa(DefaultPort)); err != nil || host == "" {
			return Address{}, fmt.Errorf("nbd address %q: neither HOST:PORT, :PORT, unix:PATH nor systemd", s)
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return Address{}, fmt.Errorf("nbd address %q: port %q is not a number up to 65535", s, port)
	} else if port = strconv.FormatUint(n, 10); strings.ContainsAny(host, "/ ") {
		return Address{}, fmt.Errorf("nbd address %q: bad host", s)
	}
	return Address{"tcp", net.JoinHostPort(host, port)}, nil
}

func (a Address) String() string {
	switch a.network {
	case "unix":
		return "unix:" + a.where
	case "systemd":
		return a.network
	}
	return a.where
}

// Public reports whether other machines can reach the address, as far as its
// text tells: unix sockets and loopback addresses are not public, host names
// other than localhost are. Ask PublicListener about systemd's sockets.
func (a Address) Public() bool {
	if a.network != "tcp" {
		return false
	}
	host, _, err := net.SplitHostPort(a.where)
	return err != nil || host != "localhost" && !loopback(host)
}

// PublicListener reports whether other machines can reach l.
func PublicListener(l net.Listener) bool {
	addr := l.Addr()
	if addr.Network() == "unix" {
		return false
	}
	host, _, err := net.SplitHostPort(addr.String())
	return err != nil || !loopback(host)
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Listen listens at a; only systemd may have passed more than one socket. A unix
// socket belongs to its owner alone (mode 0600); one that was left behind by a
// process that is no more is replaced.
func Listen(ctx context.Context, a Address) ([]net.Listener, error) {
	var l net.Listener
	var err error
	switch a.network {
	case "systemd":
		return activated()
	case "unix":
		l, err = listenUnix(ctx, a.where)
	case "tcp":
		var lc net.ListenConfig
		l, err = lc.Listen(ctx, a.network, a.where)
	default:
		err = errors.New("no address")
	}
	if err != nil {
		return nil, fmt.Errorf("listen for nbd clients at %v: %w", a, err)
	}
	return []net.Listener{l}, nil
}

// listenUnix binds a socket that is private from its first moment: the mode of
// the unbound socket is what the file gets.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		return errors.Join(rc.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), 0o600) }), err)
	}}
	return lc.Listen(ctx, "unix", path)
}

// removeStale removes the socket at path if nobody listens there.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != os.ModeSocket:
		return fmt.Errorf("%s is in the way: %w", path, os.ErrExist)
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		nc.Close()
		return fmt.Errorf("%s: %w", path, syscall.EADDRINUSE)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	}
	return err
}

// firstActivated is the first descriptor that systemd passes.
const firstActivated = 3

// activated returns the sockets that systemd has passed to this process. Their
// descriptors stay open, for a program that starts itself again in its place.
func activated() ([]net.Listener, error) {
	pid, _ := strconv.Atoi(os.Getenv("LISTEN_PID"))
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if pid != os.Getpid() || n <= 0 || n > 1024 {
		return nil, errors.New("listen for nbd clients: systemd has passed no sockets (LISTEN_PID, LISTEN_FDS)")
	}
	var all []net.Listener
	for fd := firstActivated; fd < firstActivated+n; fd++ {
		l, err := listenerOf(fd)
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, fmt.Errorf("listen for nbd clients at descriptor %d: %w", fd, err)
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // the path is systemd's
		}
		all = append(all, l)
	}
	return all, nil
}

// listenerOf returns the listener of a descriptor that it leaves as it is.
func listenerOf(fd int) (net.Listener, error) {
	copied, err := syscall.Dup(fd)
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(copied)
	f := os.NewFile(uintptr(copied), "systemd socket "+strconv.Itoa(fd))
	defer f.Close()
	return net.FileListener(f)
}
