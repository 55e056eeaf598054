package server_test

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/server"
)

// echo answers reads with that many bytes and writes with nothing.
type echo struct {
	inline bool
	calls  atomic.Int64
}

func (e *echo) Plan(h *proto.Header) server.Plan {
	return server.Plan{Class: server.ClassClient, Room: int(h.Room()), Inline: e.inline}
}

func (e *echo) Serve(r *server.Request) {
	e.calls.Add(1)
	if n := int(r.Header.Room()); n > 0 {
		p := r.Room(n)
		binary.LittleEndian.PutUint32(p, proto.DecodeObjectBody(r.Header.Body).Off)
		r.Reply(proto.Response{}, p)
		return
	}
	r.Reply(proto.Response{})
}

func (e *echo) Epoch() sheep.Epoch                            { return 7 }
func (e *echo) Closed(ctx context.Context, s *server.Session) {}

// startServer serves h on a loopback port until the test ends.
func startServer(t testing.TB, h server.Handler, cfg server.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- server.New(h, slog.New(slog.DiscardHandler), cfg).Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

func dialClient(t testing.TB, addr string) *client.Conn {
	t.Helper()
	conn, err := client.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func BenchmarkRoundTrip(b *testing.B) {
	for _, bench := range []struct {
		name   string
		op     proto.Opcode
		size   int
		depth  int
		inline bool
	}{
		{"read 4 KiB depth 1", proto.OpReadObj, 4 << 10, 1, false},
		{"read 4 KiB depth 16", proto.OpReadObj, 4 << 10, 16, false},
		{"read 4 KiB depth 16 inline", proto.OpReadObj, 4 << 10, 16, true},
		{"write 4 KiB depth 16", proto.OpWriteObj, 4 << 10, 16, false},
		{"write 4 KiB depth 16 inline", proto.OpWriteObj, 4 << 10, 16, true},
		{"read 1 MiB depth 4", proto.OpReadObj, 1 << 20, 4, false},
		{"write 1 MiB depth 4", proto.OpWriteObj, 1 << 20, 4, false},
	} {
		b.Run(bench.name, func(b *testing.B) {
			addr := startServer(b, &echo{inline: bench.inline}, server.Config{})
			conn := dialClient(b, addr)
			b.ReportAllocs()
			b.SetBytes(int64(bench.size))
			pump(b, conn, bench.op, bench.size, bench.depth)
		})
	}
}

// pump keeps depth requests under way without a goroutine for each.
func pump(b *testing.B, conn *client.Conn, op proto.Opcode, size, depth int) {
	var wg sync.WaitGroup
	wg.Add(b.N)
	var left atomic.Int64
	left.Store(int64(b.N))
	for range depth {
		mem := make([]byte, size)
		h := proto.Header{Op: op, Body: proto.ObjectBody{ID: 1}.Body()}
		var payload [][]byte
		into := mem
		if op == proto.OpWriteObj {
			payload, into = [][]byte{mem}, nil
		}
		var next func(proto.Response, []byte, error)
		next = func(_ proto.Response, _ []byte, err error) {
			if err != nil {
				b.Error(err)
			}
			wg.Done()
			if left.Add(-1) >= 0 {
				conn.Start(h, payload, into, next)
			}
		}
		if left.Add(-1) >= 0 {
			conn.Start(h, payload, into, next)
		}
	}
	wg.Wait()
}
