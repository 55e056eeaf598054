package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"sheepdog/cmd/dog/internal/remote"
	"sheepdog/cmd/dog/internal/size"
	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// vdiWrite writes standard input to a VDI.
//
// If the input is shorter than a length that was given, the rest up to that
// length, but at most to the end of the data object, becomes zero: scripts use
// that to write whole sectors. Without a length only what was read is written.
func vdiWrite(ctx context.Context, s *session) error {
	if err := s.checkSizes(); err != nil {
		return err
	}
	h, err := s.open(ctx, s.name(), remote.Version{})
	if err != nil {
		return err
	}
	sp, err := s.span(h, "Write offset is beyond the end of the VDI")
	if err != nil {
		return err
	}
	if h.Hyper() {
		return fail(ExitFailure, "%s: vdi write of a hyper volume: not supported yet", s.app.env.Program)
	}
	w := &vdiWriter{s: s, h: h, sp: sp, input: newInput(s.app.env.Stdin)}
	if s.opts.writeback {
		w.flags = proto.FlagCache
	}
	if w.owners, err = s.Map(ctx, h); err != nil {
		return failed(err, "Failed to read object %v %s", sheep.InodeObject(h.VDI), remote.Text(err)).and("Failed to write VDI")
	}
	return w.run(ctx)
}

// A vdiWriter is one vdi write as it runs. Only the pieces' requests run on
// other goroutines than run's.
type vdiWriter struct {
	s      *session
	h      *proto.InodeHeader
	sp     span
	flags  proto.Flags
	input  *input
	owners []sheep.VDIID // the map, with what has been created

	failure error         // the first; ends the transfer
	making  chan struct{} // closed when the object of the piece before exists or never will
	buffers sync.Pool     // of *[writePiece]byte
}

// A part is a piece on its way.
type part struct {
	piece
	data   []byte
	buf    *[writePiece]byte
	create bool
	from   sheep.ObjectID  // of what the new object starts as a copy, or 0
	after  <-chan struct{} // the object must have been made before, or nil
	made   chan struct{}   // closed when it has been made; of creates
}

// run transfers everything. An interrupt ends the input; what was read by then
// is still written and entered in the map, so that no object is lost.
func (w *vdiWriter) run(ctx context.Context) error {
	bar := w.s.newProgress(w.s.app.env.Stderr, w.s.transferBar(false), w.sp.end-w.sp.start, size.Human)
	defer bar.finish()
	requests := context.WithoutCancel(ctx)
	made := &ownMap{s: w.s, vdi: w.h.VDI, flags: w.flags}
	type result struct {
		part
		err error
	}
	for r := range remote.Ordered(w.parts(ctx), transferWidth, func(p part) result {
		return result{p, w.send(requests, p)}
	}) {
		switch {
		case r.err != nil && w.failure == nil:
			id := sheep.DataObject(w.h.VDI, r.index)
			w.failure = failed(r.err, "Failed to write object %v: %s", id, remote.Text(r.err)).and("Failed to write VDI")
		case r.err == nil && r.create:
			made.add(requests, r.index)
		}
		if w.failure == nil {
			w.failure = made.err
		}
		bar.add(uint64(len(r.data)))
		w.buffers.Put(r.buf)
	}
	made.flush(requests)
	if w.failure == nil && made.err != nil {
		w.failure = made.err
	}
	return w.finish(requests)
}

// finish flushes what was written back, and tells what was not written.
func (w *vdiWriter) finish(ctx context.Context) error {
	if w.failure != nil {
		return w.failure
	}
	if w.flags.Has(proto.FlagCache) {
		if _, err := w.s.Flush(ctx, w.h.VDI); err != nil {
			return failed(err, "Failed to flush VDI %s: %s", w.h.Name, remote.Text(err))
		}
	}
	if !w.sp.bounded && w.input.more() {
		w.s.warn("The input goes on beyond the end of the VDI: the rest was not written")
	}
	return nil
}

// parts reads the input and yields it in pieces.
func (w *vdiWriter) parts(ctx context.Context) func(func(part) bool) {
	return func(yield func(part) bool) {
		for at := w.sp.start; at < w.sp.end && w.failure == nil; {
			p := part{piece: pieceAt(at, w.sp.end, w.h.BlockShift, writePiece), buf: w.buffer()}
			n, err := w.input.fill(ctx, p.buf[:p.len])
			if err != nil && !errors.Is(err, io.EOF) {
				w.failure = fail(ExitSystem, "Failed to read the input: %v", err).and("Failed to write VDI")
			}
			if err != nil && w.sp.bounded && w.failure == nil {
				clear(p.buf[n:p.len])
				n = int(p.len)
			}
			if n == 0 {
				return
			}
			p.len, p.data = uint32(n), p.buf[:n]
			w.plan(&p)
			if !yield(p) || err != nil {
				return
			}
			at += uint64(n)
		}
	}
}

// plan decides how p is written.
func (w *vdiWriter) plan(p *part) {
	switch owner := w.owners[p.index]; owner {
	case w.h.VDI:
		if p.off > 0 {
			p.after = w.making
		}
		return
	case 0:
	default:
		p.from = sheep.DataObject(owner, p.index)
	}
	p.create, p.made = true, make(chan struct{})
	w.making, w.owners[p.index] = p.made, w.h.VDI
}

// send writes p.
func (w *vdiWriter) send(ctx context.Context, p part) error {
	id := sheep.DataObject(w.h.VDI, p.index)
	if p.create {
		defer close(p.made)
		return w.s.Create(ctx, id, p.from, p.data, p.off, w.flags)
	}
	if p.after != nil {
		<-p.after // closed by another part's send, which waits for nobody
	}
	return w.s.Write(ctx, id, p.data, p.off, w.flags)
}

func (w *vdiWriter) buffer() *[writePiece]byte {
	if b, ok := w.buffers.Get().(*[writePiece]byte); ok {
		return b
	}
	return new([writePiece]byte)
}

// An input is standard input, read on a goroutine of its own so that waiting
// for it can end.
type input struct {
	r io.Reader
}

type readResult struct {
	n   int
	err error
}

func newInput(r io.Reader) *input { return &input{r: r} }

// fill reads until p is full or the input ends. If ctx ends first, p must not be
// touched again.
func (in *input) fill(ctx context.Context, p []byte) (int, error) {
	done := make(chan readResult, 1)
	go func() {
		n, err := io.ReadFull(in.r, p)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF
		}
		done <- readResult{n, err}
	}()
	select {
	case r := <-done:
		return r.n, r.err
	case <-ctx.Done():
		return 0, fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
}

// moreWait is how long more waits for input.
const moreWait = 100 * time.Millisecond

// more reports whether there is input left. A source that says nothing for a
// while counts as empty.
func (in *input) more() bool {
	ctx, cancel := context.WithTimeout(context.Background(), moreWait)
	defer cancel()
	n, _ := in.fill(ctx, make([]byte, 1))
	return n > 0
}
