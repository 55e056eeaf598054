package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/sheep/wire"
)

// counter counts how often it was told.
type counter struct {
	told atomic.Int32
	err  atomic.Value
}

func (c *counter) Sent(err error) {
	c.told.Add(1)
	if err != nil {
		c.err.Store(err)
	}
}

// connect returns the two ends of a connection over the network.
func connect(t *testing.T, network string) (net.Conn, net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// message is a head of 12 bytes, which say who sent it and how long its payload
// is, and a payload of one repeated byte.
func message(sender, seq, n int) (head, payload []byte) {
	head = binary.LittleEndian.AppendUint32(nil, uint32(sender))
	head = binary.LittleEndian.AppendUint32(head, uint32(seq))
	head = binary.LittleEndian.AppendUint32(head, uint32(n))
	return head, bytes.Repeat([]byte{byte(sender ^ seq)}, n)
}

func TestMessagesOfManySendersArriveWholeAndInTheOrderOfEach(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			const senders, each = 8, 60
			out, in := connect(t, network)
			w := wire.NewWriter(out, wire.WriterConfig{})
			var told [senders * each]counter
			var wg sync.WaitGroup
			for s := range senders {
				rnd := rand.New(rand.NewPCG(1, uint64(s)))
				wg.Go(func() {
					for i := range each {
						n := rnd.IntN(3000)
						if rnd.IntN(6) == 0 {
							n = wire.LargePayload + rnd.IntN(500_000)
						}
						head, payload := message(s, i, n)
						w.Append(head, &told[s*each+i], payload[:n/2], payload[n/2:])
					}
				})
			}
			receive(t, wire.NewReader(in, new(wire.Buffers)), senders, each)
			wg.Wait()
			w.Drain()
			w.Close(nil)
			for i := range told {
				if n, err := told[i].told.Load(), told[i].err.Load(); n != 1 || err != nil {
					t.Fatalf("message %d: told %d times, error %v", i, n, err)
				}
			}
		})
	}
}

func receive(t *testing.T, r *wire.Reader, senders, each int) {
	t.Helper()
	next := make([]int, senders)
	for range senders * each {
		head, err := r.Peek(12)
		if err != nil {
			t.Fatal(err)
		}
		s := int(binary.LittleEndian.Uint32(head))
		seq := int(binary.LittleEndian.Uint32(head[4:]))
		payload := make([]byte, binary.LittleEndian.Uint32(head[8:]))
		r.Consume(12)
		if s >= senders || seq != next[s] {
			t.Fatalf("message %d of sender %d, want %v", seq, s, next)
		}
		next[s]++
		if err := r.ReadFull(payload); err != nil {
			t.Fatal(err)
		}
		if _, want := message(s, seq, len(payload)); !bytes.Equal(payload, want) {
			t.Fatalf("message %d of sender %d: payload differs", seq, s)
		}
	}
}

func TestAppendDoesNotWaitForAFullSocket(t *testing.T) {
	out, in := connect(t, "tcp")
	w := wire.NewWriter(out, wire.WriterConfig{})
	payload := make([]byte, 1<<20)
	var told [64]counter
	for i := range told {
		w.Append([]byte("head"), &told[i], payload) // more than any socket buffer
	}
	if told[len(told)-1].told.Load() != 0 {
		t.Fatal("64 MiB fit into a socket that nobody reads")
	}
	n, err := io.Copy(io.Discard, io.LimitReader(in, 64*(4+1<<20)))
	if err != nil || n != 64*(4+1<<20) {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	w.Drain()
	for i := range told {
		if got := told[i].told.Load(); got != 1 {
			t.Errorf("message %d told %d times, want once", i, got)
		}
	}
	w.Close(nil)
}

func TestCorkGathersUntilUncork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, in := net.Pipe()
		w := wire.NewWriter(out, wire.WriterConfig{})
		w.Cork()
		w.Append([]byte("a"), nil, []byte("b"))
		w.Append([]byte("c"), nil)
		synctest.Wait()
		w.Uncork()
		got := make([]byte, 8)
		n, err := in.Read(got)
		if string(got[:n]) != "abc" || err != nil {
			t.Errorf("first read %q, %v, want all three bytes", got[:n], err)
		}
		w.Drain()
		w.Close(nil)
	})
}

