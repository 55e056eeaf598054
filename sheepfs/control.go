package sheepfs

import (
	"bytes"
	"context"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// maxLine is the longest line that a control file takes: a name and some
// numbers fit in even if every byte is escaped.
const maxLine = 1024

// A control is what a file of the tree does.
type control struct {
	// show returns the content. If it is nil there is none.
	show func(ctx context.Context) (content, error)

	// obey acts on a line, which comes without its newline. If it is nil the
	// file cannot be written.
	obey func(ctx context.Context, line string) error
}

// A controlFile is the node of a control.
type controlFile struct {
	fs.Inode
	control

	tree *FS
	path string // in the tree: where the reason of the last failure is kept
	once shared // makes the content
}

var (
	_ fs.NodeOpener    = (*controlFile)(nil)
	_ fs.NodeGetattrer = (*controlFile)(nil)
	_ fs.NodeSetattrer = (*controlFile)(nil)
)

func (t *FS) control(path string, c control) *controlFile {
	return &controlFile{control: c, tree: t, path: path}
}

// mode returns the type and the permissions, before the umask.
func (f *controlFile) mode() uint32 {
	if f.obey == nil {
		return syscall.S_IFREG | 0o444
	}
	return syscall.S_IFREG | 0o644
}

// Getattr tells no size, as files of the kernel do: it is known once the file is
// open.
func (f *controlFile) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	f.tree.fill(&out.Attr, f.mode())
	out.SetTimeout(fixedTimeout)
	return 0
}

// Setattr lets a shell truncate the file and touch set its times, to no effect.
func (f *controlFile) Setattr(ctx context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		return syscall.EPERM
	}
	return f.Getattr(ctx, nil, out)
}

// Open makes the content, unless the file is only written.
func (f *controlFile) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h := &controlHandle{file: f}
	if flags&syscall.O_ACCMODE != syscall.O_WRONLY {
		c, err := f.content(ctx)
		if err != nil {
			f.tree.log.Warn("cannot show a file", "file", f.path, "err", err)
			return nil, 0, errnoOf(err)
		}
		h.content = c
	}
	return h, fuse.FOPEN_DIRECT_IO, 0
}

// content returns what the file shows, and after it the reason why the last
// write to it has failed.
func (f *controlFile) content(ctx context.Context) (content, error) {
	var c content = text("")
	if f.show != nil {
		ctx, cancel := f.tree.reading(ctx)
		defer cancel()
		var err error
		if c, err = f.once.do(ctx, f.tree.fetch, f.show); err != nil {
			return nil, err
		}
	}
	if reason := f.tree.reasons.of(f.path); reason != "" {
		c = appended{c, text(reason)}
	}
	return c, nil
}

// A controlHandle is one opened control file.
type controlHandle struct {
	file    *controlFile
	content content // nil if it was opened for writing only

	mu   sync.Mutex
	line []byte // guarded by mu; what was written since the last newline
	long bool   // guarded by mu; a line was too long: what follows is refused
}

var (
	_ fs.FileReader  = (*controlHandle)(nil)
	_ fs.FileWriter  = (*controlHandle)(nil)
	_ fs.FileFlusher = (*controlHandle)(nil)
	_ fs.FileFsyncer = (*controlHandle)(nil)
)

// Read returns a part of the content as it was at the open.
func (h *controlHandle) Read(ctx context.Context, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if h.content == nil {
		return nil, syscall.EBADF
	}
	n, err := h.content.readAt(ctx, p, off)
	if err != nil {
		return nil, errnoOf(err)
	}
	return fuse.ReadResultData(p[:n]), 0
}

// Write takes what belongs to a line, wherever it is said to go, up to the end of
// the line: then the line acts, and whoever has written more comes again with the
// rest, as after every short write.
func (h *controlHandle) Write(ctx context.Context, p []byte, _ int64) (uint32, syscall.Errno) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file.obey == nil {
		return 0, syscall.EIO
	}
	part, _, ended := bytes.Cut(p, []byte{'\n'})
	if h.long || len(h.line)+len(part) > maxLine {
		h.long, h.line = true, nil
		return 0, h.file.tree.failed(h.file.path, refuse(syscall.EINVAL, "a line has at most %d bytes", maxLine))
	}
	h.line = append(h.line, part...)
	if !ended {
		return uint32(len(p)), 0
	}
	line := string(h.line)
	h.line = nil
	if errno := h.act(ctx, line); errno != 0 {
		return 0, errno
	}
	return uint32(len(part) + 1), 0
}

// act carries a line out.
func (h *controlHandle) act(ctx context.Context, line string) syscall.Errno {
	ctx, cancel := h.file.tree.changing(ctx)
	defer cancel()
	return h.file.tree.failed(h.file.path, h.file.obey(ctx, line))
}

// Flush, at each close, acts on a line that has not ended.
func (h *controlHandle) Flush(ctx context.Context) syscall.Errno {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.line) == 0 {
		return 0
	}
	line := string(h.line)
	h.line = nil
	return h.act(ctx, line)
}

// Fsync has nothing to do: what was carried out is durable.
func (h *controlHandle) Fsync(context.Context, uint32) syscall.Errno { return 0 }
