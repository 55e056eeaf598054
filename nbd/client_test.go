package nbd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sheepdog/nbd"
)

// Numbers of the protocol, written out once more: the tests must not agree with
// the server by sharing its mistakes.
const (
	optExportName, optAbort, optList, optStartTLS, optInfo, optGo = 1, 2, 3, 5, 6, 7
	optStructured, optListMeta, optSetMeta, optExtended           = 8, 9, 10, 11

	repACK, repServer, repInfo, repMeta = 1, 2, 3, 4

	errUnsup, errPolicy, errInvalid, errTLSReqd = 1<<31 + 1, 1<<31 + 2, 1<<31 + 3, 1<<31 + 5
	errUnknown, errTooBig                       = 1<<31 + 6, 1<<31 + 9

	cmdRead, cmdWrite, cmdDisc, cmdFlush, cmdTrim, cmdCache, cmdZeroes, cmdStatus = 0, 1, 2, 3, 4, 5, 6, 7

	fua, noHole, df, reqOne, fastZero = 1, 2, 4, 8, 16

	ePERM, eIO, eINVAL, eNOSPC, eOVERFLOW, eNOTSUP, eSHUTDOWN = 1, 5, 22, 28, 75, 95, 108
)

// A running is a server in a test.
type running struct {
	*nbd.Server
	path string
	stop context.CancelFunc
	done chan error // what Serve returned
}

// serve starts a server at a unix socket. It is stopped at the end of the test.
func serve(t testing.TB, e nbd.Exports, cfg nbd.Config) *running {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	a, err := nbd.ParseAddress("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := nbd.Listen(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	r := serveAt(t, e, cfg, l...)
	r.path = path
	return r
}

func serveAt(t testing.TB, e nbd.Exports, cfg nbd.Config, l ...net.Listener) *running {
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Server: nbd.NewServer(e, cfg), stop: stop, done: make(chan error, 1)}
	ended := make(chan struct{})
	go func() {
		r.done <- r.Serve(ctx, l...)
		close(ended)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return r
}

// A client speaks the protocol byte by byte.
type client struct {
	net.Conn
	t testing.TB
}

// dial connects, and reads nothing.
func (r *running) dial(t testing.TB) *client {
	t.Helper()
	nc, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{nc, t}
}

// hello dials and gets as far as the options.
func (r *running) hello(t testing.TB) *client {
	t.Helper()
	c := r.dial(t)
	c.expect("4e42444d41474943 49484156454f5054 0003")
	c.send(u32(3))
	return c
}

// open dials and gets as far as the requests.
func (r *running) open(t testing.TB, name string, structured bool, contexts ...string) *client {
	t.Helper()
	c := r.hello(t)
	if structured {
		c.option(optStructured, nil)
		c.reply(optStructured, repACK)
	}
	if len(contexts) > 0 {
		c.option(optSetMeta, metaAsk(name, contexts...))
		for range contexts {
			c.reply(optSetMeta, repMeta)
		}
		c.reply(optSetMeta, repACK)
	}
	c.option(optGo, ask(name))
	c.reply(optGo, repInfo)
	c.reply(optGo, repACK)
	return c
}

func (c *client) send(parts ...[]byte) {
	c.t.Helper()
	if _, err := c.Write(bytes.Join(parts, nil)); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *client) read(n int) []byte {
	c.t.Helper()
	p := make([]byte, n)
	if k, err := io.ReadFull(c, p); err != nil {
		c.t.Fatalf("read %d bytes: %v after %x", n, err, p[:k])
	}
	return p
}

// expect reads what is written in hexadecimal.
func (c *client) expect(hex string) {
	c.t.Helper()
	want := unhex(c.t, hex)
	if got := c.read(len(want)); !bytes.Equal(got, want) {
		c.t.Fatalf("got  %x\nwant %x", got, want)
	}
}

// closed reads until the server closes the connection, and returns what came
// before.
func (c *client) closed() []byte {
	c.t.Helper()
	p, err := io.ReadAll(c)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		c.t.Fatal("the server does not close the connection")
	}
	return p
}

func (c *client) option(opt uint32, data []byte) {
	c.t.Helper()
	c.send([]byte("IHAVEOPT"), u32(opt), u32(uint32(len(data))), data)
}

