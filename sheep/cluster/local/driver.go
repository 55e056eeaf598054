package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// DefaultPath is the directory of a cluster that was given none.
const DefaultPath = "/tmp/sheepdog_shm"

// Config tunes a Driver. All members of a cluster must have the same.
type Config struct {
	Beat  time.Duration // between heartbeats; 1 s if 0
	Lease time.Duration // how long a member may answer after a heartbeat; 10 s if 0
	Expel time.Duration // without a heartbeat, after which a member is expelled; 15 s if 0. More than Lease
	Poll  time.Duration // how often to look for what was not notified; 250 ms if 0

	MaxLog int64 // bytes of records in one generation of the log; 8 MiB if 0

	Log *slog.Logger // nil discards
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Beat, time.Second)
	def(&c.Lease, 10*time.Second)
	def(&c.Expel, 15*time.Second)
	def(&c.Poll, 250*time.Millisecond)
	if c.MaxLog == 0 {
		c.MaxLog = 8 << 20
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

var _ cluster.Driver = (*Driver)(nil)

var (
	errNotMember = fmt.Errorf("%w: this process is not a member", sheep.ErrCluster)
	errLapsed    = fmt.Errorf("%w: the lease of this process has run out", sheep.ErrCluster)
)

// A Driver is this process's part in a cluster on one machine.
type Driver struct {
	path    string    // set once
	cfg     Config    // set once
	created time.Time // set once

	// Set by Run before anything else may use them.
	dir    *os.Root
	boot   [16]byte
	self   sheep.Incarnation
	health func() error
	member *memberFile
	notify *notifier
	kept   *os.File // the directory, with a shared lock; may be nil

	kick chan struct{} // has one element when the log may have grown
	died chan struct{} // has one element when a process may have died
	lost chan error    // has one element when this process cannot go on

	beat    atomic.Int64 // the lease counts from here; 0 while this process is no member
	checked atomic.Int64 // when, since created, the lease was found to run
	done    atomic.Int64 // how far the present generation is applied, to the record

	mu      sync.Mutex
	cur     *logFile          // guarded by mu; the generation that is appended to; nil when not running
	number  uint64            // guarded by mu; of the latest record of this process
	pending map[uint64]*write // guarded by mu; appended and not read back yet
	roll    roll              // guarded by mu; changed by the reading goroutine
	encoded []byte            // guarded by mu; scratch
	scanned int64             // guarded by mu; how far the present generation is applied
	turned  uint64            // guarded by mu; that generation
	moved   chan struct{}     // guarded by mu; closed at the next change of scanned; nil if nobody waits
	err     error             // guarded by mu; why Run has returned

	// Of the reading goroutine.
	reader   reader
	index    uint64
	rotating bool // the end of this generation was logged by this process
	left     error
	gone     bool
}

// A write is a record that this process has appended.
type write struct {
	kind uint8
	time int64
	data []byte
	done chan struct{} // closed when it is read back; may be nil
}

// New returns a driver for the cluster of the directory at path, or DefaultPath.
func New(path string, cfg Config) *Driver {
	if path == "" {
		path = DefaultPath
	}
	return &Driver{
		path:    path,
		cfg:     cfg.withDefaults(),
		created: time.Now(),
		kick:    make(chan struct{}, 1),
		died:    make(chan struct{}, 1),
		lost:    make(chan error, 1),
		pending: map[uint64]*write{},
	}
}

// Run implements cluster.Driver.
func (d *Driver) Run(ctx context.Context, self cluster.Self, m cluster.Machine) error {
	if d.cfg.Expel <= d.cfg.Lease {
		return fmt.Errorf("local cluster: %w: expulsion after %v, lease of %v", sheep.ErrInvalid, d.cfg.Expel, d.cfg.Lease)
	}
	d.self, d.health = self.Incarnation, self.Health
	if err := d.open(); err != nil {
		return err
	}
	err := d.run(ctx, self, m)
	d.close(err)
	return err
}

// open makes this process known in the directory.
func (d *Driver) open() error {
	var err error
	if d.boot, err = bootID(); err != nil {
		return err
	}
	if d.dir, d.path, err = openDir(d.path); err != nil {
		return err
	}
	d.keepDir()
	if d.member, err = createMember(d.dir, d.self, boottime()); err != nil {
		d.closeDir()
		return fmt.Errorf("local cluster: %w", err)
	}
	if d.notify, err = newNotifier(d.path); err != nil {
		d.cfg.Log.Warn("no notification of changes, polling instead", "err", err)
		d.cfg.Poll = min(d.cfg.Poll, 5*time.Millisecond)
	}
	return nil
}

// keepDir holds a shared lock on the directory, which keeps services that clean
// up /tmp away. It does without if that fails.
func (d *Driver) keepDir() {
	f, err := d.dir.Open(".")
	if err != nil {
		return
	}
	unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	d.kept = f
}

func (d *Driver) close(reason error) {
	if reason == nil {
		reason = errNotMember
	}
	d.beat.Store(0)
	d.mu.Lock()
	d.err = reason
	if d.cur != nil {
		d.cur.file.Close()
		d.cur = nil
	}
	for _, w := range d.pending {
		w.finish()
	}
	clear(d.pending)
	d.wakeLocked()
	d.mu.Unlock()
	d.dir.Remove(memberName(d.self))
	d.member.close()
	d.closeDir()
}

func (d *Driver) closeDir() {
	if d.kept != nil {
		d.kept.Close()
	}
	d.dir.Close()
}

// run joins, and serves the log until the membership ends.
func (d *Driver) run(ctx context.Context, self cluster.Self, m cluster.Machine) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer d.notify.close()
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()

	if err := d.load(m); err != nil {
		return err
	}
	wg.Go(func() {
		d.notify.run(func() { signal(d.kick) }, func() { signal(d.died) })
	})
	if err := d.pump(m); err != nil {
		return err
	}
	if err := d.join(self.Hello); err != nil {
		return err
	}
	wg.Go(func() { d.watch(work) })
	wg.Go(func() { d.keepBeating(work) })
	return d.serve(ctx, m)
}