func TestCloseTellsEverySenderOnceWhileTheSocketIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, _ := net.Pipe()
		w := wire.NewWriter(out, wire.WriterConfig{})
		var told [10]counter
		for i := range told {
			w.Append([]byte("head"), &told[i], make([]byte, wire.LargePayload))
		}
		synctest.Wait()
		cause := errors.New("enough")
		w.Close(cause)
		w.Close(errors.New("again"))
		var late counter
		w.Append([]byte("late"), &late)
		synctest.Wait()
		if got := late.err.Load(); late.told.Load() != 1 || got != cause {
			t.Errorf("append after close: told %d times, %v", late.told.Load(), got)
		}
		for i := range told {
			if told[i].told.Load() != 1 || told[i].err.Load() == nil {
				t.Errorf("message %d: told %d times, %v", i, told[i].told.Load(), told[i].err.Load())
			}
		}
	})
}

func TestAStuckReaderIsGivenUpOnlyWhenAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, _ := net.Pipe()
		var asked atomic.Int32
		w := wire.NewWriter(out, wire.WriterConfig{
			Patience: time.Minute,
			GiveUp:   func() bool { return asked.Add(1) == 3 },
		})
		var told counter
		begin := time.Now()
		w.Append([]byte("head"), &told)
		w.Drain()
		if got := time.Since(begin); got != 3*time.Minute || told.told.Load() != 1 || told.err.Load() == nil {
			t.Errorf("given up after %v, told %d times, %v", got, told.told.Load(), told.err.Load())
		}
		w.Close(nil)
	})
}

func TestReader(t *testing.T) {
	stream := bytes.Repeat([]byte("0123456789"), 30_000)
	r := wire.NewReader(iotestOneByte{bytes.NewReader(stream)}, new(wire.Buffers))
	b, err := r.Peek(10)
	if err != nil || string(b) != "0123456789" {
		t.Fatalf("Peek = %q, %v", b, err)
	}
	r.Consume(5)
	large := make([]byte, 100_005)
	if err := r.ReadFull(large); err != nil || !bytes.Equal(large, stream[5:100_010]) {
		t.Fatalf("ReadFull of a large payload: %v", err)
	}
	if err := r.Skip(99_990); err != nil {
		t.Fatal(err)
	}
	if b, err = r.Peek(3); err != nil || string(b) != "012" {
		t.Fatalf("after Skip: %q, %v", b, err)
	}
	if err := r.Skip(100_001); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Skip beyond the end: %v, want %v", err, io.ErrUnexpectedEOF)
	}
	if _, err := r.Peek(1); err != io.EOF {
		t.Errorf("Peek at the end: %v, want %v", err, io.EOF)
	}
}

// iotestOneByte returns few bytes at a time.
type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 777)]) }

func TestAReaderThatWaitsHoldsNoBufferAndSeesDeadlines(t *testing.T) {
	out, in := connect(t, "tcp")
	var buffers wire.Buffers
	r := wire.NewReader(in, &buffers)
	for i := range 3 {
		in.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("Peek with nothing there: %v, want %v", err, os.ErrDeadlineExceeded)
		}
		in.SetReadDeadline(time.Time{})
		out.Write([]byte{byte(i)})
		if b, err := r.Peek(1); err != nil || b[0] != byte(i) {
			t.Fatalf("Peek = %x, %v", b, err)
		}
		r.Consume(1)
	}
	out.Close()
	if _, err := r.Peek(1); err != io.EOF {
		t.Errorf("Peek at the end: %v", err)
	}
	r.Close()
	in.Close()
	if _, err := r.Peek(1); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Peek of a closed connection: %v", err)
	}
}

func TestBuffersKeepTheLengthAndReuseTheMemory(t *testing.T) {
	var p wire.Buffers
	for _, n := range []int{0, 1, 512, 513, 4096, 1 << 20, 1<<20 + 1, 64 << 20, 64<<20 + 1} {
		b := p.Get(n)
		if len(b.B) != n {
			t.Errorf("Get(%d) has %d bytes", n, len(b.B))
		}
		p.Put(b)
	}
	p.Put(nil)
	if n := testing.AllocsPerRun(100, func() { p.Put(p.Get(5000)) }); n > 0.5 {
		t.Errorf("%v allocations per use, want none", n)
	}
}