// reply reads one reply to an option and returns its data.
func (c *client) reply(opt, typ uint32) []byte {
	c.t.Helper()
	h := c.read(20)
	if binary.BigEndian.Uint64(h) != 0x3e889045565a9 {
		c.t.Fatalf("option reply magic %x", h[:8])
	}
	data := c.read(int(binary.BigEndian.Uint32(h[16:])))
	gotOpt, gotTyp := binary.BigEndian.Uint32(h[8:]), binary.BigEndian.Uint32(h[12:])
	if gotOpt != opt || gotTyp != typ {
		c.t.Fatalf("reply to option %d of type %#x (%q), want option %d, type %#x", gotOpt, gotTyp, data, opt, typ)
	}
	return data
}

// request sends one request; its cookie is derived from its offset.
func (c *client) request(cmd, flags uint16, off uint64, n uint32, payload ...[]byte) {
	c.t.Helper()
	c.send(append([][]byte{request(cmd, flags, cookie(off), off, n)}, payload...)...)
}

func cookie(off uint64) uint64 { return off ^ 0xfeedfacecafebeef }

// simple reads a simple reply to the request at off and returns its error.
func (c *client) simple(off uint64) uint32 {
	c.t.Helper()
	h := c.read(16)
	if binary.BigEndian.Uint32(h) != 0x67446698 || binary.BigEndian.Uint64(h[8:]) != cookie(off) {
		c.t.Fatalf("reply %x to the request at %d", h, off)
	}
	return binary.BigEndian.Uint32(h[4:])
}

// A chunk is a piece of a structured reply.
type chunk struct {
	flags, typ uint16
	cookie     uint64
	data       []byte
}

func (c *client) chunk() chunk {
	c.t.Helper()
	h := c.read(20)
	if binary.BigEndian.Uint32(h) != 0x668e33ef {
		c.t.Fatalf("chunk magic %x", h)
	}
	return chunk{
		binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h[6:]), binary.BigEndian.Uint64(h[8:]),
		c.read(int(binary.BigEndian.Uint32(h[16:]))),
	}
}

// answer reads the reply to the request at off, in either form, and returns its
// error. Data is thrown away.
func (c *client) answer(off uint64, structured bool) uint32 {
	c.t.Helper()
	if !structured {
		return c.simple(off)
	}
	for {
		magic := c.read(4)
		if binary.BigEndian.Uint32(magic) == 0x67446698 {
			rest := c.read(12)
			return binary.BigEndian.Uint32(rest)
		}
		h := c.read(16)
		data := c.read(int(binary.BigEndian.Uint32(h[12:])))
		if binary.BigEndian.Uint16(h[2:]) == 0x8001 {
			return binary.BigEndian.Uint32(data)
		}
		if h[1]&1 != 0 {
			return 0
		}
	}
}

func request(cmd, flags uint16, cookie, off uint64, n uint32) []byte {
	b := u32(0x25609513)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, cmd)
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, off)
	return binary.BigEndian.AppendUint32(b, n)
}

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func lenString(s string) []byte { return append(u32(uint32(len(s))), s...) }

// ask returns the data of GO and INFO.
func ask(name string, wants ...uint16) []byte {
	b := binary.BigEndian.AppendUint16(lenString(name), uint16(len(wants)))
	for _, w := range wants {
		b = binary.BigEndian.AppendUint16(b, w)
	}
	return b
}

// metaAsk returns the data of LIST_META_CONTEXT and SET_META_CONTEXT.
func metaAsk(name string, queries ...string) []byte {
	b := append(lenString(name), u32(uint32(len(queries)))...)
	for _, q := range queries {
		b = append(b, lenString(q)...)
	}
	return b
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	var b []byte
	for word := range bytes.FieldsSeq([]byte(s)) {
		p := make([]byte, len(word)/2)
		if _, err := fmt.Sscanf(string(word), "%x", &p); err != nil {
			t.Fatalf("%q: %v", word, err)
		}
		b = append(b, p...)
	}
	return b
}

// pipes is a listener whose clients come through memory: they can be had inside
// a synctest bubble.
type pipes struct {
	clients chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func newPipes() *pipes { return &pipes{clients: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.clients:
		return nc, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "pipe"} }

// dial returns the client's end of a connection.
func (p *pipes) dial(t testing.TB) *client {
	ours, theirs := net.Pipe()
	p.clients <- theirs
	t.Cleanup(func() { ours.Close() })
	return &client{ours, t}
}
