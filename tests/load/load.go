// Package load writes to a disk in a way that lets every later state be judged.
//
// Each block of 4 KiB that a Load writes carries its number, a version that
// grows with each write of the block, the seed of the load and a checksum. The
// Load remembers for each block which version was acknowledged last, which may
// have been in flight, and which was covered by the last successful flush. A
// verification accepts exactly the versions that the promises of the store
// allow: what was acknowledged while the machines keep their power, and for a
// client in write-back mode what was flushed when they lost it.
//
// A flush that fails says that acknowledged writes may be gone, and speaks of all
// that were sent before its answer came. Their blocks are then in doubt until they
// are written again, which is just what a guest's file system would have to assume.
// Whoever reads between the loss and that answer may see it already: a read that
// misses a write which is not flushed yet is an error if the next flush succeeds.
package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A Device is what a Load works on. Calls are made concurrently, but never two
// at a time that touch the same block unless both are reads.
type Device interface {
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64) error
	Flush(ctx context.Context) error
	Size() int64
}

// A Config says how to load a device.
type Config struct {
	Seed       uint64
	Depth      int           // operations at a time; 0 means 4
	FlushEvery int           // writes between flushes; 0 says that every answer is durable
	Patience   time.Duration // for a single operation; 0 means a minute
}

// A Load is the model of a disk that is being written.
type Load struct {
	cfg Config

	writes, reads, flushes, failedFlushes atomic.Int64
	slowest                               atomic.Int64 // nanoseconds

	mu         sync.Mutex
	rng        *rand.Rand
	blocks     []block
	unflushed  map[int64]uint64 // acknowledged since the last flush began
	sinceFlush int
	flushing   bool
	failures   int // flushes that have failed so far
}

// A block is what is known of one block of the disk. Versions begin at 1.
type block struct {
	next    uint64 // version that the next write takes, less one
	top     uint64 // highest version that may be seen
	acked   uint64
	durable uint64
	doubt   bool      // a flush failed: down to durable may be seen
	missed  uint64    // acknowledged, and not seen by a read: the next flush must fail
	when    time.Time // of the last acknowledgement
	synced  time.Time // of the last flush that covers it
	busy    bool
}

// New returns the model of a zeroed disk of size bytes.
func New(cfg Config, size int64) *Load {
	if cfg.Depth == 0 {
		cfg.Depth = 4
	}
	if cfg.Patience == 0 {
		cfg.Patience = time.Minute
	}
	return &Load{
		cfg:       cfg,
		rng:       rand.New(rand.NewPCG(cfg.Seed, 0x10ad)),
		blocks:    make([]block, size/BlockSize),
		unflushed: make(map[int64]uint64),
	}
}

// Run loads dev until stop is closed, then flushes and returns nil; or until
// ctx is done, leaving in flight what is in flight, and returns nil too. An
// error means that dev broke a promise.
func (l *Load) Run(ctx context.Context, stop <-chan struct{}, dev Device) error {
	workers, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, l.cfg.Depth)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			if errs[i] = l.work(workers, stop, dev); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	err := errors.Join(errs...)
	if err == nil && ctx.Err() == nil {
		err = l.flush(ctx, dev)
	}
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return nil
	}
	return err
}

