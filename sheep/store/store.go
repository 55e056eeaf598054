// Package store keeps a node's copies of objects on its local disk.
//
// Each object is one file of fixed size, sparse where nothing was written. A
// change is applied to the file in the page cache at once; what makes it
// durable is the journal (package journal). Changes of at most 64 KiB are
// recorded there whole, so that a thousand of them cost one sync, and a flush
// costs one as well. Larger writes go only to the file, which is synced for
// them. After a crash Open replays the journal, and the journal's checkpoints
// sync the files, so that the journal stays short.
//
// The directory is that of C Sheepdog 1.0, and a store that was closed clean
// starts under either. While a store is open, and after a crash, its config
// file carries a version of the format that C refuses; what we add lies beside
// C's files under names that it ignores.
//
// Promises, besides those on the methods: creation and removal are durable
// when the Commit is, whatever the caller asked for. So is the fact that an
// object was written at all, in this epoch and lately: see Intents. A file
// under an object's name is never half made. A sync that failed is never
// repeated: a failed object answers sheep.ErrIO until it is made anew, and
// after a failure of the journal every change does.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/store/journal"
	"sheepdog/sheep/store/vfs"
)

// Defaults of Config.
const (
	DefaultHotObjects = 4096
	DefaultHandles    = 4096
	DefaultFlushAge   = 5 * time.Second
)

// A Config tunes a store. The zero value means the defaults.
type Config struct {
	SegmentSize int64         // bytes of a journal segment
	Segments    int           // number of journal segments
	HotObjects  int           // objects that the intent log names
	Handles     int           // object files that are kept open; at most half the limit of the process
	FlushAge    time.Duration // deferred writes become durable after this at the latest
	Reserve     uint64        // bytes of free space that clients' data does not get; 0 is a share of the disk
	NearFull    uint64        // bytes of free space that recovery leaves; 0 is a larger share, or twice Reserve
	NoSync      bool          // never wait for the disk: a power cut may take what was answered
	Log         *slog.Logger
	FS          vfs.FS // what to use instead of the directory given to Open, for tests
}

// A Store is an open store directory. All methods may be called concurrently,
// except Close.
type Store struct {
	fs      vfs.FS // set once, like all above gate
	lock    io.Closer
	log     *slog.Logger
	cfg     Config
	journal *journal.Journal
	names   dirSync // of the object directory
	started bool    // the replay is over

	gate   sync.RWMutex // held for reading by every call, for writing by Format and Close
	closed bool         // guarded by gate

	table table

	room    atomic.Int64 // bytes that may be written before the disk has to be asked how much is free
	copying atomic.Int64 // bytes of the copies that are being installed

	deferred atomic.Bool   // writes were deferred since the last look of the flusher
	wake     chan struct{} // buffered; wakes the flusher
	stop     chan struct{} // closed by Close
	jobs     sync.WaitGroup
	temps    atomic.Uint64 // numbers temporary files

	meta   sync.Mutex // serialises changes of small files, and guards the following
	config proto.StoreConfig
	latest sheep.Epoch
	state  copyState

	badFile sync.Mutex // serialises changes of the list of bad objects
}

// Open opens the store in the directory dir, which it makes, but not its
// parents, if it is missing. It replays the journal of a store that was not
// closed clean, and adopts one of C Sheepdog.
func Open(dir string, cfg Config) (*Store, error) {
	s := &Store{
		fs:   cfg.FS,
		log:  cfg.Log,
		cfg:  cfg.withDefaults(),
		wake: make(chan struct{}, 1),
		stop: make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.fs == nil {
		if s.fs, err = vfs.OS(dir); err != nil {
			return nil, fmt.Errorf("open store: %w", err)
		}
	}
	if cfg.NoSync {
		s.fs = vfs.NoSync(s.fs)
	}
	if s.lock, err = s.fs.Lock(lockFile); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: lock file: %w", dir, err), s.fs.Close())
	}
	if err := s.open(); err != nil {
		err = fmt.Errorf("open store %s: %w", dir, err)
		return nil, errors.Join(err, s.table.closeAll(), s.lock.Close(), s.fs.Close())
	}
	s.jobs.Go(s.flushLoop)
	return s, nil
}

