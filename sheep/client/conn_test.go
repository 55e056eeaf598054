package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/proto"
)

// connect returns a Conn and the other end of it.
func connect() (*client.Conn, net.Conn) {
	a, b := net.Pipe()
	return client.NewConn(a), b
}

// next reads one request.
func next(t *testing.T, conn net.Conn) (proto.Header, []byte) {
	t.Helper()
	var head [proto.HeaderSize]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		t.Fatalf("read request: %v", err)
	}
	h, err := proto.DecodeHeader(head[:])
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, h.Payload())
	if _, err := io.ReadFull(conn, data); err != nil {
		t.Fatalf("read payload: %v", err)
	}
	return h, data
}

// answer answers h with data.
func answer(t *testing.T, conn net.Conn, h proto.Header, data string) {
	t.Helper()
	resp := h.Response(1, proto.ResultSuccess)
	resp.DataLen = uint32(len(data))
	if _, err := conn.Write(append(resp.Append(nil), data...)); err != nil {
		t.Errorf("answer: %v", err)
	}
}

// result is what a request ended with.
type result struct {
	resp proto.Response
	data string
	err  error
}

func start(c *client.Conn, h proto.Header, payload string, room int) <-chan result {
	ch := make(chan result, 2)
	var pieces [][]byte
	if payload != "" {
		pieces = [][]byte{[]byte(payload)}
	}
	c.Start(h, pieces, make([]byte, room), func(resp proto.Response, data []byte, err error) {
		ch <- result{resp, string(data), err}
	})
	return ch
}

func TestAnswersFindTheirRequestsInAnyOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := connect()
		defer c.Close()
		a := start(c, proto.Header{Op: proto.OpReadObj}, "", 10)
		b := start(c, proto.Header{Op: proto.OpWriteObj}, "payload", 0)
		large := start(c, proto.Header{Op: proto.OpReadObj}, "", 200_000)
		ha, _ := next(t, peer)
		hb, data := next(t, peer)
		hc, _ := next(t, peer)
		if ha.DataLen != 10 || ha.Flags != 0 || hb.DataLen != 7 || hb.Flags != proto.FlagWrite || string(data) != "payload" {
			t.Errorf("requests %+v, %+v %q", ha, hb, data)
		}
		want := string(bytes.Repeat([]byte("x"), 200_000))
		answer(t, peer, hc, want)
		answer(t, peer, hb, "")
		answer(t, peer, ha, "short")
		if got := <-large; got.data != want || got.err != nil {
			t.Errorf("large answer: %d bytes, %v", len(got.data), got.err)
		}
		if got := <-b; got.data != "" || got.err != nil || got.resp.Op != proto.OpWriteObj {
			t.Errorf("write: %+v", got)
		}
		if got := <-a; got.data != "short" || got.err != nil {
			t.Errorf("read: %+v", got)
		}
	})
}

func TestAWriteWithoutDataSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := connect()
		defer c.Close()
		start(c, proto.Header{Op: proto.OpCreateAndWriteObj, Flags: proto.FlagWrite | proto.FlagCOW}, "", 0)
		if h, _ := next(t, peer); h.DataLen != 0 || !h.Flags.Has(proto.FlagWrite|proto.FlagCOW) {
			t.Errorf("request %+v", h)
		}
	})
}

func TestAnAnswerThatIsTooLongIsAnErrorOfItsRequestOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := connect()
		defer c.Close()
		a := start(c, proto.Header{Op: proto.OpReadObj}, "", 3)
		b := start(c, proto.Header{Op: proto.OpReadObj}, "", 3)
		ha, _ := next(t, peer)
		hb, _ := next(t, peer)
		answer(t, peer, ha, "too long")
		answer(t, peer, hb, "abc")
		if got := <-a; !errors.Is(got.err, client.ErrProtocol) {
			t.Errorf("long answer: %+v", got)
		}
		if got := <-b; got.data != "abc" || got.err != nil {
			t.Errorf("the next: %+v", got)
		}
	})
}

