package server_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/server"
)

// A handler is a server.Handler for the tests of the machinery: reads return
// what was asked for, filled with the low byte of the offset. The first byte of
// a request's object id chooses what happens.
type handler struct {
	release chan struct{} // requests of object 1 wait for it
	plans   atomic.Int64
	served  atomic.Int64
	active  atomic.Int64
	most    atomic.Int64 // requests being served at once
	closed  atomic.Int64
	left    atomic.Int64 // callers of idLast that went

	mu        sync.Mutex
	cancelled []error
}

const (
	idEcho   = 0 // answered at once
	idBlock  = 1 // answered after release, or when its context ends
	idInline = 2 // answered on the reading goroutine
	idRefuse = 3 // refused before its payload is read
	idLast   = 4 // idBlock that outlives its client
	idLater  = 5 // inline, but answered after release
)

func newHandler() *handler { return &handler{release: make(chan struct{})} }

func kind(h *proto.Header) byte { return byte(proto.DecodeObjectBody(h.Body).ID) }

func (t *handler) Plan(h *proto.Header) server.Plan {
	t.plans.Add(1)
	p := server.Plan{Room: int(h.Room())}
	switch kind(h) {
	case idInline, idLater:
		p.Inline = true
	case idRefuse:
		p.Result = proto.ResultInvalid
	case idLast:
		p.Lasting = true
	}
	return p
}

func (t *handler) Serve(r *server.Request) {
	n := t.active.Add(1)
	for m := t.most.Load(); n > m && !t.most.CompareAndSwap(m, n); m = t.most.Load() {
	}
	switch kind(&r.Header) {
	case idBlock, idLast:
		if kind(&r.Header) == idLast {
			stop := context.AfterFunc(sheep.Caller(r.Ctx), func() { t.left.Add(1) })
			defer stop()
		}
		select {
		case <-t.release:
		case <-r.Ctx.Done():
			t.mu.Lock()
			t.cancelled = append(t.cancelled, context.Cause(r.Ctx))
			t.mu.Unlock()
		}
	case idLater:
		go func() {
			<-t.release
			t.answer(r)
		}()
		return
	}
	t.answer(r)
}

func (t *handler) answer(r *server.Request) {
	t.active.Add(-1)
	t.served.Add(1)
	if r.Header.Flags&proto.FlagWrite != 0 {
		sum := byte(0)
		for _, b := range r.Data {
			sum += b
		}
		r.Reply(proto.Response{Result: proto.Result(sum)}, r.Data) // data must not be sent
		return
	}
	p := r.Room(int(r.Header.Room()))
	off := proto.DecodeObjectBody(r.Header.Body).Off
	for i := range p {
		p[i] = byte(off)
	}
	r.Reply(proto.Response{}, p)
}

func (t *handler) Epoch() sheep.Epoch                      { return 7 }
func (t *handler) Closed(context.Context, *server.Session) { t.closed.Add(1) }

// pipes is a listener of connections made by dial.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (l *pipes) dial() net.Conn {
	a, b := net.Pipe()
	l.conns <- b
	return a
}

// serve runs a server in the bubble of a test. stop ends it and fails the test
// unless it ends without an error; that nothing of it is left behind is what
// the end of the bubble checks.
func serve(t *testing.T, h server.Handler, cfg server.Config) (dial func() net.Conn, stop func()) {
	t.Helper()
	l := newPipes()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.New(h, slog.New(slog.DiscardHandler), cfg).Serve(ctx, l) }()
	return l.dial, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}

func request(id, seq, off uint32, flags proto.Flags, n int) proto.Header {
	return proto.Header{
		Op: proto.OpReadObj, Flags: flags, Seq: seq, DataLen: uint32(n),
		Body: proto.ObjectBody{ID: sheep.ObjectID(id), Off: off}.Body(),
	}
}

func read(id, seq, n uint32) []byte { return request(id, seq, seq, 0, int(n)).Append(nil) }

func write(id, seq uint32, data []byte) []byte {
	return append(request(id, seq, 0, proto.FlagWrite, len(data)).Append(nil), data...)
}

