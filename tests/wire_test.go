package tests_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/native"
)

// TestAbuseOfTheWire sends what no client sends. Each time the daemon has to
// stay alive, keep its memory, and go on serving others.
func TestAbuseOfTheWire(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed(t), 4))
	c := harness.Start(t, harness.Config{})
	c.Format(3)
	text := []byte(strings.Repeat("still here ", 1000))
	c.Dog("vdi", "create", "a", "16M")
	c.DogAt(c.Nodes[0], text, "vdi", "write", "a")
	victim := c.Nodes[0]

	tests := []struct {
		name string
		send func(t *testing.T, nc net.Conn)
	}{
		{"random bytes", func(_ *testing.T, nc net.Conn) { nc.Write(random(rng, 1<<16)) }},
		{"a truncated header", func(_ *testing.T, nc net.Conn) { nc.Write(header(native.OpRead, 0, 0)[:20]) }},
		{"a payload that never comes", func(_ *testing.T, nc net.Conn) {
			nc.Write(header(native.OpWrite, native.FlagWrite, 1<<20))
			nc.Write(make([]byte, 1000))
		}},
		{"a payload of 4 GiB", func(_ *testing.T, nc net.Conn) {
			nc.Write(header(native.OpWrite, native.FlagWrite, 1<<32-1))
			nc.Write(make([]byte, 1<<20))
		}},
		{"an answer of 4 GiB", func(_ *testing.T, nc net.Conn) { nc.Write(header(native.OpRead, 0, 1<<32-1)) }},
		{"a read far behind the end", func(_ *testing.T, nc net.Conn) {
			h := header(native.OpRead, 0, 1<<20)
			binary.LittleEndian.PutUint32(h[40:], 1<<32-1)
			nc.Write(h)
		}},
		{"a name without an end", func(_ *testing.T, nc net.Conn) {
			nc.Write(append(header(native.OpNewVDI, native.FlagWrite, 256), bytes.Repeat([]byte{'x'}, 256)...))
		}},
		{"a name of the wrong length", func(_ *testing.T, nc net.Conn) {
			nc.Write(append(header(native.OpGetVDIInfo, native.FlagWrite, 7), "abcdefg"...))
		}},
		{"the greeting of another protocol", func(_ *testing.T, nc net.Conn) {
			io.WriteString(nc, "GET / HTTP/1.1\r\nHost: sheep\r\n\r\n")
		}},
		{"a peer's opcodes from a stranger", func(_ *testing.T, nc net.Conn) {
			for op := 0xa0; op <= 0xff; op++ {
				if harmless(uint8(op)) {
					nc.Write(append(header(uint8(op), native.FlagWrite, 512), random(rng, 512)...))
				}
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			memory := victim.Memory()
			for range 20 {
				abuse(t, victim, tt.send)
			}
			alive(t, victim)
			if grown := victim.Memory() - memory; grown > 64<<20 {
				t.Errorf("the daemon has grown by %d MiB", grown>>20)
			}
			if got := c.DogAt(victim, nil, "vdi", "read", "a", "0", "11000"); got != string(text) {
				t.Error("the disk does not hold any more what was written")
			}
		})
	}
	for _, n := range c.Nodes {
		if !n.Alive() {
			t.Errorf("node %d has died", n.ID)
		}
	}
	c.Check("a")
}

// abuse runs send on a connection of its own and reads until the daemon says no
// more, or has had its time.
func abuse(t *testing.T, n *harness.Node, send func(*testing.T, net.Conn)) {
	t.Helper()
	nc, err := net.Dial("tcp", n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(100 * time.Millisecond))
	send(t, nc)
	io.CopyN(io.Discard, nc, 1<<20) // only to give it a chance to answer
}

// alive asks the node something.
func alive(t *testing.T, n *harness.Node) {
	t.Helper()
	if _, err := native.Ask(t.Context(), n.Addr(), native.Stat); err != nil {
		t.Fatalf("node %d does not answer any more: %v", n.ID, err)
	}
}

