package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/size"
	"sheepdog/sheep/vdi"
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
	disk, err := s.disk(ctx, s.name(), remote.Version{})
	if err != nil {
		if f, ok := err.(*failure); ok {
			return f.and("Failed to write VDI")
		}
		return err
	}
	w := &vdiWriter{s: s, h: h, sp: sp, disk: disk, input: newInput(s.app.env.Stdin)}
	return w.run(ctx)
}

// A vdiWriter is one vdi write as it runs. Only the pieces' requests run on
// other goroutines than run's.
type vdiWriter struct {
	s     *session
	h     *proto.InodeHeader
	sp    span
	disk  *vdi.Disk
	input *input

	failure error     // the first; ends the transfer
	buffers sync.Pool // of *[writePiece]byte
}

// A part is a piece on its way.
type part struct {
	piece
	data []byte
	buf  *[writePiece]byte
}

// run transfers everything. An interrupt ends the input; what was read by then
// is still written and entered in the map, so that no object is lost.
func (w *vdiWriter) run(ctx context.Context) error {
	bar := w.s.newProgress(w.s.app.env.Stderr, w.s.transferBar(false), w.sp.end-w.sp.start, size.Human)
	defer bar.finish()
	requests := context.WithoutCancel(ctx)
	type result struct {
		part
		err error
	}
	for r := range remote.Ordered(w.parts(ctx), transferWidth, func(p part) result {
		return result{p, w.disk.WriteAt(requests, p.data, p.at(w.h), !w.s.opts.writeback)}
	}) {
		if r.err != nil && w.failure == nil {
			w.failure = diskFailed(r.err, w.h, "Failed to write object %v: %s").and("Failed to write VDI")
		}
		bar.add(uint64(len(r.data)))
		w.buffers.Put(r.buf)
	}
	defer w.disk.Close(requests) // has nothing left to flush, or the failure is known
	return w.finish(requests)
}

// finish flushes what was written back, and tells what was not written.
func (w *vdiWriter) finish(ctx context.Context) error {
	if w.failure != nil {
		return w.failure
	}
	if w.s.opts.writeback {
		if err := w.disk.Flush(ctx); err != nil {
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
			if !yield(p) || err != nil {
				return
			}
			at += uint64(n)
		}
	}
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
