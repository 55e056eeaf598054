package nbd_test

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"sheepdog/nbd"
)

// speak sends data to a server through a pipe and reads whatever comes until
// the server closes. It fails if the server does not, or allocates without
// measure.
func speak(t *testing.T, start, data []byte) {
	l, m := newPipes(), newMemory(64<<10)
	s := serveAt(t, exports{"a": m}, nbd.Config{
		MaxRequest: 64 << 10, MaxInFlight: 1 << 20,
		HandshakeTimeout: 5 * time.Second, Patience: 5 * time.Second,
	}, l)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	ours, theirs := net.Pipe()
	l.clients <- theirs
	heard := make(chan struct{})
	go func() {
		io.Copy(io.Discard, ours)
		close(heard)
	}()
	ours.Write(start)
	ours.Write(data)
	ours.Close()
	<-heard
	await(t, "the client is forgotten", func() bool { return s.Stats() == nbd.Stats{} })
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20+uint64(len(data))*200 {
		t.Errorf("%d bytes allocated for %d bytes from a client", n, len(data))
	}
	if opens, closes := m.opens.Load(), m.closes.Load(); opens != closes {
		t.Errorf("opened %d times, closed %d times", opens, closes)
	}
}

func FuzzNegotiation(f *testing.F) {
	opt := func(id uint32, data []byte) []byte {
		return append(append(append([]byte("IHAVEOPT"), u32(id)...), u32(uint32(len(data)))...), data...)
	}
	for _, seed := range [][]byte{
		opt(optGo, ask("a", 0, 1, 2, 3)),
		opt(optInfo, ask("")),
		opt(optExportName, []byte("a")),
		opt(optList, nil),
		opt(optAbort, nil),
		opt(optStartTLS, nil),
		append(opt(optStructured, nil), opt(optSetMeta, metaAsk("a", "base:allocation", "sheepdog:"))...),
		append(opt(optStructured, nil), opt(optListMeta, metaAsk("a"))...),
		append([]byte("IHAVEOPT"), 0, 0, 0, 7, 0x40, 0, 0, 0),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) { speak(t, u32(3), data) })
}

func FuzzTransmission(f *testing.F) {
	start := append(u32(3), "IHAVEOPT"...)
	start = append(append(start, u32(optStructured)...), u32(0)...)
	meta := metaAsk("a", "base:allocation", "sheepdog:shared")
	start = append(append(append(append(start, "IHAVEOPT"...), u32(optSetMeta)...), u32(uint32(len(meta)))...), meta...)
	start = append(append(append(append(start, "IHAVEOPT"...), u32(optGo)...), u32(7)...), ask("a")...)
	for cmd := range uint16(9) {
		for _, length := range []uint32{0, 1, 4096, 64 << 10, 1 << 20, 1<<32 - 1} {
			f.Add(append(request(cmd, 0, 1, 0, length), ramp(5000)...))
			f.Add(append(request(cmd, 0x1f, 1, 1<<63, length), request(cmdFlush, 0, 2, 0, 0)...))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) { speak(t, start, data) })
}