// send writes from a goroutine of its own, as a pipe has no buffer.
func send(conn net.Conn, msgs ...[]byte) {
	go conn.Write(bytes.Join(msgs, nil))
}

func receive(t *testing.T, conn net.Conn) (proto.Response, []byte) {
	t.Helper()
	var head [proto.HeaderSize]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		t.Fatalf("read answer: %v", err)
	}
	resp, err := proto.DecodeResponse(head[:])
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, resp.DataLen)
	if _, err := io.ReadFull(conn, data); err != nil {
		t.Fatalf("read payload: %v", err)
	}
	return resp, data
}

func TestAnswersCarryWhatTheRequestSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, stop := serve(t, newHandler(), server.Config{})
		defer stop()
		conn := dial()
		defer conn.Close()
		for _, id := range []uint32{idEcho, idInline} {
			send(conn, read(id, 0xdeadbe00+id, 5))
			resp, data := receive(t, conn)
			want := proto.Response{Op: proto.OpReadObj, Epoch: 7, Seq: 0xdeadbe00 + id, DataLen: 5}
			if resp != want || !bytes.Equal(data, bytes.Repeat([]byte{byte(id)}, 5)) {
				t.Errorf("answer %+v %x, want %+v", resp, data, want)
			}
		}
	})
}

func TestAWriteIsAnsweredWithoutData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, stop := serve(t, newHandler(), server.Config{})
		defer stop()
		conn := dial()
		defer conn.Close()
		for _, n := range []int{0, 3, 5000, 1 << 20} {
			send(conn, write(idEcho, 1, bytes.Repeat([]byte{1}, n)))
			if resp, _ := receive(t, conn); resp.DataLen != 0 || resp.Result != proto.Result(byte(n)) {
				t.Errorf("%d bytes: answer %+v, want result %#x and no data", n, resp, byte(n))
			}
		}
	})
}

func TestARequestThatWaitsDoesNotHoldUpThoseAfterIt(t *testing.T) {
	for _, slow := range []uint32{idBlock, idLater} {
		synctest.Test(t, func(t *testing.T) {
			h := newHandler()
			dial, stop := serve(t, h, server.Config{})
			defer stop()
			conn := dial()
			defer conn.Close()
			send(conn, read(slow, 1, 100), read(idEcho, 2, 100), read(idInline, 3, 100))
			seen := map[uint32]bool{}
			for range 2 {
				resp, _ := receive(t, conn)
				seen[resp.Seq] = true
			}
			if !seen[2] || !seen[3] {
				t.Errorf("answered %v, want 2 and 3", seen)
			}
			close(h.release)
			if resp, _ := receive(t, conn); resp.Seq != 1 {
				t.Errorf("answered %d, want 1", resp.Seq)
			}
		})
	}
}

func TestRefusedPayloadsAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		dial, stop := serve(t, h, server.Config{})
		defer stop()
		conn := dial()
		defer conn.Close()
		send(conn, write(idRefuse, 1, make([]byte, 3<<20)), read(idEcho, 2, 1))
		if resp, _ := receive(t, conn); resp.Seq != 1 || resp.Result != proto.ResultInvalid {
			t.Errorf("answer %+v, want 1 refused", resp)
		}
		if resp, _ := receive(t, conn); resp.Seq != 2 || resp.Result != proto.ResultSuccess {
			t.Errorf("answer %+v, want 2 served", resp)
		}
		if got := h.served.Load(); got != 1 {
			t.Errorf("%d requests served, want 1", got)
		}
	})
}

