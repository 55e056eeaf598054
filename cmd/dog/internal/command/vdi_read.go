package command

import (
	"context"
	"sync"

	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/size"
)

// How data is transferred: so many requests at once, of so many bytes at most.
const (
	transferWidth = 16
	readPiece     = 1 << 20
	writePiece    = 4 << 20
)

// A span is the part of a VDI that a transfer is about.
type span struct {
	start, end uint64
	bounded    bool // a length was given
}

// span returns the part of a VDI of the given size that the arguments name.
func (s *session) span(h *proto.InodeHeader, beyond string) (span, error) {
	sp := span{end: h.Size}
	if len(s.args) > 1 {
		sp.start, _ = size.Parse(s.args[1]) // was checked before
	}
	if sp.start > h.Size {
		return span{}, fail(ExitFailure, "%s", beyond)
	}
	if len(s.args) > 2 {
		n, _ := size.Parse(s.args[2])
		sp.bounded = true
		if n > h.Size-sp.start {
			s.warn("The length goes beyond the end of the VDI: %d bytes are left out", n-(h.Size-sp.start))
		} else {
			sp.end = sp.start + n
		}
	}
	return sp, nil
}

// checkSizes checks the arguments that are sizes.
func (s *session) checkSizes() error {
	for _, arg := range s.args[1:] {
		if _, err := parseSize(arg); err != nil {
			return err
		}
	}
	return nil
}

// A piece is a part of one data object.
type piece struct {
	index uint32 // of the object
	off   uint32 // in the object
	len   uint32
}

// at returns where in the VDI with the header h the piece begins.
func (p piece) at(h *proto.InodeHeader) uint64 { return uint64(p.index)<<h.BlockShift + uint64(p.off) }

// pieces cuts a span at the ends of objects, and into pieces of at most most bytes.
func (sp span) pieces(shift uint8, most uint64) func(func(piece) bool) {
	return func(yield func(piece) bool) {
		for at := sp.start; at < sp.end; {
			p := pieceAt(at, sp.end, shift, most)
			if !yield(p) {
				return
			}
			at += uint64(p.len)
		}
	}
}

// pieceAt returns the piece that starts at byte at of a VDI.
func pieceAt(at, end uint64, shift uint8, most uint64) piece {
	off := at & (1<<shift - 1)
	return piece{index: uint32(at >> shift), off: uint32(off), len: uint32(min(most, 1<<shift-off, end-at))}
}

// vdiRead writes the content of a VDI to standard output.
func vdiRead(ctx context.Context, s *session) error {
	if err := s.checkSizes(); err != nil {
		return err
	}
	h, err := s.open(ctx, s.name(), s.opts.snapshot)
	if err != nil {
		return err
	}
	sp, err := s.span(h, "Read offset is beyond the end of the VDI")
	if err != nil {
		return err
	}
	read, done, err := s.reader(ctx, h)
	if err != nil {
		return err
	}
	defer done()
	bar := s.newProgress(s.app.env.Stderr, s.transferBar(true), sp.end-sp.start, size.Human)
	defer bar.finish()
	buffers := sync.Pool{New: func() any { return new([readPiece]byte) }}
	type result struct {
		data []byte
		buf  *[readPiece]byte
		err  error
	}
	for r := range remote.Ordered(sp.pieces(h.BlockShift, readPiece), transferWidth, func(p piece) result {
		r := result{buf: buffers.Get().(*[readPiece]byte)}
		r.data = r.buf[:p.len]
		r.err = read(ctx, p, r.data)
		return r
	}) {
		if r.err != nil {
			return r.err
		}
		if _, err := s.out.Writer.Write(r.data); err != nil {
			return fail(ExitSystem, "Failed to write the output: %v", err)
		}
		bar.add(uint64(len(r.data)))
		buffers.Put(r.buf)
	}
	return nil
}

// reader returns a function that reads pieces of a VDI, and one to call at the
// end.
func (s *session) reader(ctx context.Context, h *proto.InodeHeader) (read func(context.Context, piece, []byte) error, done func(), err error) {
	disk, err := s.disk(ctx, s.name(), s.opts.snapshot)
	if err != nil {
		return nil, nil, err
	}
	read = func(ctx context.Context, p piece, b []byte) error {
		if err := disk.ReadAt(ctx, b, p.at(h)); err != nil {
			return diskFailed(err, h, "Failed to read object %v %s").and("Failed to read VDI")
		}
		return nil
	}
	return read, func() { _ = disk.Close(ctx) }, nil
}

// transferBar returns the width of a bar on standard error, which shows how a
// transfer goes; none if the data itself goes to the terminal.
func (s *session) transferBar(toOutput bool) int {
	if toOutput && s.app.env.StdoutWidth > 0 {
		return 0
	}
	return s.app.env.StderrWidth
}
