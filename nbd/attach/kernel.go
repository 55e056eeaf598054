package attach

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A Kernel is the NBD client of a kernel. Its methods must not be called at the
// same time.
type Kernel interface {
	// Connect makes a device and returns its number. The kernel keeps
	// references of its own to the sockets.
	Connect(ctx context.Context, c Connection) (uint32, error)
	// Reconfigure changes a device. Sockets take the places of dead ones; those
	// for which there is no place are ignored.
	Reconfigure(ctx context.Context, index uint32, c Connection) error
	// Disconnect ends a device: the server is told, what waits fails.
	Disconnect(ctx context.Context, index uint32) error
	// Deaths calls ready when it listens, then died for each connection that
	// dies, and lost when it may have missed some, until the context ends or it
	// fails.
	Deaths(ctx context.Context, ready func(), died func(index uint32), lost func()) error
	// Close gives the resources of the Kernel back.
	Close() error
}

// A Connection says what the kernel is to know of a device. In Reconfigure the
// zero values change nothing.
type Connection struct {
	Index     uint32 // of a new device, if HasIndex; otherwise the kernel chooses
	HasIndex  bool
	Size      uint64
	BlockSize uint64
	Timeout   time.Duration // of one request, after which its connection is dead
	DeadTime  time.Duration // how long requests wait when all connections are dead
	Flags     Flags
	Sockets   []int
	Backend   string // what the device is; Reconfigure must name the same
}

// Numbers of the kernel's interface (linux/nbd-netlink.h): never renumber.
const (
	cmdConnect     = 1
	cmdDisconnect  = 2
	cmdReconfigure = 3
	cmdLinkDead    = 4

	attrIndex     = 1
	attrSize      = 2
	attrBlockSize = 3
	attrTimeout   = 4
	attrFlags     = 5
	attrSockets   = 7
	attrDeadTime  = 8
	attrBackend   = 10

	sockItem = 1
	sockFD   = 1

	family  = "nbd"
	group   = "nbd_mc_group"
	version = 1
)

// encode returns the attributes of a message.
func (c Connection) encode() ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	if c.HasIndex {
		ae.Uint32(attrIndex, c.Index)
	}
	for _, a := range []struct {
		kind  uint16
		value uint64
	}{
		{attrSize, c.Size},
		{attrBlockSize, c.BlockSize},
		{attrTimeout, uint64(c.Timeout / time.Second)},
		{attrDeadTime, uint64(c.DeadTime / time.Second)},
		{attrFlags, uint64(c.Flags)},
	} {
		if a.value != 0 {
			ae.Uint64(a.kind, a.value)
		}
	}
	if c.Backend != "" {
		ae.String(attrBackend, c.Backend)
	}
	if len(c.Sockets) > 0 {
		ae.Nested(attrSockets, func(list *netlink.AttributeEncoder) error {
			for _, fd := range c.Sockets {
				list.Nested(sockItem, func(item *netlink.AttributeEncoder) error {
					item.Uint32(sockFD, uint32(fd))
					return nil
				})
			}
			return nil
		})
	}
	return ae.Encode()
}

// decodeIndex returns the number of the device that a message is about.
func decodeIndex(attrs []byte) (uint32, error) {
	ad, err := netlink.NewAttributeDecoder(attrs)
	if err != nil {
		return 0, err
	}
	for ad.Next() {
		if ad.Type() == attrIndex {
			return ad.Uint32(), ad.Err()
		}
	}
	return 0, errors.Join(errors.New("the kernel names no device"), ad.Err())
}

// A kernel is the one of this machine.
type kernel struct {
	conn   *genetlink.Conn
	family genetlink.Family
}

var _ Kernel = (*kernel)(nil)

// OpenKernel returns the NBD client of this machine's kernel. Without one it
// fails with an error that matches os.ErrNotExist.
func OpenKernel() (Kernel, error) {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("open generic netlink: %w", err)
	}
	f, err := conn.GetFamily(family)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("look for nbd in generic netlink: %w", err)
	}
	return &kernel{conn, f}, nil
}

func (k *kernel) Close() error { return k.conn.Close() }

// execute sends a command and returns the answer. With netlink.Acknowledge that
// is an acknowledgement.
func (k *kernel) execute(ctx context.Context, cmd uint8, attrs []byte, flags netlink.HeaderFlags) ([]genetlink.Message, error) {
	deadline, _ := ctx.Deadline() // the zero time is none
	if err := k.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { k.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	m := genetlink.Message{Header: genetlink.Header{Command: cmd, Version: version}, Data: attrs}
	answer, err := k.conn.Execute(m, k.family.ID, netlink.Request|flags)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return answer, err
}

// Connect implements Kernel. It asks for no acknowledgement because there is an
// answer.
func (k *kernel) Connect(ctx context.Context, c Connection) (uint32, error) {
	attrs, err := c.encode()
	if err != nil {
		return 0, err
	}
	answer, err := k.execute(ctx, cmdConnect, attrs, 0)
	if err != nil {
		return 0, err
	}
	if len(answer) == 0 {
		return 0, errors.New("the kernel does not answer")
	}
	return decodeIndex(answer[0].Data)
}

// Reconfigure implements Kernel.
func (k *kernel) Reconfigure(ctx context.Context, index uint32, c Connection) error {
	c.Index, c.HasIndex = index, true
	attrs, err := c.encode()
	if err != nil {
		return err
	}
	_, err = k.execute(ctx, cmdReconfigure, attrs, netlink.Acknowledge)
	return err
}

// Disconnect implements Kernel.
func (k *kernel) Disconnect(ctx context.Context, index uint32) error {
	attrs, err := Connection{Index: index, HasIndex: true}.encode()
	if err != nil {
		return err
	}
	_, err = k.execute(ctx, cmdDisconnect, attrs, netlink.Acknowledge)
	return err
}

// Deaths implements Kernel. It uses a connection of its own, so that answers and
// notices do not mix.
func (k *kernel) Deaths(ctx context.Context, ready func(), died func(uint32), lost func()) error {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := joinGroup(conn, k.family); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	ready()
	for {
		messages, _, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, unix.ENOBUFS):
			lost()
			continue
		case err != nil:
			return fmt.Errorf("listen for dead connections: %w", err)
		}
		for _, m := range messages {
			if m.Header.Command != cmdLinkDead {
				continue
			}
			if index, err := decodeIndex(m.Data); err == nil {
				died(index)
			} else {
				lost()
			}
		}
	}
}

func joinGroup(conn *genetlink.Conn, f genetlink.Family) error {
	for _, g := range f.Groups {
		if g.Name == group {
			return conn.JoinGroup(g.ID)
		}
	}
	return fmt.Errorf("join %s: %w", group, os.ErrNotExist)
}