func TestMalformedRequestsCostTheirConnectionOnly(t *testing.T) {
	oversized := request(idEcho, 1, 0, proto.FlagWrite, 0)
	oversized.DataLen = proto.MaxData + 1
	tests := []struct {
		name string
		send []byte
	}{
		{"nothing at all", nil},
		{"half a header", read(idEcho, 1, 0)[:20]},
		{"half a small payload", write(idEcho, 1, make([]byte, 1000))[:500]},
		{"half a large payload", write(idEcho, 1, make([]byte, 1<<20))[:70_000]},
		{"more data than any message has", oversized.Append(nil)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHandler()
				dial, stop := serve(t, h, server.Config{})
				defer stop()
				bad, good := dial(), dial()
				defer good.Close()
				send(bad, tt.send)
				synctest.Wait()
				bad.Close()
				synctest.Wait()
				if h.served.Load() != 0 || h.closed.Load() != 1 {
					t.Errorf("%d requests served, %d connections closed, want 0 and 1", h.served.Load(), h.closed.Load())
				}
				send(good, read(idEcho, 9, 4))
				if resp, _ := receive(t, good); resp.Seq != 9 {
					t.Errorf("the other connection was answered %+v", resp)
				}
			})
		})
	}
}

func TestAClientThatDoesNotReadIsNotReadFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		dial, stop := serve(t, h, server.Config{ConnBytes: 1 << 20})
		defer stop()
		greedy, other := dial(), dial()
		defer other.Close()
		var sent atomic.Int64
		go func() {
			for i := range uint32(1000) {
				if _, err := greedy.Write(read(idEcho, i, 100_000)); err != nil {
					return
				}
				sent.Add(1)
			}
		}()
		synctest.Wait()
		// ten answers fit into 1 MiB; what is in the read buffer was sent, but not planned
		if got := h.plans.Load(); got > 11 {
			t.Errorf("%d requests read from a client that reads no answers, want at most 11", got)
		}
		for i := range uint32(20) {
			send(other, read(idEcho, i, 100_000))
			receive(t, other)
		}
		go func() {
			for h.served.Load() < 1020 {
				if _, err := io.CopyN(io.Discard, greedy, 48+100_000); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		if got := sent.Load(); got != 1000 {
			t.Errorf("%d requests sent once answers were read, want 1000", got)
		}
		greedy.Close()
	})
}

func TestAllConnectionsShareABudgetInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		dial, stop := serve(t, h, server.Config{Bytes: 1 << 20})
		defer stop()
		const answers = 2*(proto.HeaderSize+300_000) + proto.HeaderSize + 5<<20
		var wg sync.WaitGroup
		for range 8 {
			conn := dial()
			defer conn.Close()
			send(conn, read(idBlock, 1, 300_000), read(idBlock, 2, 300_000), read(idBlock, 3, 5<<20))
			wg.Go(func() {
				if n, err := io.CopyN(io.Discard, conn, answers); err != nil {
					t.Errorf("%d bytes of answers, %v, want %d", n, err, answers)
				}
			})
		}
		synctest.Wait()
		close(h.release)
		wg.Wait()
		if got := h.most.Load(); got < 2 || got > 3 {
			t.Errorf("%d requests were under way at once, want the three that fit, or two", got)
		}
	})
}

func TestAStuckClientIsCutOffWhenOthersWaitForItsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, stop := serve(t, newHandler(), server.Config{Bytes: 1 << 20, Patience: time.Minute})
		defer stop()
		stuck, other := dial(), dial()
		defer other.Close()
		send(stuck, read(idEcho, 1, 900_000))
		synctest.Wait()
		time.Sleep(time.Hour)
		if _, err := stuck.Write(nil); err != nil {
			t.Errorf("a stuck client was cut off though nobody waited: %v", err)
		}
		begin := time.Now()
		send(other, read(idEcho, 2, 900_000))
		receive(t, other)
		if got := time.Since(begin); got > time.Minute {
			t.Errorf("waited %v for the memory of a stuck client, want at most a minute", got)
		}
	})
}

func TestRequestsUnderWayAreAnsweredAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		dial, stop := serve(t, h, server.Config{})
		busy, idle := dial(), dial()
		send(busy, read(idBlock, 1, 10))
		synctest.Wait()
		time.AfterFunc(time.Second, func() { close(h.release) })
		go stop()
		if resp, _ := receive(t, busy); resp.Seq != 1 {
			t.Errorf("answer %+v", resp)
		}
		for name, conn := range map[string]net.Conn{"busy": busy, "idle": idle} {
			if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%s connection at the end: %v, want EOF", name, err)
			}
		}
		if h.cancelled != nil {
			t.Errorf("requests were cancelled: %v", h.cancelled)
		}
	})
}