func (c Config) withDefaults() Config {
	if c.SegmentSize == 0 {
		c.SegmentSize = journal.DefaultSegmentSize
	}
	if c.HotObjects == 0 {
		c.HotObjects = DefaultHotObjects
	}
	// The intent log may grow to twice its size, takes eight bytes for each
	// object, and must fit into a quarter of a segment.
	c.HotObjects = max(1, min(c.HotObjects, int(c.SegmentSize/4/8/2)-1024))
	if c.Handles == 0 {
		c.Handles = DefaultHandles
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur/2 < uint64(c.Handles) {
		c.Handles = int(limit.Cur / 2) // the runtime has raised the soft limit to the hard one
	}
	c.Handles = max(c.Handles, 8)
	if c.FlushAge == 0 {
		c.FlushAge = DefaultFlushAge
	}
	return c
}

// open does the work of Open once the lock is held.
func (s *Store) open() error {
	s.table.init(s.cfg)
	s.names.sync = func() error { return s.fs.SyncDir(objectDir) }
	version, err := s.openConfig()
	if err != nil {
		return err
	}
	if err := s.checkLayout(); err != nil {
		return err
	}
	if err := s.sweep(); err != nil {
		return err
	}
	if err := s.openEpochs(); err != nil {
		return err
	}
	if err := s.openComplete(version == proto.StoreVersion); err != nil {
		return err
	}
	if err := s.loadBad(); err != nil {
		return err
	}
	if err := s.openJournal(version == proto.StoreVersion); err != nil {
		return err
	}
	// Only now C must not start any more: the journal is in use.
	if err := s.saveConfig(s.config, openVersion); err != nil {
		return errors.Join(err, s.journal.Close(false))
	}
	return nil
}

// openJournal replays the journal and starts it anew. With discard what it
// holds is void: the store was closed clean, and C may have changed it since.
func (s *Store) openJournal(discard bool) error {
	j, err := journal.Open(s.fs, journalDir, journal.Config{
		SegmentSize: s.cfg.SegmentSize,
		Segments:    s.cfg.Segments,
		Head:        s.hotRecords,
		Checkpoint:  s.checkpoint,
		Log:         s.log,
	}, discard)
	if err != nil {
		return err
	}
	s.journal, s.table.journal = j, j
	err = s.replay()
	switch {
	case err != nil:
	case discard:
		err = s.loadIntents()
	default:
		err = s.sweepEmpty()
	}
	if err == nil {
		err = j.Start()
	}
	if err == nil {
		err = s.dropIntents()
	}
	if err != nil {
		return errors.Join(err, j.Close(false))
	}
	s.started = true
	return nil
}

// Err returns what made the store refuse changes, or nil.
func (s *Store) Err() error { return s.journal.Err() }

// Close makes all deferred writes durable and releases the directory. With
// clean it also syncs all objects, empties the journal and gives the config
// file the version that C Sheepdog accepts; if any of that fails the directory
// is left as after a crash, which loses nothing.
func (s *Store) Close(clean bool) error {
	close(s.stop)
	s.jobs.Wait()
	s.gate.Lock()
	defer s.gate.Unlock()
	s.closed = true
	var err error
	if clean {
		err = s.closeClean()
	} else {
		err = errors.Join(s.flush(context.Background(), anyObject), s.journal.Close(false))
	}
	err = errors.Join(err, s.table.closeAll(), s.lock.Close(), s.fs.Close())
	if err != nil {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}

// closeClean leaves the directory as C expects it. The version comes last:
// until then the journal is still ours to replay.
func (s *Store) closeClean() error {
	err := errors.Join(s.checkpoint(s.journal.Last()), s.journal.Err())
	if err == nil {
		err = s.quarantine()
	}
	s.meta.Lock()
	defer s.meta.Unlock()
	if err == nil {
		err = s.keepIntents()
	}
	if err := errors.Join(err, s.journal.Close(err == nil)); err != nil {
		return err
	}
	if err := s.saveState(s.state); err != nil {
		return err
	}
	return s.saveConfig(s.config, proto.StoreVersion)
}

// enter begins a call; leave ends it.
func (s *Store) enter() error {
	s.gate.RLock()
	if s.closed {
		s.gate.RUnlock()
		return sheep.ErrShutdown
	}
	return nil
}

func (s *Store) leave() { s.gate.RUnlock() }