func TestWhateverBreaksTheConnectionEndsEveryRequestOnce(t *testing.T) {
	tests := []struct {
		name string
		do   func(c *client.Conn, peer net.Conn, h proto.Header)
	}{
		{"the other side closes", func(_ *client.Conn, peer net.Conn, _ proto.Header) { peer.Close() }},
		{"this side closes", func(c *client.Conn, _ net.Conn, _ proto.Header) { c.Close() }},
		{"an answer to nothing", func(_ *client.Conn, peer net.Conn, h proto.Header) {
			h.Seq += 5
			peer.Write(h.Response(1, 0).Append(nil))
		}},
		{"a second answer", func(_ *client.Conn, peer net.Conn, h proto.Header) {
			peer.Write(h.Response(1, 0).Append(nil))
			peer.Write(h.Response(1, 0).Append(nil))
		}},
		{"an answer cut short", func(_ *client.Conn, peer net.Conn, h proto.Header) {
			resp := h.Response(1, 0)
			resp.DataLen = 10
			peer.Write(append(resp.Append(nil), "abc"...))
			peer.Close()
		}},
		{"an impossible length", func(_ *client.Conn, peer net.Conn, h proto.Header) {
			resp := h.Response(1, 0)
			resp.DataLen = 1<<32 - 1
			peer.Write(resp.Append(nil))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, peer := connect()
				defer c.Close()
				a := start(c, proto.Header{Op: proto.OpReadObj}, "", 10)
				b := start(c, proto.Header{Op: proto.OpWriteObj}, string(make([]byte, 1<<20)), 0)
				h, _ := next(t, peer) // the payload of the other one is never read
				tt.do(c, peer, h)
				<-c.Done()
				synctest.Wait()
				if got := <-b; !errors.Is(got.err, sheep.ErrNetwork) {
					t.Errorf("request under way: %+v", got)
				}
				if got := <-a; tt.name != "a second answer" && !errors.Is(got.err, sheep.ErrNetwork) {
					t.Errorf("request that was sent: %+v", got)
				}
				if len(a)+len(b) != 0 {
					t.Error("a request ended twice")
				}
				if got := <-start(c, proto.Header{}, "", 0); !errors.Is(got.err, sheep.ErrNetwork) || c.Err() == nil {
					t.Errorf("request on a broken connection: %+v", got)
				}
			})
		})
	}
}

func TestDoGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := connect()
		defer c.Close()
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("no longer wanted")
		go func() {
			h, _ := next(t, peer)
			cancel(cause)
			synctest.Wait()
			answer(t, peer, h, "nobody waits for this")
			h, _ = next(t, peer)
			answer(t, peer, h, "second")
		}()
		into := make([]byte, 100)
		if _, _, err := c.Do(ctx, proto.Header{}, nil, into); err != cause {
			t.Errorf("Do = %v, want %v", err, cause)
		}
		_, data, err := c.Do(t.Context(), proto.Header{}, nil, into)
		if string(data) != "second" || err != nil {
			t.Errorf("the next: %q, %v", data, err)
		}
	})
}

func TestDoDoesNotReturnWhileItsPayloadIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := connect()
		defer c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		payload := make([]byte, 1<<20)
		var returned atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, _, err := c.Do(ctx, proto.Header{}, payload, nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Do = %v", err)
			}
			returned.Store(true)
		})
		time.Sleep(time.Minute)
		if returned.Load() {
			t.Error("Do returned while its payload was being sent")
		}
		h, _ := next(t, peer)
		wg.Wait()
		go answer(t, peer, h, "") // skipped
		synctest.Wait()
	})
}

func TestManyCallersShareAConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		peer, err := l.Accept()
		if err != nil {
			return
		}
		defer peer.Close()
		for {
			var head [proto.HeaderSize]byte
			if _, err := io.ReadFull(peer, head[:]); err != nil {
				return
			}
			h, _ := proto.DecodeHeader(head[:])
			data := make([]byte, h.DataLen)
			io.ReadFull(peer, data)
			resp := h.Response(1, 0)
			resp.DataLen = h.DataLen
			peer.Write(append(resp.Append(nil), data...))
		}
	}()
	c, err := client.Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for j := range 50 {
				out := bytes.Repeat([]byte{byte(i), byte(j)}, 100+i*j*20)
				_, in, err := c.Do(t.Context(), proto.Header{Flags: proto.FlagPiggyback}, out, make([]byte, len(out)))
				if err != nil || !bytes.Equal(in, out) {
					t.Errorf("caller %d: %d of %d bytes came back, %v", i, len(in), len(out), err)
					return
				}
			}
		})
	}
	wg.Wait()
}