func (l *Load) work(ctx context.Context, stop <-chan struct{}, dev Device) error {
	buf := make([]byte, BlockSize)
	for {
		select {
		case <-stop:
			return nil
		case <-ctx.Done():
			return nil
		default:
		}
		if err := l.step(ctx, dev, buf); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// step makes one operation: mostly a write, sometimes a read or a flush.
func (l *Load) step(ctx context.Context, dev Device, buf []byte) error {
	i, read, flush := l.pick()
	defer l.idle(i)
	ctx, cancel := context.WithTimeoutCause(ctx, l.cfg.Patience, fmt.Errorf("no answer in %v", l.cfg.Patience))
	defer cancel()
	start := time.Now()
	defer func() { l.timed(time.Since(start)) }()
	switch {
	case flush:
		return l.flush(ctx, dev)
	case read:
		return l.read(ctx, dev, i, buf)
	}
	return l.write(ctx, dev, i, buf)
}

// pick chooses a block that nobody works on, and what to do.
func (l *Load) pick() (i int64, read, flush bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		i = l.rng.Int64N(int64(len(l.blocks)))
		if !l.blocks[i].busy {
			break
		}
	}
	l.blocks[i].busy = true
	if l.cfg.FlushEvery > 0 && l.sinceFlush >= l.cfg.FlushEvery && !l.flushing {
		return i, false, true
	}
	return i, l.rng.IntN(4) == 0, false
}

func (l *Load) idle(i int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blocks[i].busy = false
}

func (l *Load) timed(d time.Duration) {
	for {
		old := l.slowest.Load()
		if int64(d) <= old || l.slowest.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

func (l *Load) write(ctx context.Context, dev Device, i int64, buf []byte) error {
	v, failures := l.issue(i)
	Fill(buf, l.cfg.Seed, i, v)
	if err := dev.WriteAt(ctx, buf, i*BlockSize); err != nil {
		return fmt.Errorf("write version %d of block %d: %w", v, i, err)
	}
	l.writes.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &l.blocks[i]
	b.acked, b.doubt, b.missed, b.when = v, failures != l.failures, 0, time.Now()
	switch {
	case l.cfg.FlushEvery == 0:
		b.durable, b.synced = v, b.when
	case !b.doubt:
		l.unflushed[i] = v
		l.sinceFlush++
	}
	return nil
}

// issue takes the next version of a block, which may be seen from now on, and
// returns how many flushes have failed before.
func (l *Load) issue(i int64) (version uint64, failures int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &l.blocks[i]
	b.next++
	b.top = b.next
	return b.next, l.failures
}

func (l *Load) read(ctx context.Context, dev Device, i int64, buf []byte) error {
	if err := dev.ReadAt(ctx, buf, i*BlockSize); err != nil {
		return fmt.Errorf("read block %d: %w", i, err)
	}
	l.reads.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &l.blocks[i]
	if v, err := l.version(i, buf); err == nil && !b.doubt && v >= b.durable && v < b.acked {
		b.missed = b.acked
		return nil
	}
	_, err := l.judge(i, buf, false)
	return err
}

// flush makes durable what was acknowledged before.
func (l *Load) flush(ctx context.Context, dev Device) error {
	if l.cfg.FlushEvery == 0 {
		return nil
	}
	l.mu.Lock()
	covered := l.unflushed
	l.unflushed, l.sinceFlush, l.flushing = make(map[int64]uint64), 0, true
	l.mu.Unlock()

	err := dev.Flush(ctx)
	l.flushes.Add(1)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.flushing = false
	switch {
	case err == nil:
		for i, v := range covered {
			b := &l.blocks[i]
			if b.missed != 0 && b.missed <= v {
				return fmt.Errorf("flush: version %d of block %d is gone, and it says nothing of that", b.missed, i)
			}
			b.durable, b.synced = max(b.durable, v), time.Now()
		}
	case ctx.Err() != nil:
		return fmt.Errorf("flush: %w", err)
	default: // as if none of it had been written, until it is written again
		l.failedFlushes.Add(1)
		l.failures++
		for i := range l.blocks {
			b := &l.blocks[i]
			b.doubt, b.missed = b.doubt || b.acked > b.durable, 0
		}
		clear(l.unflushed)
	}
	return nil
}

// Stats describes what the load has done so far.
func (l *Load) Stats() string {
	return fmt.Sprintf("%d writes, %d reads, %d flushes (%d failed), slowest operation %v",
		l.writes.Load(), l.reads.Load(), l.flushes.Load(), l.failedFlushes.Load(),
		time.Duration(l.slowest.Load()).Round(time.Millisecond))
}

// Writes returns the number of acknowledged writes.
func (l *Load) Writes() int64 { return l.writes.Load() }

// FailedFlushes returns the number of flushes that were refused.
func (l *Load) FailedFlushes() int64 { return l.failedFlushes.Load() }
