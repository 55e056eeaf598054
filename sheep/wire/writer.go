package wire

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const (
	corkLimit   = 128 << 10 // a corked Writer writes all the same when this much has gathered
	keepBatch   = 256 << 10 // larger batch memory is not kept
	roundsInRow = 4         // batches that one caller writes before a goroutine takes over
)

// ErrClosed is what messages end with that were sent to a closed Writer.
var ErrClosed = errors.New("connection closed")

// Sent is told when the bytes of a message have been handed to the socket, or
// never will be. The message's payload belongs to its sender again then. Sent
// runs on any goroutine, with no lock of the Writer held, and must not wait.
type Sent interface {
	Sent(err error)
}

// WriterConfig holds the rarely needed choices of a Writer.
type WriterConfig struct {
	// Patience is how long the other side may accept nothing before GiveUp is
	// asked; zero means for ever.
	Patience time.Duration

	// GiveUp reports whether a connection that has been stuck for Patience
	// should be closed. Nil means yes.
	GiveUp func() bool
}

// A Writer combines the messages of many goroutines into few writes.
type Writer struct {
	conn net.Conn
	raw  syscall.RawConn // nil if conn has no descriptor of its own
	try  func(fd uintptr) bool
	cfg  WriterConfig

	mu      sync.Mutex
	idle    sync.Cond // signalled when writing becomes false
	fill    *batch    // guarded by mu; what is appended to
	spare   *batch    // guarded by mu; the other one while nobody writes
	writing bool      // guarded by mu; somebody owns cur
	corked  bool      // guarded by mu
	err     error     // guarded by mu; set once

	cur    *batch // owned by whoever set writing
	again  bool   // owned likewise; the socket is full
	tryErr error  // owned likewise
}

// NewWriter returns a writer to conn.
func NewWriter(conn net.Conn, cfg WriterConfig) *Writer {
	w := &Writer{conn: conn, cfg: cfg, fill: new(batch), spare: new(batch)}
	w.idle.L = &w.mu
	w.try = w.tryWrite
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			w.raw = raw
		}
	}
	return w
}

// Append queues one message: head, which is copied, then the payloads. Small
// payloads are copied, those of LargePayload and more are lent until sent is
// told. sent may be nil. Append never waits for the other side.
func (w *Writer) Append(head []byte, sent Sent, payload ...[]byte) {
	w.mu.Lock()
	if err := w.err; err != nil {
		w.mu.Unlock()
		if sent != nil {
			sent.Sent(err)
		}
		return
	}
	w.fill.add(head, sent, payload)
	if w.writing || w.corked && w.fill.bytes < corkLimit {
		w.mu.Unlock()
		return
	}
	w.writing = true
	small := w.fill.bytes < LargePayload
	w.mu.Unlock()
	if small {
		runtime.Gosched() // whoever is about to append rides along: a third less CPU at depth 16
	}
	w.flush()
}

// Cork lets messages gather until Uncork.
func (w *Writer) Cork() {
	w.mu.Lock()
	w.corked = true
	w.mu.Unlock()
}

// Uncork writes what has gathered since Cork.
func (w *Writer) Uncork() {
	w.mu.Lock()
	w.corked = false
	if w.writing || w.fill.empty() || w.err != nil {
		w.mu.Unlock()
		return
	}
	w.writing = true
	w.mu.Unlock()
	w.flush()
}

// Drain returns when everything that was appended has been written, or the
// Writer has been closed or has failed.
func (w *Writer) Drain() {
	w.Uncork()
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.writing {
		w.idle.Wait()
	}
}

// Close closes the connection and returns when no goroutine of the Writer and
// no payload is in use any more. Messages not yet written end with err, or
// ErrClosed if that is nil. Only the first error counts.
func (w *Writer) Close(err error) {
	if err == nil {
		err = ErrClosed
	}
	w.fail(err)
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.writing {
		w.idle.Wait()
	}
}

// flush writes batches until there is nothing left. The caller has set writing.
func (w *Writer) flush() {
	for round := 0; w.next(); round++ {
		if round >= roundsInRow || !w.writeNow() {
			go w.drain()
			return
		}
		if w.tryErr != nil {
			w.fail(w.tryErr)
		}
		w.cur.finish(w.tryErr)
	}
}

// drain is flush for a socket that is full: it waits.
func (w *Writer) drain() {
	for more := true; more; more = w.next() {
		err := w.writeSlowly()
		if err != nil {
			w.fail(err)
		}
		w.cur.finish(err)
	}
}

// next makes the filled batch the current one. It returns false, and gives up
// writing, if there is none.
func (w *Writer) next() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cur != nil {
		w.spare, w.cur = w.cur, nil
	}
	if w.fill.empty() {
		w.writing = false
		w.idle.Broadcast()
		return false
	}
	w.cur, w.fill, w.spare = w.fill, w.spare, nil
	w.again, w.tryErr = false, nil
	return true
}

// writeNow writes what the socket takes without waiting. It returns false if
// something is left to write.
func (w *Writer) writeNow() bool {
	if w.raw == nil {
		return false
	}
	if err := w.raw.Write(w.try); err != nil {
		w.tryErr = err
	}
	return w.tryErr != nil || !w.again
}

// tryWrite runs with the descriptor locked and never blocks.
func (w *Writer) tryWrite(fd uintptr) bool {
	for {
		p, last := w.cur.head()
		if p == nil {
			return true
		}
		var n int
		var err error
		if last {
			n, err = syscall.Write(int(fd), p)
		} else {
			n, err = syscall.SendmsgN(int(fd), p, nil, nil, syscall.MSG_MORE|syscall.MSG_NOSIGNAL)
		}
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			w.again = true
			return true
		case err != nil:
			w.tryErr = os.NewSyscallError("write", err)
			return true
		}
		w.cur.advance(n)
	}
}

// writeSlowly writes the rest of the current batch, waiting for the socket.
func (w *Writer) writeSlowly() error {
	for {
		rest := w.cur.rest()
		if len(rest) == 0 {
			return nil
		}
		if w.cfg.Patience > 0 {
			if err := w.conn.SetWriteDeadline(time.Now().Add(w.cfg.Patience)); err != nil {
				return err
			}
		}
		n, err := rest.WriteTo(w.conn)
		w.cur.advance(int(n))
		switch {
		case err == nil:
		case !errors.Is(err, os.ErrDeadlineExceeded) || w.Err() != nil:
			return err
		case n == 0 && (w.cfg.GiveUp == nil || w.cfg.GiveUp()):
			return err
		}
	}
}

// Err returns why the Writer has failed or been closed, or nil.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// fail closes the connection and ends what is queued, except the current batch,
// which its owner ends.
func (w *Writer) fail(err error) {
	w.mu.Lock()
	if w.err != nil {
		w.mu.Unlock()
		return
	}
	w.err = err
	rest := w.fill
	w.fill = new(batch)
	w.mu.Unlock()
	w.conn.Close()
	rest.finish(err)
}
