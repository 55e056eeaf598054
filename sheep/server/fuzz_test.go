package server_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"

	"sheepdog/sheep/proto"
	"sheepdog/sheep/server"
)

// FuzzConnection sends any bytes to a daemon. Whatever they are, the answers are
// well-formed, no connection but the one is hurt, and nothing is left running.
func FuzzConnection(f *testing.F) {
	for op := range 256 {
		h := acceptable(proto.Opcode(op))
		f.Add(append(h.Append(nil), make([]byte, h.Payload())...))
	}
	f.Add([]byte("GET / HTTP/1.1\r\nHost: sheep.example.com\r\nAccept: anything at all\r\n\r\n"))
	hello := proto.Header{Version: 1, Op: proto.OpHello, Flags: proto.FlagWrite, DataLen: proto.HelloSize}
	greeted := proto.Hello{Version: 1}.Append(hello.Append(nil))
	for op := proto.OpPeerRead; op <= proto.OpOwnerDecref; op++ {
		h := proto.Header{Version: 1, Op: op, Body: proto.PeerBody{ID: 1, Len: 10, Size: 100, Copies: 1}.Body()}
		f.Add(h.Append(greeted[:len(greeted):len(greeted)]))
	}
	d := newWorld().daemon()
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		s := server.New(d, slog.New(slog.DiscardHandler), server.Config{Bytes: 8 << 20})
		go func() { served <- s.Serve(ctx, l) }()
		conn := l.dial()
		go func() {
			conn.Write(data)
			conn.Write(proto.Header{Op: 0xFE}.Append(nil)) // answered, if the stream is at the start of a request
			cancel()
		}()
		if err := readAnswers(conn); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		conn.Close()
	})
}

// readAnswers reads answers until the connection ends between two of them.
func readAnswers(conn net.Conn) error {
	for {
		var head [proto.HeaderSize]byte
		switch _, err := io.ReadFull(conn, head[:]); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		resp, err := proto.DecodeResponse(head[:])
		if err != nil {
			return err
		}
		if resp.Version != 0 || resp.Flags != 0 {
			return errors.New("an answer with a version or flags")
		}
		if _, err := io.CopyN(io.Discard, conn, int64(resp.DataLen)); err != nil {
			return err
		}
	}
}
