package nbd

import (
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	smallPiece = 16 << 10  // shorter pieces are copied together before they are written
	stageSize  = 128 << 10 // of what is copied together
	roundsHere = 4         // batches that a caller writes before a goroutine takes over
)

// A writer sends replies, combining those of many goroutines into few writes.
// Whoever finds it idle writes; the others only append and go on. Nobody who
// appends waits for the client: if the socket is full, a goroutine of the
// writer takes over until it is empty again. What is queued is bounded by the
// budget that its requests hold.
type writer struct {
	nc       net.Conn
	raw      syscall.RawConn // nil if nc has no descriptor of its own
	try      func(fd uintptr) bool
	patience time.Duration

	dead atomic.Bool // set with err

	mu      sync.Mutex
	free    sync.Cond  // signalled when writing becomes false
	queue   []*request // guarded by mu
	writing bool       // guarded by mu; somebody owns the fields below
	err     error      // guarded by mu; set once

	batch  []*request
	at     int    // batch[at] has the next piece
	piece  int    // which of its pieces
	stage  []byte // small pieces, copied
	rest   []byte // what is being written
	tryErr error
}

func newWriter(nc net.Conn, patience time.Duration) *writer {
	w := &writer{nc: nc, patience: patience}
	w.free.L = &w.mu
	w.try = w.tryWrite
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			w.raw = raw
		}
	}
	return w
}

// append queues a reply without writing it. Somebody must call flush.
func (w *writer) append(r *request) {
	w.mu.Lock()
	if err := w.err; err != nil {
		w.mu.Unlock()
		r.finish(err)
		return
	}
	w.queue = append(w.queue, r)
	w.mu.Unlock()
}

// send queues a reply and sees to it that it is written.
func (w *writer) send(r *request) {
	w.mu.Lock()
	if err := w.err; err != nil {
		w.mu.Unlock()
		r.finish(err)
		return
	}
	w.queue = append(w.queue, r)
	if w.writing {
		w.mu.Unlock()
		return
	}
	w.writing = true
	w.mu.Unlock()
	runtime.Gosched() // whoever is about to append rides along
	w.write()
}

// flush sees to it that everything queued is written.
func (w *writer) flush() {
	w.mu.Lock()
	if w.writing || len(w.queue) == 0 {
		w.mu.Unlock()
		return
	}
	w.writing = true
	w.mu.Unlock()
	w.write()
}

// drain returns when everything queued is written.
func (w *writer) drain() {
	w.flush()
	w.wait()
}

// close ends the writer and the connection, and returns when no goroutine of
// the writer runs any more.
func (w *writer) close() {
	w.fail(net.ErrClosed)
	w.wait()
}

func (w *writer) wait() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.writing {
		w.free.Wait()
	}
}

// write writes batches until there is nothing left. The caller has set writing.
func (w *writer) write() {
	for round := 0; w.next(); round++ {
		if w.raw == nil || round >= roundsHere || !w.writeNow() {
			go w.writeSlowly()
			return
		}
		w.finish(w.tryErr)
	}
}

// next makes the queue the current batch. It returns false, and gives up
// writing, if it is empty.
func (w *writer) next() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		w.writing = false
		w.free.Broadcast()
		return false
	}
	w.batch, w.queue = w.queue, w.batch[:0]
	w.at, w.piece, w.rest, w.tryErr = 0, 0, nil, nil
	return true
}

// finish ends the current batch.
func (w *writer) finish(err error) {
	if err != nil {
		w.fail(err)
	}
	for i, r := range w.batch {
		w.batch[i] = nil
		r.finish(err)
	}
	w.batch = w.batch[:0]
}

// fill makes rest the next bytes to write. It returns false if there are none.
func (w *writer) fill() bool {
	if len(w.rest) > 0 {
		return true
	}
	w.stage = w.stage[:0]
	for ; w.at < len(w.batch); w.at, w.piece = w.at+1, 0 {
		for pieces := w.batch[w.at].pieces; w.piece < len(pieces); w.piece++ {
			p := pieces[w.piece]
			switch {
			case len(p) < smallPiece && len(w.stage)+len(p) <= stageSize:
				w.stage = append(w.stage, p...)
				continue
			case len(w.stage) == 0:
				w.rest = p
				w.piece++
				return true
			}
			w.rest = w.stage
			return true
		}
	}
	w.rest = w.stage
	return len(w.rest) > 0
}

// writeNow writes what the socket takes without waiting. It returns false if
// something is left to write.
func (w *writer) writeNow() bool {
	for w.fill() {
		n := len(w.rest)
		if err := w.raw.Write(w.try); err != nil {
			w.tryErr = err
		}
		if w.tryErr != nil {
			return true
		}
		if len(w.rest) == n {
			return false
		}
	}
	return true
}

// tryWrite runs with the descriptor locked and never blocks.
func (w *writer) tryWrite(fd uintptr) bool {
	for {
		n, err := syscall.Write(int(fd), w.rest)
		switch err {
		case nil:
			w.rest = w.rest[n:]
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
		default:
			w.tryErr = os.NewSyscallError("write", err)
		}
		return true
	}
}

// writeSlowly goes on with the current batch, and with later ones, waiting for
// the client.
func (w *writer) writeSlowly() {
	for more := true; more; more = w.next() {
		var err error
		for err == nil && w.fill() {
			var n int
			w.nc.SetWriteDeadline(time.Now().Add(w.patience))
			n, err = w.nc.Write(w.rest[:min(len(w.rest), 256<<10)])
			w.rest = w.rest[n:]
		}
		w.nc.SetWriteDeadline(time.Time{}) // an old one would fail writeNow
		w.finish(err)
	}
}

// fail closes the connection and ends what is queued, except the current batch,
// which its owner ends.
func (w *writer) fail(err error) {
	w.mu.Lock()
	if w.err != nil {
		w.mu.Unlock()
		return
	}
	w.err = err
	w.dead.Store(true)
	queue := w.queue
	w.queue = nil
	w.mu.Unlock()
	w.nc.Close()
	for _, r := range queue {
		r.finish(err)
	}
}
