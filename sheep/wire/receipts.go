package wire

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Receipts find out whether the other end of a connection has got what it was sent.
//
// Some answers are given once: that writes were lost is told to one flush, and the
// next succeeds. If the connection breaks before such an answer has arrived, the
// client, which asks again on another one, must hear it there. That the bytes were
// handed to a socket does not mean that they arrived, and no protocol of ours
// acknowledges answers. The kernel knows, though, what the other end has not yet
// taken: on TCP what its kernel has not acknowledged, on a Unix socket what its
// process has not read.
type Receipts struct {
	raw  syscall.RawConn // nil if conn has no descriptor: what was written has been read
	open atomic.Bool     // there are answers without a receipt

	mu      sync.Mutex
	settled sync.Cond // signalled when sending has become less
	sending int       // guarded by mu; answers on their way to the socket
	sent    []func()  // guarded by mu; got of those in the socket
}

// NewReceipts returns the receipts of conn, which is below any encryption.
func NewReceipts(conn net.Conn) *Receipts {
	r := new(Receipts)
	r.settled.L = &r.mu
	if sc, ok := conn.(syscall.Conn); ok {
		r.raw, _ = sc.SyscallConn()
	}
	return r
}

// Expect notes that an answer is about to be sent; got is called when the other end
// has it, if ever. The caller calls sent, once, when the answer has been handed to the
// socket, or with an error if it never will be.
func (r *Receipts) Expect(got func()) (sent func(error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sending++
	r.open.Store(true)
	return func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.sending--
		if err == nil {
			r.sent = append(r.sent, got)
		}
		r.open.Store(r.sending > 0 || len(r.sent) > 0)
		r.settled.Broadcast()
	}
}

// Open reports whether there are answers without a receipt.
func (r *Receipts) Open() bool { return r.open.Load() }

// Collect waits until no answer is on its way to the socket, and gives receipts for
// all if the other end has everything that was sent.
func (r *Receipts) Collect() {
	if !r.Open() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.sending > 0 {
		r.settled.Wait()
	}
	if !r.arrived() {
		return
	}
	for _, got := range r.sent {
		got()
	}
	r.sent = nil
	r.open.Store(false)
}

// arrived reports whether the other end has everything.
func (r *Receipts) arrived() bool {
	if r.raw == nil {
		return true
	}
	left := -1
	err := r.raw.Control(func(fd uintptr) {
		if n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			left = n
		}
	})
	return err == nil && left == 0
}
