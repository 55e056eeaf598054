package wire_test

import (
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/sheep/wire"
)

// pair returns both ends of a connection.
func pair(t *testing.T, network, addr string) (here, there net.Conn) {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	there, err = net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	here, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close(); there.Close() })
	return here, there
}

// fill writes until the other end takes no more, and returns how much that was.
func fill(t *testing.T, conn net.Conn) (n int) {
	t.Helper()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	zeroes := make([]byte, 64<<10)
	for end := false; !end; {
		if err := raw.Write(func(fd uintptr) bool {
			m, err := syscall.Write(int(fd), zeroes)
			n, end = n+max(m, 0), err != nil
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func TestReceiptWhenTheOtherEndHasEverything(t *testing.T) {
	for network, addr := range map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "sock")} {
		t.Run(network, func(t *testing.T) {
			here, there := pair(t, network, addr)
			receipts := wire.NewReceipts(here)
			got := 0
			sent := receipts.Expect(func() { got++ })
			n := fill(t, here)
			sent(nil)
			receipts.Collect()
			if got != 0 || !receipts.Open() {
				t.Fatalf("%d receipts for what the other end has not taken, open: %t", got, receipts.Open())
			}
			if _, err := io.CopyN(io.Discard, there, int64(n)); err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(10 * time.Second); receipts.Open() && time.Now().Before(end); {
				receipts.Collect() // the acknowledgement is on its way
			}
			receipts.Collect()
			if got != 1 || receipts.Open() {
				t.Errorf("%d receipts for what was read, open: %t", got, receipts.Open())
			}
		})
	}
}

func TestNoReceiptForWhatWasNotSent(t *testing.T) {
	for about, end := range map[string]func(here, there net.Conn, sent func(error)){
		"it could not be sent":       func(_, _ net.Conn, sent func(error)) { sent(net.ErrClosed) },
		"the connection is closed":   func(here, _ net.Conn, sent func(error)) { sent(nil); here.Close() },
		"the client has not read it": func(here, _ net.Conn, sent func(error)) { here.Write([]byte("x")); sent(nil) },
		"the client closed unreading": func(here, there net.Conn, sent func(error)) {
			here.Write([]byte("x"))
			sent(nil)
			there.Close()
			here.Close()
		},
	} {
		t.Run(about, func(t *testing.T) {
			here, there := pair(t, "unix", filepath.Join(t.TempDir(), "sock"))
			receipts := wire.NewReceipts(here)
			end(here, there, receipts.Expect(func() { t.Error("a receipt") }))
			receipts.Collect()
		})
	}
}

// TestCollectWaitsForAnswersOnTheirWay: who asks again at once has got the answer,
// though whoever sent it may not yet have said so.
func TestCollectWaitsForAnswersOnTheirWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer here.Close()
		defer there.Close()
		receipts := wire.NewReceipts(here)
		var got atomic.Int32
		sent := receipts.Expect(func() { got.Add(1) })
		var done atomic.Bool
		go func() {
			receipts.Collect()
			done.Store(true)
		}()
		synctest.Wait()
		if done.Load() {
			t.Error("it does not wait")
		}
		sent(nil)
		synctest.Wait()
		if !done.Load() || got.Load() != 1 {
			t.Errorf("after the answer was sent: done %t, %d receipts", done.Load(), got.Load())
		}
	})
}
