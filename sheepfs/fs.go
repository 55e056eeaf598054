package sheepfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/remote"
)

// A Config says what to show and how. Of its zero values only that of Server is
// not good.
type Config struct {
	Server string // host:port of a sheep

	// Wait is how long New waits for a sheep. 0 means that there has to be one.
	Wait time.Duration

	// Patience bounds every operation, and so how long a process can hang when
	// the cluster does not answer. 0 means a minute.
	Patience time.Duration

	PageCache   bool // let the kernel keep the contents of volumes in memory
	ObjectCache bool // remembered, and without effect: sheep have none

	AllowOther bool   // let other users than the one who mounts use the tree
	Mode       uint32 // permissions that files may have at most; 0 means 0700
	UID, GID   uint32 // who the files belong to

	ReadOnly bool     // mount it so
	Options  []string // more options for the kernel: dev, suid, noexec, …
	Source   string   // what the table of mounts shows; Server if empty

	Zone  *time.Location // of times; the machine's if nil
	Log   *slog.Logger   // nowhere if nil
	Debug bool           // log every request of the kernel
}

func (c Config) withDefaults() Config {
	if c.Patience <= 0 {
		c.Patience = time.Minute
	}
	if c.Mode == 0 {
		c.Mode = 0o700
	}
	if c.Source == "" {
		c.Source = c.Server
	}
	if c.Zone == nil {
		c.Zone = time.Local
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// An FS is the tree of one cluster.
type FS struct {
	cfg     Config
	log     *slog.Logger
	door    *door
	catalog *catalog
	reasons reasons
	started time.Time
	volumes *volumesDir // the directory of volumes; set by New

	ctx   context.Context // ends with the FS
	stop  context.CancelCauseFunc
	slots chan struct{} // has room for contents that are being made
	wg    sync.WaitGroup

	server *fuse.Server // set by Mount
	point  string       // where it is mounted

	settings settings
	space    space
	shown    shown
}

// errStopped is why work ends with the FS.
var errStopped = errors.New("the file system is being unmounted")

// makers is how many contents are made at the same time.
const makers = 8

// New returns the tree of the cluster that the sheep at cfg.Server belongs to.
// It fails if there is no sheep.
func New(ctx context.Context, cfg Config) (*FS, error) {
	cfg = cfg.withDefaults()
	t := &FS{cfg: cfg, log: cfg.Log, slots: make(chan struct{}, makers), started: time.Now()}
	t.ctx, t.stop = context.WithCancelCause(context.Background())
	t.settings.pageCache.Store(cfg.PageCache)
	t.settings.objectCache.Store(cfg.ObjectCache)
	t.catalog = newCatalog(t)
	door, err := openDoor(ctx, cfg)
	if err != nil {
		t.stop(errStopped)
		return nil, err
	}
	t.door = door
	t.wg.Go(t.keepLearning)
	t.volumes = t.newVolumes()
	return t, nil
}

// Close ends the work of an FS that is not mounted, or no more. It makes durable
// what was written to volumes and gives back their locks; if it fails to, it says so.
func (t *FS) Close() error {
	t.stop(errStopped)
	t.wg.Wait()
	return errors.Join(t.volumes.ended, t.door.close())
}

// reading returns a context for looking something up on behalf of a process. It
// ends late after the process was interrupted: what takes long can be interrupted,
// and what does not is not disturbed by the signals that programs live with.
func (t *FS) reading(ctx context.Context) (context.Context, context.CancelFunc) {
	detached, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), t.cfg.Patience, errPatience)
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(interruptGrace, cancel) })
	return detached, func() { stop(); cancel() }
}

// changing returns a context for changing something on behalf of a process. It
// does not end when the process is interrupted, which could not undo the change.
func (t *FS) changing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.WithoutCancel(ctx), t.cfg.Patience, errPatience)
}

// interruptGrace is how long an operation goes on after an interrupt.
const interruptGrace = 2 * time.Second

var errPatience = fmt.Errorf("%w: the cluster did not answer in time", sheep.ErrNetwork)

// fetch runs the making of a content, a few at a time.
func (t *FS) fetch(fn func(context.Context)) {
	ctx, cancel := context.WithTimeoutCause(t.ctx, t.cfg.Patience, errPatience)
	defer cancel()
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-ctx.Done():
	}
	fn(ctx)
}

// anySheep stands for the sheep that the tree is connected to.
const anySheep = "any"

// peerPatience bounds connecting to another sheep, of which only one thing is
// asked.
const peerPatience = 3 * time.Second

// remote returns the cluster for a few requests. The caller closes it.
func (t *FS) remote() *remote.Cluster { return t.remoteAt(anySheep) }

// remoteAt returns the cluster as entered through the sheep at addr.
func (t *FS) remoteAt(addr string) *remote.Cluster {
	return remote.New(t.dial, addr, func(e *remote.ConnectError) { t.log.Debug("no connection", "err", e) })
}

func (t *FS) dial(ctx context.Context, addr string) (remote.Conn, error) {
	if addr == anySheep {
		return lent{t.door}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, peerPatience)
	defer cancel()
	return client.Dial(ctx, addr)
}

// A lent is a connection that its user does not close.
type lent struct{ client.Doer }

func (lent) Close() error { return nil }

// fill sets what all files and directories have in common.
func (t *FS) fill(a *fuse.Attr, mode uint32) {
	a.Mode = mode & (syscall.S_IFMT | t.cfg.Mode)
	a.Uid, a.Gid = t.cfg.UID, t.cfg.GID
	a.SetTimes(&t.started, &t.started, &t.started)
	a.Nlink = 1
	if mode&syscall.S_IFMT == syscall.S_IFDIR {
		a.Nlink = 2
	}
}

// hostPort returns addr in the form that is dialled.
func hostPort(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return "", refuse(syscall.EINVAL, "%q is not HOST:PORT", addr)
	}
	if err := checkPort(port); err != nil {
		return "", err
	}
	return net.JoinHostPort(host, port), nil
}
