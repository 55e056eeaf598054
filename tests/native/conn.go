// Package native is a client of the native protocol for tests, written from the
// description of the wire alone.
//
// It shares no code with the daemons, so that an error in their codec cannot
// cancel itself out, and it runs against the C implementation too. A Conn
// carries any number of requests at once. A Disk does on top of it what QEMU's
// driver does: it keeps the inode in memory, creates objects and then enters
// them into the map, follows a snapshot that somebody else took, and when its
// server goes away it reconnects and sends again what was in flight.
package native

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
)

// HeaderSize is the size of a request's and of a response's header.
const HeaderSize = 48

// Opcodes that the tests send.
const (
	OpCreateAndWrite    = 0x01
	OpRead              = 0x02
	OpWrite             = 0x03
	OpRemove            = 0x04
	OpNewVDI            = 0x11
	OpLockVDI           = 0x12
	OpReleaseVDI        = 0x13
	OpGetVDIInfo        = 0x14
	OpReadVDIs          = 0x15
	OpFlushVDI          = 0x16
	OpDelVDI            = 0x17
	OpGetClusterDefault = 0x18
	OpGetNodeList       = 0x82
	OpStatCluster       = 0x87
	OpStatRecovery      = 0x97
)

// Flags of a request.
const (
	FlagWrite  = 0x0001
	FlagCOW    = 0x0002
	FlagCache  = 0x0004
	FlagDirect = 0x0008
)

// A Result is the code in a response. Zero is success; the others are errors.
type Result uint32

// Results that the tests tell apart.
const (
	Success       Result = 0x00
	NoObject      Result = 0x02
	IOError       Result = 0x03
	InvalidParms  Result = 0x05
	NoSpace       Result = 0x15
	WaitForFormat Result = 0x16
	WaitForJoin   Result = 0x17
	ReadOnly      Result = 0x1A
)

func (r Result) Error() string { return fmt.Sprintf("result %#02x", uint32(r)) }

// ErrLost means that the connection ended before the answer came. The request
// may have been executed.
var ErrLost = errors.New("connection lost")

// A Request is one message to a server.
type Request struct {
	Proto uint8 // protocol version; QEMU leaves 0 nearly always
	Op    uint8
	Flags uint16
	Epoch uint32
	Body  [32]byte
	Data  []byte // sent if Flags has FlagWrite
	Into  []byte // room for the answer's data otherwise
}

// A Response is the answer to a Request.
type Response struct {
	Epoch  uint32
	Result Result
	Body   [28]byte
	Data   []byte // the part of Request.Into that was filled
}

// Err returns the result as an error, nil for success.
func (r *Response) Err() error {
	if r.Result == Success {
		return nil
	}
	return r.Result
}

// A Conn is a connection to a server. Any number of goroutines may use it.
type Conn struct {
	nc net.Conn

	write   sync.Mutex
	scratch [HeaderSize]byte // guarded by write

	mu      sync.Mutex
	lastID  uint32
	pending map[uint32]*call
	err     error // why the connection ended
}

type call struct {
	into []byte
	resp Response
	done chan error
}

// Dial connects to "host:port" or to "unix:path".
func Dial(ctx context.Context, server string) (*Conn, error) {
	network, addr := "tcp", server
	if path, ok := strings.CutPrefix(server, "unix:"); ok {
		network, addr = "unix", path
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := &Conn{nc: nc, pending: make(map[uint32]*call)}
	go c.read() // ends when nc is closed by either side
	return c, nil
}

// Close ends the connection; requests without an answer fail with ErrLost.
func (c *Conn) Close() error { return c.nc.Close() }

// Do sends r and waits for the answer. An error means that there was none; a
// refusal is in the Response.
func (c *Conn) Do(ctx context.Context, r *Request) (*Response, error) {
	cl := &call{into: r.Into, done: make(chan error, 1)}
	id, err := c.register(cl)
	if err != nil {
		return nil, err
	}
	if err := c.send(id, r); err != nil {
		c.nc.Close() // the reader fails every pending call
	}
	select {
	case err := <-cl.done:
		return &cl.resp, err
	case <-ctx.Done():
		c.nc.Close() // nobody may fill r.Into after this returns
		<-cl.done
		return nil, context.Cause(ctx)
	}
}

func (c *Conn) register(cl *call) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	c.lastID++
	c.pending[c.lastID] = cl
	return c.lastID, nil
}

func (c *Conn) send(id uint32, r *Request) error {
	c.write.Lock()
	defer c.write.Unlock()
	h := &c.scratch
	n := len(r.Into)
	if r.Flags&FlagWrite != 0 {
		n = len(r.Data)
	}
	h[0], h[1] = r.Proto, r.Op
	binary.LittleEndian.PutUint16(h[2:], r.Flags)
	binary.LittleEndian.PutUint32(h[4:], r.Epoch)
	binary.LittleEndian.PutUint32(h[8:], id)
	binary.LittleEndian.PutUint32(h[12:], uint32(n))
	copy(h[16:], r.Body[:])
	bufs := net.Buffers{h[:]}
	if r.Flags&FlagWrite != 0 && len(r.Data) > 0 {
		bufs = append(bufs, r.Data)
	}
	_, err := bufs.WriteTo(c.nc)
	return err
}

// read gives answers to the calls that wait for them until the connection ends.
func (c *Conn) read() {
	in := bufio.NewReaderSize(c.nc, 64<<10)
	var err error
	for err == nil {
		err = c.answer(in)
	}
	c.nc.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = fmt.Errorf("%w: %w", ErrLost, err)
	for id, cl := range c.pending {
		delete(c.pending, id)
		cl.done <- c.err
	}
}

func (c *Conn) answer(in *bufio.Reader) error {
	var h [HeaderSize]byte
	if _, err := io.ReadFull(in, h[:]); err != nil {
		return err
	}
	id := binary.LittleEndian.Uint32(h[8:])
	c.mu.Lock()
	cl := c.pending[id]
	c.mu.Unlock()
	if cl == nil {
		return fmt.Errorf("an answer to request %d, which was not asked", id)
	}
	n := binary.LittleEndian.Uint32(h[12:])
	if int64(n) > int64(len(cl.into)) {
		return fmt.Errorf("an answer of %d bytes where %d were asked for", n, len(cl.into))
	}
	if _, err := io.ReadFull(in, cl.into[:n]); err != nil {
		return err
	}
	cl.resp = Response{
		Epoch:  binary.LittleEndian.Uint32(h[4:]),
		Result: Result(binary.LittleEndian.Uint32(h[16:])),
		Body:   [28]byte(h[20:]),
		Data:   cl.into[:n],
	}
	c.mu.Lock()
	delete(c.pending, id)
	c.mu.Unlock()
	cl.done <- nil
	return nil
}