func TestRequestsThatDoNotEndSeeTheirContextEndAfterTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		dial, stop := serve(t, h, server.Config{Grace: 5 * time.Second})
		conn := dial()
		send(conn, read(idBlock, 1, 10), read(idLast, 2, 10))
		synctest.Wait()
		begin := time.Now()
		go io.Copy(io.Discard, conn)
		stop()
		if got := time.Since(begin); got != 5*time.Second || len(h.cancelled) != 2 || !errors.Is(h.cancelled[0], sheep.ErrShutdown) {
			t.Errorf("ended after %v, cancelled with %v", got, h.cancelled)
		}
	})
}

func TestAClientThatTakesNoAnswersDoesNotHoldUpTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, stop := serve(t, newHandler(), server.Config{Grace: 5 * time.Second})
		conn := dial()
		send(conn, read(idEcho, 1, 1<<20))
		synctest.Wait()
		begin := time.Now()
		stop()
		if got := time.Since(begin); got > 10*time.Second {
			t.Errorf("ended after %v", got)
		}
		conn.Close()
	})
}

func TestWhenTheClientGoesOnlyReadsAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler()
		dial, stop := serve(t, h, server.Config{Patience: time.Minute})
		defer stop()
		conn := dial()
		send(conn, read(idBlock, 1, 10), read(idLast, 2, 10))
		synctest.Wait()
		conn.Close()
		synctest.Wait()
		if h.left.Load() != 1 {
			t.Error("the lasting request does not know that its client has gone")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := h.active.Load(); got != 1 {
			t.Errorf("%d requests under way after the client has gone, want the lasting one", got)
		}
		if h.closed.Load() != 0 {
			t.Error("the connection was reported closed while a request was under way")
		}
		close(h.release)
		synctest.Wait()
		if h.closed.Load() != 1 {
			t.Error("the connection was not reported closed")
		}
	})
}

func TestInlineAnswersAreGatheredButNotWithheld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, stop := serve(t, newHandler(), server.Config{})
		defer stop()
		conn := dial()
		defer conn.Close()
		var msgs [][]byte
		for i := range uint32(10) {
			msgs = append(msgs, write(idInline, i, make([]byte, 100)))
		}
		last := write(idInline, 10, make([]byte, 100))
		send(conn, append(msgs, last[:60])...) // the eleventh is incomplete
		buf := make([]byte, 100*proto.HeaderSize)
		n, err := conn.Read(buf)
		if err != nil || n != 10*proto.HeaderSize {
			t.Fatalf("first read of answers: %d bytes, %v, want ten answers at once", n, err)
		}
		for i := range 10 {
			if seq := binary.LittleEndian.Uint32(buf[i*proto.HeaderSize+8:]); seq != uint32(i) {
				t.Errorf("answer %d is to %d", i, seq)
			}
		}
		send(conn, last[60:])
		receive(t, conn)
	})
}

func TestServingALoopbackConnectionAllocatesNothing(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("measures; the race detector allocates")
	}
	r := testing.Benchmark(func(b *testing.B) {
		addr := startServer(b, &echo{}, server.Config{})
		conn := dialClient(b, addr)
		b.ReportAllocs()
		pump(b, conn, proto.OpReadObj, 4<<10, 16)
	})
	if r.N > 5000 && r.AllocsPerOp() > 0 {
		t.Errorf("%d allocations per request on both sides together, want none (%v)", r.AllocsPerOp(), r)
	}
}

func TestListenReplacesTheSocketOfADeadProcessOnly(t *testing.T) {
	path := "unix:" + t.TempDir() + "/sock"
	first, err := server.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Listen(t.Context(), path); err == nil {
		t.Error("a socket in use was replaced")
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	first.Close()
	second, err := server.Listen(t.Context(), path)
	if err != nil {
		t.Fatalf("a stale socket was not replaced: %v", err)
	}
	second.Close()
}
