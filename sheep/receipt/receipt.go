// Package receipt finds out whether the other end of a connection has got what it
// was sent.
//
// Some answers are given once: that writes were lost is told to one flush, and the
// next succeeds. If the connection breaks before such an answer has arrived, the
// client, which asks again on another one, must hear it there. That the bytes were
// handed to a socket does not mean that they arrived, and no protocol of ours
// acknowledges answers. The kernel knows, though, what the other end has not yet
// taken: on TCP what its kernel has not acknowledged, on a Unix socket what its
// process has not read.
package receipt

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Book keeps the receipts of one connection.
type Book struct {
	raw  syscall.RawConn // nil if conn has no descriptor: what was written has been read
	open atomic.Bool     // there are entries

	mu      sync.Mutex
	settled sync.Cond // signalled when sending has become less
	sending int       // guarded by mu; entries whose answers are on their way to the socket
	sent    []func()  // guarded by mu; got of those whose answers are in the socket
}

// NewBook returns an empty Book for conn, below any encryption.
func NewBook(conn net.Conn) *Book {
	b := new(Book)
	b.settled.L = &b.mu
	if sc, ok := conn.(syscall.Conn); ok {
		b.raw, _ = sc.SyscallConn()
	}
	return b
}

// An Entry is an answer whose receipt is waited for.
type Entry struct {
	book *Book
	got  func()
}

// Expect notes that an answer is about to be sent; got is called when the other end
// has it, if ever.
func (b *Book) Expect(got func()) *Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sending++
	b.open.Store(true)
	return &Entry{b, got}
}

// Sent notes that the answer has been handed to the socket, or with an error that it
// never will be.
func (e *Entry) Sent(err error) {
	b := e.book
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sending--
	if err == nil {
		b.sent = append(b.sent, e.got)
	}
	b.open.Store(b.sending > 0 || len(b.sent) > 0)
	b.settled.Broadcast()
}

// Open reports whether there are entries without a receipt.
func (b *Book) Open() bool { return b.open.Load() }

// Collect waits until no answer is on its way to the socket, and gives receipts for
// all if the other end has everything that was sent.
func (b *Book) Collect() {
	if !b.Open() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.sending > 0 {
		b.settled.Wait()
	}
	if !b.arrived() {
		return
	}
	for _, got := range b.sent {
		got()
	}
	b.sent = nil
	b.open.Store(false)
}

// arrived reports whether the other end has everything.
func (b *Book) arrived() bool {
	if b.raw == nil {
		return true
	}
	left := -1
	err := b.raw.Control(func(fd uintptr) {
		if n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			left = n
		}
	})
	return err == nil && left == 0
}