// serve applies entries as they come.
func (d *Driver) serve(ctx context.Context, m cluster.Machine) error {
	poll := time.NewTicker(d.cfg.Poll)
	defer poll.Stop()
	done := ctx.Done()
	var giveUp <-chan time.Time // when nobody, not even this process, logs its leave
	for {
		if err := d.pump(m); err != nil {
			return err
		}
		if d.gone {
			return d.left
		}
		select {
		case <-d.kick:
		case <-poll.C:
		case err := <-d.lost:
			return err
		case <-done:
			done = nil
			giveUp = time.After(d.cfg.Lease)
			if err := d.append(recordLeave, leaving{who: d.self, reason: "left"}.append(nil), nil); err != nil {
				return fmt.Errorf("leave the cluster: %w", err)
			}
		case <-giveUp:
			return fmt.Errorf("leave the cluster: %w", context.DeadlineExceeded)
		}
	}
}

// join logs the leaves of those that died, and this process's join.
func (d *Driver) join(hello []byte) error {
	if len(hello) > cluster.MaxJoin {
		return fmt.Errorf("join the cluster: %w: %d bytes", sheep.ErrInvalid, len(hello))
	}
	for _, inc := range d.joined() {
		if d.isDead(inc) {
			if err := d.append(recordLeave, leaving{who: inc, reason: "died"}.append(nil), nil); err != nil {
				return fmt.Errorf("join the cluster: %w", err)
			}
		}
	}
	now := boottime()
	if err := d.member.beat(now); err != nil {
		return fmt.Errorf("join the cluster: %w", err)
	}
	if err := d.append(recordJoin, hello, nil); err != nil {
		return fmt.Errorf("join the cluster: %w", err)
	}
	d.beat.Store(now)
	return nil
}

// joined returns who is on the roll, ascending, without this process.
func (d *Driver) joined() []sheep.Incarnation {
	d.mu.Lock()
	defer d.mu.Unlock()
	incs := sortedKeys(d.roll)
	return slices.DeleteFunc(incs, func(inc sheep.Incarnation) bool { return inc == d.self })
}

func (d *Driver) isDead(inc sheep.Incarnation) bool {
	m, err := openMember(d.dir, inc)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer m.close()
	return !m.alive()
}

// signal puts an element into a channel for one, if it is empty.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