func header(op uint8, flags uint16, length uint32) []byte {
	h := make([]byte, native.HeaderSize)
	if op >= 0x80 {
		h[0] = 10
	}
	h[1] = op
	binary.LittleEndian.PutUint16(h[2:], flags)
	binary.LittleEndian.PutUint32(h[8:], 1)
	binary.LittleEndian.PutUint32(h[12:], length)
	return h
}

// harmless reports whether no request of that opcode does damage by design.
func harmless(op uint8) bool {
	switch op {
	case native.OpRemove, native.OpDelVDI, 0x05, 0x84, 0x85, 0x8a, 0x94, 0x99, 0x9a, 0xa8, 0xa9, 0xb2, 0xb3, 0xba, 0xc1, 0xc5, 0xcb, 0xcc:
		return false
	}
	return true
}

func random(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	b[1] = native.OpRead // whatever the rest says, not an order to shut down
	return b
}

// TestUnknownOpcodes are refused with the connection staying open.
func TestUnknownOpcodes(t *testing.T) {
	c := harness.Start(t, harness.Config{Nodes: 1})
	c.Format(1)
	conn, err := native.Dial(t.Context(), c.Nodes[0].Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, tt := range []struct {
		op, proto uint8
		want      native.Result
	}{
		{0x00, 0, native.InvalidParms}, {0x7f, 0, native.InvalidParms}, {0x06, 2, native.InvalidParms},
		{0x80, 10, native.InvalidParms}, {0x8f, 10, native.InvalidParms},
		{native.OpRead, 3, 0x14}, {native.OpStatCluster, 9, 0x14}, {native.OpStatCluster, 11, 0x14},
	} {
		resp, err := conn.Do(t.Context(), &native.Request{Op: tt.op, Proto: tt.proto})
		if err != nil {
			t.Fatalf("opcode %#02x, version %d: %v", tt.op, tt.proto, err)
		}
		if resp.Result != tt.want {
			t.Errorf("opcode %#02x, version %d: %v, want %v", tt.op, tt.proto, resp.Result, tt.want)
		}
	}
}

// TestManyIdleConnections opens connections that say nothing.
func TestManyIdleConnections(t *testing.T) {
	c := harness.Start(t, harness.Config{Nodes: 1})
	c.Format(1)
	n := c.Nodes[0]
	memory := n.Memory()
	for range 500 {
		nc, err := net.Dial("tcp", n.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	alive(t, n)
	if grown := n.Memory() - memory; grown > 128<<20 {
		t.Errorf("500 idle connections cost %d MiB", grown>>20)
	}
}

// TestTheUNIXSocketSpeaksTheSameProtocol asks the same over both.
func TestTheUNIXSocketSpeaksTheSameProtocol(t *testing.T) {
	c := harness.Start(t, harness.Config{Nodes: 1})
	c.Format(1)
	n := c.Nodes[0]
	a, err := native.Ask(t.Context(), n.Addr(), native.Stat)
	b, err2 := native.Ask(t.Context(), n.Sock(), native.Stat)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	if a.Epoch != b.Epoch || len(b.Nodes) != 1 || a.Nodes[0] != b.Nodes[0] {
		t.Errorf("over TCP %+v, over the socket %+v", a, b)
	}
}

// TestPipelinedAnswersCarryTheirIDs sends many requests at once.
func TestPipelinedAnswersCarryTheirIDs(t *testing.T) {
	c := harness.Start(t, harness.Config{})
	c.Format(3)
	c.Dog("vdi", "create", "a", "64M")
	d, err := native.Open(t.Context(), native.Config{Servers: c.Addrs(1)}, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const n = 64
	errs := make(chan error, n)
	for i := range n {
		go func() {
			want := bytes.Repeat([]byte{byte(i + 1)}, 8192)
			got := make([]byte, len(want))
			off := int64(i) * 1e6
			err := errors.Join(d.WriteAt(context.Background(), want, off), d.ReadAt(context.Background(), got, off))
			if err == nil && !bytes.Equal(got, want) {
				err = errors.New("read something else than was written")
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
