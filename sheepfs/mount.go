package sheepfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"sheepdog/sheep/listing"
	"sheepdog/sheep/remote"
)

// maxTransfer is how much one request of the kernel reads or writes.
const maxTransfer = 1 << 20

// Mount mounts the tree on a directory and serves it from then on. The process
// must not touch the mount itself.
func (t *FS) Mount(dir string) error {
	if info, err := os.Stat(dir); err != nil {
		return fmt.Errorf("mount on %s: %w", dir, err)
	} else if !info.IsDir() {
		return fmt.Errorf("mount on %s: %w", dir, syscall.ENOTDIR)
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("mount on %s: %w", dir, err) // clearer than what fusermount says
	}
	f.Close()
	none := time.Duration(0)
	server, err := mount(dir, t.root(), &fs.Options{
		MountOptions: fuse.MountOptions{
			FsName:             t.cfg.Source,
			Name:               "sheepfs",
			AllowOther:         t.cfg.AllowOther,
			Options:            t.kernelOptions(),
			DirectMountStrict:  os.Geteuid() == 0,
			DirectMountFlags:   t.mountFlags(),
			MaxWrite:           maxTransfer,
			MaxBackground:      64,
			DisableSplice:      true, // nothing here comes from a file
			DisableXAttrs:      true,
			DisableReadDirPlus: true, // to list names should not cost a request for each
			Debug:              t.cfg.Debug,
			Logger:             t.stdLog(slog.LevelDebug),
			ExtraCapabilities:  fuse.CAP_DIRECT_IO_ALLOW_MMAP | fuse.CAP_ASYNC_DIO,
		},
		EntryTimeout:    &none, // but for what never goes
		AttrTimeout:     &none,
		NegativeTimeout: &none,
		NullPermissions: true,
		UID:             t.cfg.UID,
		GID:             t.cfg.GID,
		Logger:          t.stdLog(slog.LevelWarn),
	})
	if err != nil {
		return fmt.Errorf("mount on %s: %w", dir, err)
	}
	t.server, t.point = server, dir
	return nil
}

// mount is fs.Mount with a better error. For who is not root fusermount3 mounts, and
// says only on the standard error of this process why it does not.
func mount(dir string, root fs.InodeEmbedder, o *fs.Options) (*fuse.Server, error) {
	if os.Geteuid() == 0 {
		return fs.Mount(dir, root, o)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	stderr := os.Stderr
	os.Stderr = w
	server, err := fs.Mount(dir, root, o)
	os.Stderr = stderr
	w.Close()
	if err != nil {
		if said, _ := io.ReadAll(io.LimitReader(r, 4<<10)); len(said) > 0 {
			err = errors.New(strings.TrimSpace(string(said)))
		}
	}
	return server, err
}

// Remount changes the flags of a mount as cfg says. Everything else stays as it is.
func Remount(dir string, cfg Config) error {
	t := FS{cfg: cfg}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|t.mountFlags(), ""); err != nil {
		return fmt.Errorf("remount %s: %w", dir, err)
	}
	return nil
}

// stdLog returns a logger of the old kind that logs at a level.
func (t *FS) stdLog(level slog.Level) *log.Logger {
	return slog.NewLogLogger(t.log.Handler(), level)
}

// kernelOptions returns the options for the mount itself.
func (t *FS) kernelOptions() []string {
	options := slices.Clone(t.cfg.Options)
	if t.cfg.AllowOther {
		options = append(options, "default_permissions")
	}
	return options
}

// mountFlags returns the flags of a mount that root makes.
func (t *FS) mountFlags() uintptr {
	flags := uintptr(syscall.MS_NOSUID | syscall.MS_NODEV)
	if t.cfg.ReadOnly {
		flags |= syscall.MS_RDONLY
	}
	for _, o := range t.cfg.Options {
		switch o {
		case "dev":
			flags &^= syscall.MS_NODEV
		case "suid":
			flags &^= syscall.MS_NOSUID
		case "noexec":
			flags |= syscall.MS_NOEXEC
		}
	}
	return flags
}

// Wait returns when the tree is no longer mounted.
func (t *FS) Wait() { t.server.Wait() }

// unmountPatience is how long processes that still use the tree have to finish.
const unmountPatience = 5 * time.Second

// Unmount takes the tree away: at once if nobody uses it, and otherwise so that no
// new process finds it while the others have some seconds to end. It returns when
// it is no longer served.
func (t *FS) Unmount() error {
	gone := make(chan struct{})
	go func() {
		t.server.Wait()
		close(gone)
	}()
	err := t.server.Unmount()
	if err == nil {
		<-gone
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("unmount %s: %w", t.point, err)
	}
	if e := syscall.Unmount(t.point, syscall.MNT_DETACH); e != nil {
		return fmt.Errorf("unmount %s: %w", t.point, errors.Join(err, e))
	}
	t.log.Warn("unmounted while it was in use", "dir", t.point)
	select {
	case <-gone:
	case <-time.After(unmountPatience):
	}
	return nil
}

// space is what df shows: asked for now and then.
type space struct {
	mu    sync.Mutex
	all   listing.Space // guarded by mu
	asked time.Time     // guarded by mu
}

// spaceAge is how old what df shows may be.
const spaceAge = 10 * time.Second

// Statfs shows the space of all nodes together. Copies need theirs of it.
func (d *dir) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	s := d.tree.space.of(ctx, d.tree)
	const block = 4096
	out.Bsize, out.Frsize, out.NameLen = block, block, maxName
	out.Blocks, out.Bfree, out.Bavail = s.Size/block, s.Free/block, s.Free/block
	return 0
}

func (s *space) of(ctx context.Context, t *FS) listing.Space {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.asked) < spaceAge {
		return s.all
	}
	s.asked = time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), spacePatience)
	defer cancel()
	c := t.remote()
	defer c.Close()
	m, err := c.Membership(ctx)
	if err != nil {
		return s.all
	}
	var all listing.Space
	ask := func(i int) listing.Space {
		n, err := spaceOf(ctx, c, m.Nodes[i])
		if err != nil {
			return listing.Space{}
		}
		return n
	}
	for n := range remote.Ordered(countTo(len(m.Nodes)), askWidth, ask) {
		all = listing.Space{Size: all.Size + n.Size, Used: all.Used + n.Used, Free: all.Free + n.Free}
	}
	s.all = all
	return all
}

// spacePatience bounds what df waits for.
const spacePatience = 2 * time.Second

func countTo(n int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}
