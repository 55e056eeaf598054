// Package journal is the write-ahead log of the object store.
//
// A change of at most 64 KiB costs the store one sync of the journal instead
// of one of the object, and all changes that wait at the same moment share
// that one sync (group commit). Changes that nobody waits for stay in a
// buffer and become durable with the next commit. The journal knows nothing
// of objects beyond its records: it keeps them in order, and gives them back
// after a crash.
//
// It is a ring of segment files of fixed size, written full of zeroes once
// and then only overwritten, because extending a file on the hot path costs
// three times as much as overwriting it. When a segment is full the next free
// one is opened; in the background the store makes all that the full one
// records durable in place (Config.Checkpoint) and the segment is free again.
// If none is free, appenders wait: the journal never grows.
//
// What it promises:
//
//   - Records come back in the order of Append, each at most once, and those
//     at or below the sequence number that Wait returned nil for all of them.
//   - Replay ends quietly at a torn tail, which a crash leaves, and fails
//     loudly for damage below a sequence number that a later block knows to
//     be durable.
//   - A write or sync that failed is never repeated. From then on every
//     Append and Wait returns the same error, which is sheep.ErrIO.
//
// The layout of segments and blocks is described with segmentHeader and
// blockHeader, that of records with Record.
package journal

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"

	"sheepdog/sheep"
	"sheepdog/sheep/store/vfs"
)

// Sizes of a journal.
const (
	DefaultSegmentSize = 32 << 20
	DefaultSegments    = 4
	MinSegmentSize     = 256 << 10
	MaxSegmentSize     = 1 << 30
	MinSegments        = 2

	bufferSize = 1 << 20 // more than this waits for the committer
	pageSize   = 4096    // writes end at multiples of this
)

// A Config says how large a journal is and what it asks of its owner. The
// zero sizes mean the defaults; both functions may be nil.
type Config struct {
	SegmentSize int64
	Segments    int

	// Head yields the records that every segment begins with. They are not
	// sequenced, and may take a quarter of a segment.
	Head iter.Seq[Record]

	// Checkpoint makes durable in place all that records up to upTo describe.
	// It runs on a goroutine of the journal and must not append to it. If it
	// fails the journal fails.
	Checkpoint func(upTo uint64) error

	Log *slog.Logger
}

// A Journal is an open journal. Append, Wait and Notify may be called
// concurrently, but only after Start.
type Journal struct {
	fs        vfs.FS // set once, like all above mu
	dir       string
	cfg       Config
	maxBuffer int
	wake      chan struct{} // buffered; tells the committer to look
	full      chan struct{} // buffered; tells the checkpointer to look
	stop      chan struct{} // closed by Close
	done      sync.WaitGroup

	last    atomic.Uint64 // the sequence number given last
	durable atomic.Uint64 // every record up to this one is durable
	tail    atomic.Uint64 // records before this one will never be replayed

	mu      sync.Mutex
	room    sync.Cond // signalled when the buffer was taken or the journal failed
	buf     []byte    // room for a block header, then the encoded records first…last
	first   uint64
	count   uint32
	want    uint64 // the highest sequence number that somebody waits for
	spill   bool   // the committer is asked to write though nobody waits
	waiters []waiter
	err     error

	segs      sync.Mutex
	freed     sync.Cond  // signalled when a segment became free or the journal failed
	free      []*segment // guarded by segs
	closed    []*segment // guarded by segs; full ones in order, not yet checkpointed
	failed    bool       // guarded by segs; mirrors err
	replaying []*segment // live segments found by Open, in order; until Start

	// The committer's own.
	cur      *segment
	off      int64 // where the next block goes
	spare    []byte
	unsynced bool   // blocks were written to cur since its last sync
	written  uint64 // every record up to this one is written
}

// A waiter is told when the record seq is durable.
type waiter struct {
	seq  uint64
	done func(error)
}

// Last returns the sequence number of the newest record.
func (j *Journal) Last() uint64 { return j.last.Load() }

// Durable returns the sequence number up to which every record is durable.
func (j *Journal) Durable() uint64 { return j.durable.Load() }

// Tail returns the sequence number of the oldest record that a replay might
// still deliver.
func (j *Journal) Tail() uint64 { return j.tail.Load() }

// Err returns what the journal failed of, or nil.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// Append adds a record and returns its sequence number. It copies r.Data. It
// waits if the journal is full. The record is written soon, though nobody waits
// for it to be durable: if the process dies before that, but not the machine, a
// replay puts older records over what it stands for.
func (j *Journal) Append(r *Record) (uint64, error) {
	n := r.size()
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.buf)+n > j.maxBuffer && j.err == nil {
		j.spill = true
		j.kick()
		j.room.Wait()
	}
	if j.err != nil {
		return 0, j.err
	}
	j.buf = r.Append(j.buf)
	j.count++
	seq := j.first + uint64(j.count) - 1
	j.last.Store(seq)
	if !j.spill {
		j.spill = true
		j.kick()
	}
	return seq, nil
}

// Wait returns nil when the record seq and all before it are durable. Waiting
// is what makes a record durable: without it, it may stay in memory for long.
func (j *Journal) Wait(ctx context.Context, seq uint64) error {
	if seq <= j.durable.Load() {
		return nil
	}
	done := make(chan error, 1)
	j.Notify(seq, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Notify is Wait that calls done instead of returning: from a goroutine of
// the journal, which done must not block, or before Notify returns.
func (j *Journal) Notify(seq uint64, done func(error)) {
	if seq <= j.durable.Load() {
		done(nil)
		return
	}
	j.mu.Lock()
	if err := j.err; err != nil {
		j.mu.Unlock()
		done(err)
		return
	}
	if seq <= j.durable.Load() {
		j.mu.Unlock()
		done(nil)
		return
	}
	j.waiters = append(j.waiters, waiter{seq, done})
	j.want = max(j.want, seq)
	j.kick()
	j.mu.Unlock()
}

// kick makes the committer look at what there is to do.
func (j *Journal) kick() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Fail makes the journal fail for good, tells everybody who waits, and returns
// the error that all later calls return.
func (j *Journal) Fail(err error) error {
	if !errors.Is(err, errClosed) && j.Err() == nil {
		j.cfg.Log.Error("the journal failed: this node refuses all changes until it is restarted", "err", err)
	}
	err = fmt.Errorf("%w: %s: %w", sheep.ErrIO, j.dir, err)
	j.mu.Lock()
	if j.err != nil {
		err = j.err
	}
	j.err = err
	waiters := j.waiters
	j.waiters = nil
	j.room.Broadcast()
	j.mu.Unlock()

	j.segs.Lock()
	j.failed = true
	j.freed.Broadcast()
	j.segs.Unlock()
	for _, w := range waiters {
		w.done(err)
	}
	return err
}
