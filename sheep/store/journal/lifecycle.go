package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"syscall"

	"sheepdog/sheep/store/vfs"
)

// errClosed is what a closed journal answers.
var errClosed = errors.New("closed")

func newJournal(fs vfs.FS, dir string, cfg Config) (*Journal, error) {
	if cfg.SegmentSize == 0 {
		cfg.SegmentSize = DefaultSegmentSize
	}
	if cfg.Segments == 0 {
		cfg.Segments = DefaultSegments
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.SegmentSize < MinSegmentSize || cfg.SegmentSize > MaxSegmentSize || cfg.SegmentSize%pageSize != 0 {
		return nil, fmt.Errorf("journal: segment of %d bytes: not a multiple of %d from %d to %d",
			cfg.SegmentSize, pageSize, MinSegmentSize, MaxSegmentSize)
	}
	if cfg.Segments < MinSegments {
		return nil, fmt.Errorf("journal: %d segments: at least %d are needed", cfg.Segments, MinSegments)
	}
	j := &Journal{
		fs:        fs,
		dir:       dir,
		cfg:       cfg,
		maxBuffer: int(min(bufferSize, cfg.SegmentSize/2-blocksOffset)),
		wake:      make(chan struct{}, 1),
		full:      make(chan struct{}, 1),
		stop:      make(chan struct{}),
	}
	j.room.L = &j.mu
	j.freed.L = &j.segs
	return j, nil
}

// Start ends the replay: the owner has made durable in place all that the
// journal holds. It frees the old segments, makes or removes files until their
// number and size are as configured, and starts the journal's goroutines.
func (j *Journal) Start() error {
	if err := j.start(); err != nil {
		return fmt.Errorf("start journal %s: %w", j.dir, err)
	}
	j.first = j.written + 1
	j.last.Store(j.written)
	j.durable.Store(j.written)
	j.tail.Store(j.first)
	j.buf = make([]byte, blockHeaderSize, j.maxBuffer+pageSize)
	j.spare = make([]byte, blockHeaderSize, j.maxBuffer+pageSize)
	j.done.Go(j.commitLoop)
	j.done.Go(j.checkpointLoop)
	return nil
}

// start frees the old segments only when the head of the new one is durable.
func (j *Journal) start() error {
	if len(j.replaying) == 0 {
		if err := j.resize(); err != nil {
			return err
		}
	}
	var gen uint64
	for _, s := range slices.Concat(j.free, j.replaying) {
		gen = max(gen, s.gen)
	}
	first, err := j.firstSegment()
	if err != nil {
		return err
	}
	if err := j.begin(first, gen+1); err != nil {
		return err
	}
	if err := j.sync(); err != nil {
		return err
	}
	for _, s := range j.replaying {
		s.last = j.written
		if err := s.end(); err != nil {
			return err
		}
	}
	j.free = append(j.free, j.replaying...)
	j.replaying = nil
	return j.resize()
}

// firstSegment takes the segment to begin with out of the free ones, or makes
// one. On a full disk it begins with the oldest of those that were replayed.
func (j *Journal) firstSegment() (*segment, error) {
	for i, s := range j.free {
		if s.size == j.cfg.SegmentSize {
			j.free = slices.Delete(j.free, i, i+1)
			return s, nil
		}
	}
	s, err := j.create()
	if err == nil {
		return s, j.fs.SyncDir(j.dir)
	}
	if old := j.replaying[0]; old.size == j.cfg.SegmentSize && errors.Is(err, syscall.ENOSPC) {
		// Should the next moment bring a crash, the replay lacks this segment:
		// all is in place, and the heads of the others have most of its ids.
		j.replaying = j.replaying[1:]
		old.last = old.first // the mark of the end needs some number
		return old, old.end()
	}
	return nil, err
}

// resize makes the free segments and the current one those that the
// configuration asks for.
func (j *Journal) resize() error {
	want := j.cfg.Segments
	if j.cur != nil {
		want--
	}
	var keep []*segment
	changed := len(j.free) != want
	for _, s := range j.free {
		if s.size == j.cfg.SegmentSize && len(keep) < want {
			keep = append(keep, s)
			continue
		}
		changed = true
		if err := errors.Join(s.file.Close(), j.fs.Remove(path.Join(j.dir, s.name))); err != nil {
			return err
		}
	}
	j.free = keep
	for len(j.free) < want {
		s, err := j.create()
		if err != nil {
			return err
		}
		j.free = append(j.free, s)
	}
	if !changed {
		return nil
	}
	return j.fs.SyncDir(j.dir)
}

// create makes a new segment under a name that is not in use.
func (j *Journal) create() (*segment, error) {
	for n := 0; ; n++ {
		name := strconv.Itoa(n)
		used := func(s *segment) bool { return s.name == name }
		if j.cur != nil && used(j.cur) || slices.ContainsFunc(j.free, used) || slices.ContainsFunc(j.replaying, used) {
			continue
		}
		return createSegment(j.fs, j.dir, name, j.cfg.SegmentSize)
	}
}

// checkpointLoop frees full segments when free ones get short.
func (j *Journal) checkpointLoop() {
	for {
		select {
		case <-j.full:
		case <-j.stop:
			return
		}
		if err := j.checkpoint(); err != nil {
			_ = j.Fail(err) // the appenders and waiters are told
			return
		}
	}
}

// checkpoint frees all full segments if at most half of the others are left.
func (j *Journal) checkpoint() error {
	j.segs.Lock()
	batch := slices.Clone(j.closed)
	enough := len(j.free) > (j.cfg.Segments-1)/2
	j.segs.Unlock()
	if enough || len(batch) == 0 {
		return nil
	}
	if j.cfg.Checkpoint != nil {
		if err := j.cfg.Checkpoint(batch[len(batch)-1].last); err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
	}
	for _, s := range batch {
		if err := s.end(); err != nil {
			return err
		}
		j.tail.Store(s.last + 1)
		j.segs.Lock()
		j.closed = j.closed[1:]
		j.free = append(j.free, s)
		j.freed.Broadcast()
		j.segs.Unlock()
	}
	return nil
}

// Close stops the journal. No call may be under way. With clean the owner has
// made all that the journal holds durable in place, and the journal is left
// empty. Without, what nobody waited for is lost. Only a started journal may
// be closed clean.
func (j *Journal) Close(clean bool) error {
	err := j.Err()
	if err == nil && !clean {
		_ = j.Fail(errClosed)
	}
	close(j.stop)
	j.done.Wait()
	segs := slices.Concat(j.free, j.closed, j.replaying)
	if j.cur != nil {
		segs = append(segs, j.cur)
	}
	if clean && err == nil {
		j.cur.last = j.last.Load()
		for _, s := range append(j.closed, j.cur) {
			err = errors.Join(err, s.end())
		}
	}
	for _, s := range segs {
		err = errors.Join(err, s.file.Close())
	}
	return err
}
