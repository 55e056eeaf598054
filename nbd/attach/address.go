package attach

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// DefaultPort is the port of the protocol.
const DefaultPort = 10809

// An Address is where an NBD server listens: HOST:PORT or unix:PATH.
type Address struct {
	network string // "tcp" or "unix"
	where   string
}

// ParseAddress parses HOST, HOST:PORT, :PORT (of this machine) or unix:PATH.
func ParseAddress(s string) (Address, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" || strings.ContainsRune(path, 0) || len(path) > maxSocketPath {
			return Address{}, fmt.Errorf("nbd address %q: no path of a socket", s)
		}
		return Address{"unix", path}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"), strconv.Itoa(DefaultPort)
		if strings.Contains(host, ":") && net.ParseIP(host) == nil {
			host = ""
		}
	} else if host == "" {
		host = "127.0.0.1"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" || strings.ContainsAny(host, "/ \x00@?#") {
		return Address{}, fmt.Errorf("nbd address %q: neither HOST[:PORT] nor unix:PATH", s)
	}
	return Address{"tcp", net.JoinHostPort(host, strconv.FormatUint(n, 10))}, nil
}

// maxSocketPath is the longest path that the kernel takes for a UNIX socket.
const maxSocketPath = 107

func (a Address) String() string {
	if a.network == "unix" {
		return "unix:" + a.where
	}
	return a.where
}

// URI returns the name of an export at a, as NBD clients write it.
func (a Address) URI(export string) string {
	if a.network == "unix" {
		u := url.URL{Scheme: "nbd+unix", Path: "/" + export, RawPath: "/" + url.PathEscape(export)}
		// The scheme has no host, and yet two slashes.
		return "nbd+unix://" + u.EscapedPath() + "?socket=" + escapeQuery(a.where)
	}
	u := url.URL{Scheme: "nbd", Host: a.where, Path: "/" + export, RawPath: "/" + url.PathEscape(export)}
	return u.String()
}

// escapeQuery keeps the slashes of a path readable.
func escapeQuery(path string) string {
	return strings.ReplaceAll(strings.ReplaceAll(url.QueryEscape(path), "+", "%20"), "%2F", "/")
}

// ParseURI takes apart what URI has made.
func ParseURI(s string) (a Address, export string, err error) {
	u, err := url.Parse(s)
	if err != nil {
		return Address{}, "", fmt.Errorf("nbd uri %q: no URI", s)
	}
	where := u.Host
	switch u.Scheme {
	case "nbd":
	case "nbd+unix":
		where = "unix:" + u.Query().Get("socket")
	default:
		return Address{}, "", fmt.Errorf("nbd uri %q: neither nbd nor nbd+unix", s)
	}
	if a, err = ParseAddress(where); err != nil {
		return Address{}, "", err
	}
	return a, strings.TrimPrefix(u.Path, "/"), nil
}
