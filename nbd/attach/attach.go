package attach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Config says what to attach and how. The zero values of all but Addrs and
// Export are good.
type Config struct {
	Addrs  []Address // of servers of the same export, the first one that answers is taken
	Export string

	Index    uint32 // of the device, if HasIndex; otherwise the kernel chooses
	HasIndex bool

	Connections int           // 0: 4 if the server allows several, else 1
	Timeout     time.Duration // of a request, after which its connection is given up; 0: 30 s
	DeadTime    time.Duration // how long requests wait for a new connection before they fail; 0: 10 min
	BlockSize   uint32        // of the device, 0: 512, or more if the server wants more
	ReadOnly    bool          // though the server would allow writes
}

const (
	defaultConnections = 4
	defaultTimeout     = 30 * time.Second
	defaultDeadTime    = 10 * time.Minute

	// MaxConnections is the most connections that a device can have here; the
	// kernel has no limit, and beyond a few there is no gain.
	MaxConnections = 64

	maxBlockSize = 4096 // the kernel's pages
	maxURI       = 2048 // the kernel shows it on a page
)

func (c Config) withDefaults() Config {
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.DeadTime <= 0 {
		c.DeadTime = defaultDeadTime
	}
	return c
}

// ErrNoMultiConn means that the server does not allow several connections to
// an export.
var ErrNoMultiConn = errors.New("the server does not allow several connections to this export")

// Attach attaches an export and returns the device, which can be used at once.
// Nothing is attached if it returns an error.
func (h Host) Attach(ctx context.Context, cfg Config) (Device, error) {
	cfg = cfg.withDefaults()
	k, err := h.kernel(ctx)
	if err != nil {
		return Device{}, err
	}
	defer k.Close()
	conns, at, info, err := connectAll(ctx, cfg)
	defer func() {
		for _, nc := range conns {
			nc.Close() // the kernel has its own references
		}
	}()
	if err != nil {
		return Device{}, err
	}
	c, err := cfg.connection(at, info)
	if err != nil {
		return Device{}, err
	}
	index, err := hand(conns, func(fds []int) (uint32, error) {
		c.Sockets = fds
		return k.Connect(ctx, c)
	})
	if err != nil {
		return Device{}, h.explain(cfg, err)
	}
	d, err := h.await(ctx, index)
	if err != nil {
		return Device{}, errors.Join(err, k.Disconnect(context.WithoutCancel(ctx), index))
	}
	d.Connections = len(conns)
	return d, nil
}

// connection returns what the kernel is told about an export.
func (c Config) connection(at Address, info Info) (Connection, error) {
	block := c.BlockSize
	if block == 0 {
		block = max(sector, info.MinBlock)
	}
	uri := at.URI(c.Export)
	switch {
	case block < sector || block > maxBlockSize || block&(block-1) != 0 || block < info.MinBlock:
		return Connection{}, fmt.Errorf("nbd export %q: %w: the kernel cannot use blocks of %d bytes, only powers of two from %d to %d",
			c.Export, ErrUnusable, block, max(sector, info.MinBlock), maxBlockSize)
	case info.Size < uint64(block):
		return Connection{}, fmt.Errorf("nbd export %q: %w: %d bytes are less than a block", c.Export, ErrUnusable, info.Size)
	case len(uri) > maxURI:
		return Connection{}, fmt.Errorf("nbd export %q: %w: the name is too long for the kernel", c.Export, ErrUnusable)
	}
	flags := info.Flags
	if c.ReadOnly {
		flags |= ReadOnly
	}
	return Connection{
		Index: c.Index, HasIndex: c.HasIndex, Size: info.Size &^ uint64(block-1), BlockSize: uint64(block),
		Timeout: c.Timeout, DeadTime: c.DeadTime, Flags: flags, Backend: uri,
	}, nil
}

// connectAll makes the connections of a device, all to the first server that
// offers the export. The caller closes them even if there is an error.
func connectAll(ctx context.Context, cfg Config) (conns []net.Conn, at Address, info Info, err error) {
	var first net.Conn
	if first, at, info, err = chooseFirst(ctx, cfg.Addrs, cfg.Export); err != nil {
		return nil, at, info, err
	}
	conns = append(conns, first)
	n := cfg.Connections
	if n == 0 && info.Flags&MultiConn != 0 {
		n = defaultConnections
	}
	if n > 1 && info.Flags&MultiConn == 0 {
		return conns, at, info, fmt.Errorf("nbd export %q: %w", cfg.Export, ErrNoMultiConn)
	}
	for len(conns) < n {
		nc, _, err := choose(ctx, at, cfg.Export)
		if err != nil {
			return conns, at, info, err
		}
		conns = append(conns, nc)
	}
	return conns, at, info, nil
}

// chooseFirst connects to the first server that offers the export.
func chooseFirst(ctx context.Context, addrs []Address, export string) (net.Conn, Address, Info, error) {
	var failed []error
	for _, a := range addrs {
		nc, info, err := choose(ctx, a, export)
		if err == nil {
			return nc, a, info, nil
		}
		failed = append(failed, err)
	}
	return nil, Address{}, Info{}, all(failed)
}

// An errorList is one error for each server that was tried, in one line.
type errorList []error

func all(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errorList(errs)
}

func (e errorList) Unwrap() []error { return e }

func (e errorList) Error() string {
	var b strings.Builder
	for i, err := range e {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(err.Error())
	}
	return b.String()
}

// hand calls fn with the descriptors of the connections.
func hand[T any](conns []net.Conn, fn func(fds []int) (T, error)) (T, error) {
	var fds []int
	for _, nc := range conns {
		f, err := nc.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			var none T
			return none, err
		}
		defer f.Close()
		fds = append(fds, int(f.Fd()))
	}
	return fn(fds)
}

// explain turns the kernel's refusal into words.
func (h Host) explain(cfg Config, err error) error {
	what := "attach"
	if cfg.HasIndex {
		what += " " + h.Node(cfg.Index)
	}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: %w: run it as root, in a container with CAP_SYS_ADMIN of the host", what, ErrRights)
	case errors.Is(err, unix.EBUSY) && cfg.HasIndex:
		return fmt.Errorf("%s: %w", h.Node(cfg.Index), ErrBusy)
	}
	return fmt.Errorf("%s: the kernel refuses: %w", what, err)
}

// nodeTime is how long udev may take to make the node of a device.
const nodeTime = 5 * time.Second

// await waits until the device can be opened.
func (h Host) await(ctx context.Context, index uint32) (Device, error) {
	ctx, cancel := context.WithTimeout(ctx, nodeTime)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond) // nothing tells about new nodes where there is no udev
	defer tick.Stop()
	for {
		d, err := h.Device(index)
		if err != nil {
			return Device{}, err
		}
		if _, err = os.Stat(d.Path); err == nil {
			return d, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			number, _ := readLine(h.sys("block", fmt.Sprintf("nbd%d", index), "dev"))
			return Device{}, fmt.Errorf("%s: %w: is this a container? Then give it the host's /dev/nbd* (major:minor is %s here)",
				d.Path, ErrNoNode, number)
		}
	}
}
