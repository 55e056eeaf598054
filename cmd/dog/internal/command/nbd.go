package command

import (
	"cmp"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sheepdog/nbd/attach"
)

// Where the NBD server is, unless options or the environment say otherwise:
// at the socket if there is one, else at the port.
const (
	nbdSocket  = "/run/sheepdog/nbd.sock"
	nbdAddress = "127.0.0.1:10809"
	nbdVar     = "SHEEPDOG_NBD_ADDR"
)

// An nbdSettings is what the options of the nbd commands say.
type nbdSettings struct {
	addrs                           []attach.Address
	connections                     int
	timeout, deadTime               time.Duration
	blockSize                       uint32
	readOnly, noMonitor, foreground bool
	log                             string
}

func nbdOptions() []option {
	return []option{
		valued("n", "nbd-addr", "specify the NBD address of a sheep, HOST[:PORT] or\nunix:PATH; of several (a,b or -n a -n b) the first\nthat answers is taken (default: $"+nbdVar+",\n"+nbdSocket+" if it exists, "+nbdAddress+")",
			parseNBDAddresses),
		valued("c", "connections", "make so many connections (default: 4)", func(o *options, s string) error {
			n, err := parsePositive(s, "The number of connections must be between 1 and 64")
			if err == nil && n > attach.MaxConnections {
				err = fail(ExitFailure, "The number of connections must be between 1 and 64")
			}
			o.nbd.connections = int(n)
			return err
		}),
		valued("t", "timeout", "give a connection up when a request takes longer,\nin seconds (default: 30)", func(o *options, s string) (err error) {
			o.nbd.timeout, err = parseSeconds(s, "The time-out")
			return err
		}),
		valued("d", "dead-timeout", "without any connection let requests fail after so\nmany seconds (default: 600)", func(o *options, s string) (err error) {
			o.nbd.deadTime, err = parseSeconds(s, "The time-out of dead connections")
			return err
		}),
		valued("b", "block-size", "specify the block size of the device (default: 512)", func(o *options, s string) error {
			n, err := strconv.ParseUint(s, 10, 32)
			if err != nil || n < 512 || n > 4096 || n&(n-1) != 0 {
				return fail(ExitFailure, "The block size must be 512, 1024, 2048 or 4096")
			}
			o.nbd.blockSize = uint32(n)
			return nil
		}),
		toggle("R", "read-only", "let nobody write to the device", func(o *options) *bool { return &o.nbd.readOnly }),
		toggle("M", "no-monitor", "do not stay to replace connections that die", func(o *options) *bool { return &o.nbd.noMonitor }),
		toggle("F", "foreground", "stay in the foreground, and detach when ended", func(o *options) *bool { return &o.nbd.foreground }),
		valued("l", "log", "let the monitor log to this file (default: syslog)", func(o *options, s string) (err error) {
			if s == "" {
				return fail(ExitFailure, "The name of the log file must not be empty")
			}
			o.nbd.log, err = filepath.Abs(s)
			return err
		}),
		toggle("f", "force", "do it though the device is in use, or the disk\nattached already", func(o *options) *bool { return &o.force }),
	}
}

func parseNBDAddresses(o *options, s string) error {
	for one := range strings.SplitSeq(s, ",") {
		where := one
		if path, ok := strings.CutPrefix(one, "unix:"); ok && path != "" {
			abs, err := filepath.Abs(path) // a monitor works elsewhere
			if err != nil {
				return err
			}
			where = "unix:" + abs
		}
		a, err := attach.ParseAddress(where)
		if err != nil {
			return fail(ExitFailure, "Invalid NBD address '%s': it must be HOST, HOST:PORT or unix:PATH", one)
		}
		o.nbd.addrs = append(o.nbd.addrs, a)
	}
	return nil
}

func parseSeconds(s, what string) (time.Duration, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n <= 0 || n > math.MaxInt32/1000 {
		return 0, fail(ExitFailure, "%s must be a number of seconds, at least 1", what)
	}
	return time.Duration(n) * time.Second, nil
}

// nbdServers returns where to look for exports.
func (s *session) nbdServers() ([]attach.Address, error) {
	if len(s.opts.nbd.addrs) == 0 {
		where := s.app.env.Getenv(nbdVar)
		if info, err := os.Stat(nbdSocket); where == "" && err == nil && info.Mode().Type() == os.ModeSocket {
			where = "unix:" + nbdSocket
		}
		if err := parseNBDAddresses(&s.opts, cmp.Or(where, nbdAddress)); err != nil {
			return nil, err
		}
	}
	return s.opts.nbd.addrs, nil
}

// nbdFailed returns the failure that an error of package attach stands for: what
// is neither the server's answer nor a matter of which device is the system's.
func nbdFailed(err error) *failure {
	for _, answer := range []error{
		attach.ErrRefused, attach.ErrNoExport, attach.ErrNeedsTLS, attach.ErrServer, attach.ErrNoMultiConn,
		attach.ErrBusy, attach.ErrNotAttached, attach.ErrUnusable,
	} {
		if errors.Is(err, answer) {
			return fail(ExitFailure, "Failed: %v", err)
		}
	}
	return fail(ExitSystem, "Failed: %v", err)
}

// attached returns the device that the argument names, or that the export of
// this name is attached to.
func (s *session) attached(arg string) (attach.Device, error) {
	host := s.app.env.Host
	if index, ok := attach.ParseDevice(arg); ok {
		d, err := host.Device(index)
		if err != nil {
			return attach.Device{}, nbdFailed(err)
		}
		return d, nil
	}
	if strings.HasPrefix(arg, "/") {
		return attach.Device{}, badUsage("Invalid device '%s': it must be /dev/nbdN", arg)
	}
	all, err := host.List()
	if err != nil {
		return attach.Device{}, nbdFailed(err)
	}
	var found []attach.Device
	for _, d := range all {
		at, export, err := attach.ParseURI(d.URI)
		if err == nil && export == arg && s.meant(at) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return attach.Device{}, fail(ExitFailure, "%s is not attached", arg)
	case 1:
		return found[0], nil
	}
	f := fail(ExitFailure, "%s is attached more than once, please name the device:", arg)
	for _, d := range found {
		f.and("  %s %s", d.Path, d.URI)
	}
	return attach.Device{}, f
}

// meant reports whether the options allow for a device that is attached at a:
// where they name servers, only their devices are meant.
func (s *session) meant(a attach.Address) bool {
	if slices.Contains(s.opts.nbd.addrs, a) {
		return true
	}
	return len(s.opts.nbd.addrs) == 0
}

// guessExport returns what can be attached.
func guessExport(ctx context.Context, s *session) []string {
	addrs, err := s.nbdServers()
	if err != nil {
		return nil
	}
	list, err := attach.Exports(ctx, addrs[0])
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
	}
	return names
}

// guessDevice returns what can be detached.
func guessDevice(_ context.Context, s *session) []string {
	all, err := s.app.env.Host.List()
	if err != nil {
		return nil
	}
	var names []string
	for _, d := range all {
		names = append(names, d.Path)
	}
	return names
}
