package attach_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"sheepdog/nbd/attach"
)

// A fakeServer is an NBD server that negotiates and then keeps connections open.
type fakeServer struct {
	addr attach.Address

	mu    sync.Mutex
	flags uint16     // guarded by mu
	size  uint64     // guarded by mu
	conns []net.Conn // guarded by mu; those that chose an export
}

// serve starts a server with one export, disk.
func serve(t *testing.T, size uint64, flags attach.Flags) *fakeServer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := attach.ParseAddress("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	s := &fakeServer{addr: addr, flags: uint16(attach.HasFlags | flags), size: size}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.negotiate(nc) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.drop()
		wg.Wait()
	})
	return s
}

// becomes changes the export.
func (s *fakeServer) becomes(size uint64, flags attach.Flags) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size, s.flags = size, uint16(attach.HasFlags|flags)
}

func (s *fakeServer) info() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return exportInfo(s.size, s.flags)
}

// chosen returns how many connections have chosen the export.
func (s *fakeServer) chosen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// drop ends the connections that have chosen the export.
func (s *fakeServer) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, nc := range s.conns {
		nc.Close()
	}
	s.conns = nil
}

func (s *fakeServer) negotiate(nc net.Conn) {
	nc.Write([]byte("NBDMAGICIHAVEOPT\x00\x03"))
	io.ReadFull(nc, make([]byte, 4))
	for {
		var h [16]byte
		if _, err := io.ReadFull(nc, h[:]); err != nil {
			nc.Close()
			return
		}
		option := binary.BigEndian.Uint32(h[8:])
		data := make([]byte, binary.BigEndian.Uint32(h[12:]))
		io.ReadFull(nc, data)
		answer := func(kind uint32, data []byte) { nc.Write(replyBytes(option, kind, data)) }
		switch option {
		case 2: // ABORT
			answer(1, nil)
			nc.Close()
			return
		case 3: // LIST
			answer(2, append([]byte{0, 0, 0, 4}, "diskan example"...))
			answer(1, nil)
		case 6, 7: // INFO, GO
			if string(data[4:len(data)-4]) != "disk" {
				answer(1<<31|6, []byte("no such disk"))
				continue
			}
			answer(3, s.info())
			if option == 7 { // before the client can know
				s.mu.Lock()
				s.conns = append(s.conns, nc)
				s.mu.Unlock()
			}
			answer(1, nil)
			if option == 7 {
				return
			}
		}
	}
}

func replyBytes(option, kind uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, 0x3e889045565a9)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func exportInfo(size uint64, flags uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, 0)
	b = binary.BigEndian.AppendUint64(b, size)
	return binary.BigEndian.AppendUint16(b, flags)
}

// A fakeKernel keeps devices in a directory that looks like /sys.
type fakeKernel struct {
	t        *testing.T
	dir      string
	noNodes  bool
	refuses  error // of Connect
	deaths   chan uint32
	offers   chan attach.Connection // what Reconfigure was called with
	attached []attach.Connection    // what Connect was called with
}

func newKernel(t *testing.T) *fakeKernel {
	t.Helper()
	k := &fakeKernel{t: t, dir: t.TempDir(), deaths: make(chan uint32), offers: make(chan attach.Connection, 100)}
	for _, dir := range []string{"sys/block/sda", "sys/block/nbd0", "sys/module/nbd", "dev"} {
		if err := os.MkdirAll(filepath.Join(k.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func (k *fakeKernel) host() attach.Host {
	return attach.Host{
		Sys: filepath.Join(k.dir, "sys"), Dev: filepath.Join(k.dir, "dev"), Proc: filepath.Join(k.dir, "proc"),
		Open: func() (attach.Kernel, error) { return k, nil },
	}
}

// made describes a device under sys.
func (k *fakeKernel) made(index uint32, files map[string]string) {
	dir := filepath.Join(k.dir, fmt.Sprintf("sys/block/nbd%d", index))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		k.t.Error(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o644); err != nil {
			k.t.Error(err)
		}
	}
}

func (k *fakeKernel) Connect(_ context.Context, c attach.Connection) (uint32, error) {
	if k.refuses != nil {
		return 0, k.refuses
	}
	for _, fd := range c.Sockets {
		if _, err := syscall.Getpeername(fd); err != nil {
			k.t.Errorf("descriptor %d is no connection: %v", fd, err)
		}
	}
	k.attached = append(k.attached, c)
	index := uint32(0)
	if c.HasIndex {
		index = c.Index
	}
	ro := "0"
	if c.Flags&attach.ReadOnly != 0 {
		ro = "1"
	}
	k.made(index, map[string]string{"pid": "77", "size": fmt.Sprint(c.Size / 512), "ro": ro, "backend": c.Backend, "dev": "43:0"})
	if k.noNodes {
		return index, nil
	}
	return index, os.WriteFile(filepath.Join(k.dir, fmt.Sprintf("dev/nbd%d", index)), nil, 0o600)
}

func (k *fakeKernel) Reconfigure(_ context.Context, _ uint32, c attach.Connection) error {
	k.offers <- c
	return nil
}

func (k *fakeKernel) Disconnect(_ context.Context, index uint32) error {
	return os.Remove(filepath.Join(k.dir, fmt.Sprintf("sys/block/nbd%d/pid", index)))
}

func (k *fakeKernel) Deaths(ctx context.Context, ready func(), died func(uint32), lost func()) error {
	ready()
	for {
		select {
		case index := <-k.deaths:
			died(index)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (k *fakeKernel) Close() error { return nil }
