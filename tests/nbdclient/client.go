// Package nbdclient is a small NBD client for tests, made apart from the server
// that it judges: fixed newstyle, one export, simple replies, any number of
// requests at a time.
//
// A Client does no more than it is told: it repeats nothing, connects once, and
// every request ends with the server's answer or with the error that broke the
// connection.
package nbdclient

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
)

// Transmission flags of an export.
const (
	FlagReadOnly  = 1 << 1
	FlagFlush     = 1 << 2
	FlagFUA       = 1 << 3
	FlagTrim      = 1 << 5
	FlagMultiConn = 1 << 8
)

const (
	magicServer  = 0x4e42444d41474943
	magicOption  = 0x49484156454f5054
	magicRequest = 0x25609513
	magicReply   = 0x67446698

	cmdRead  = 0
	cmdWrite = 1
	cmdDisc  = 2
	cmdFlush = 3
	cmdTrim  = 4

	fua = 1
)

// A Client is one connection to an export.
type Client struct {
	// Durable has every write carry FUA.
	Durable bool

	nc    net.Conn
	size  int64
	flags uint16

	mu     sync.Mutex
	next   uint64
	calls  map[uint64]*call // guarded by mu; nil when the connection is down
	broken error            // guarded by mu
}

type call struct {
	into []byte
	done chan error
}

// Dial connects to the export at addr, host:port or unix:path.
func Dial(ctx context.Context, addr, export string) (*Client, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	c := &Client{nc: nc, calls: make(map[uint64]*call)}
	err = c.handshake(export)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("NBD export %q: %w", export, err)
	}
	go c.receive()
	return c, nil
}

// handshake asks for the export by EXPORT_NAME, which has the shortest answer.
func (c *Client) handshake(export string) error {
	var hello [18]byte
	if _, err := io.ReadFull(c.nc, hello[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(hello[:]) != magicServer || binary.BigEndian.Uint64(hello[8:]) != magicOption {
		return errors.New("no NBD server")
	}
	b := binary.BigEndian.AppendUint32(nil, 3) // fixed newstyle, no zeroes
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint32(b, uint32(len(export)))
	if _, err := c.nc.Write(append(b, export...)); err != nil {
		return err
	}
	var info [10]byte
	if _, err := io.ReadFull(c.nc, info[:]); err != nil {
		return fmt.Errorf("refused: %w", err)
	}
	c.size = int64(binary.BigEndian.Uint64(info[:]))
	c.flags = binary.BigEndian.Uint16(info[8:])
	return nil
}

// Size returns the size of the export in bytes.
func (c *Client) Size() int64 { return c.size }

// Flags returns the transmission flags of the export.
func (c *Client) Flags() uint16 { return c.flags }

// ReadAt fills p from off.
func (c *Client) ReadAt(ctx context.Context, p []byte, off int64) error {
	return c.do(ctx, cmdRead, 0, off, len(p), nil, p)
}

// WriteAt writes p at off.
func (c *Client) WriteAt(ctx context.Context, p []byte, off int64) error {
	flags := uint16(0)
	if c.Durable {
		flags = fua
	}
	return c.do(ctx, cmdWrite, flags, off, len(p), p, nil)
}

// Trim gives up n bytes from off.
func (c *Client) Trim(ctx context.Context, off int64, n int) error {
	return c.do(ctx, cmdTrim, 0, off, n, nil, nil)
}

// Flush makes durable what was answered.
func (c *Client) Flush(ctx context.Context) error {
	return c.do(ctx, cmdFlush, 0, 0, 0, nil, nil)
}

// Close says goodbye and ends the connection.
func (c *Client) Close() error {
	c.mu.Lock()
	c.nc.Write(request(cmdDisc, 0, 0, 0, 0))
	c.mu.Unlock()
	return c.nc.Close()
}

// Drop ends the connection without a word.
func (c *Client) Drop() error { return c.nc.Close() }

func request(cmd, flags uint16, cookie uint64, off int64, n int) []byte {
	b := binary.BigEndian.AppendUint32(nil, magicRequest)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, cmd)
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

func (c *Client) do(ctx context.Context, cmd, flags uint16, off int64, n int, payload, into []byte) error {
	k := &call{into: into, done: make(chan error, 1)}
	c.mu.Lock()
	if c.calls == nil {
		defer c.mu.Unlock()
		return c.broken
	}
	c.next++
	c.calls[c.next] = k
	_, err := c.nc.Write(append(request(cmd, flags, c.next, off, n), payload...))
	c.mu.Unlock()
	if err != nil {
		c.nc.Close() // the receiver ends the call
	}
	select {
	case err := <-k.done:
		return err
	case <-ctx.Done():
		c.nc.Close()
		<-k.done
		return context.Cause(ctx)
	}
}

// receive hands the answers out until the connection is down.
func (c *Client) receive() {
	r := bufio.NewReaderSize(c.nc, 1<<16)
	var err error
	for err == nil {
		err = c.answer(r)
	}
	c.mu.Lock()
	calls := c.calls
	c.calls, c.broken = nil, fmt.Errorf("connection lost: %w", err)
	c.mu.Unlock()
	for _, k := range calls {
		k.done <- c.broken
	}
}

func (c *Client) answer(r io.Reader) error {
	var head [16]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(head[:]) != magicReply {
		return fmt.Errorf("bad reply %x", head)
	}
	cookie := binary.BigEndian.Uint64(head[8:])
	c.mu.Lock()
	k := c.calls[cookie]
	delete(c.calls, cookie)
	c.mu.Unlock()
	if k == nil {
		return fmt.Errorf("reply to request %d, which was not asked", cookie)
	}
	if code := binary.BigEndian.Uint32(head[4:]); code != 0 {
		k.done <- syscall.Errno(code)
		return nil
	}
	_, err := io.ReadFull(r, k.into)
	if err != nil {
		k.done <- err
		return err
	}
	k.done <- nil
	return nil
}
