package vdi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"sheepdog/sheep"
)

// A DiskHost is where the requests of a Disk go: the Guard and the Operations of
// this node, or a connection to a sheep.
type DiskHost interface {
	sheep.Objects
	sheep.Flusher

	// Lookup finds a VDI as Operations.Lookup does.
	Lookup(ctx context.Context, name, tag string, snapID uint32) (sheep.VDI, error)
}

// A MapWatcher is a DiskHost that lets a Disk keep parts of the map in memory.
// With any other host a Disk reads a slot from the inode for every request.
type MapWatcher interface {
	// MapVersion returns a number that is never the same again once somebody may
	// have changed the map of v without WatchMap having told. ok is false while
	// such changes are possible: another gateway owns the VDI, a gateway before
	// has yet to drain, a plan has frozen it, or this node may not serve. For a
	// gateway: the number of changes of v's ownership that it has seen.
	//
	// While nobody owns v a gateway may say ok. It learns of a new owner with a
	// delay, so a read may then miss what another gateway has just made; what
	// cannot be undone, making an object, a Disk does only by a map that was read
	// anew, or once its own gateway is the owner.
	MapVersion(v sheep.VDIID) (version uint64, ok bool)

	// WatchMap is Guard.WatchMap.
	WatchMap(v sheep.VDIID, fn func(first uint32, owners []sheep.VDIID)) (stop func())
}

// DiskConfig is what a Disk can do without.
type DiskConfig struct {
	// Parallel is how many objects one request works on at a time. 0 means 16.
	Parallel int

	// MapPages is how many pages of the map, of 16 KiB for 4096 objects, are kept
	// in memory. 0 means 64.
	MapPages int
}

const (
	defaultParallel = 16
	defaultMapPages = 64
)

// patience is how often a request is begun anew because the map, or what it was
// read for, has changed under it. Each time takes somebody else's change.
const patience = 16

// ErrDiskClosed is the answer of a Disk that has been closed.
var ErrDiskClosed = fmt.Errorf("the disk is closed: %w", fs.ErrClosed)

// A DiskError is a request of a Disk that has failed.
type DiskError struct {
	Op     string // in words: "read", "write", …
	Name   string // of the VDI
	VDI    sheep.VDIID
	Object sheep.ObjectID // 0 if it is not about one
	Err    error
}

func (e *DiskError) Error() string {
	if e.Object == 0 {
		return fmt.Sprintf("%s VDI %q (%v): %v", e.Op, e.Name, e.VDI, e.Err)
	}
	return fmt.Sprintf("%s object %v of VDI %q (%v): %v", e.Op, e.Object, e.Name, e.VDI, e.Err)
}

// Unwrap returns the cause.
func (e *DiskError) Unwrap() error { return e.Err }

// A Disk is a VDI as a block device. It may be used by any number of goroutines.
//
// A Disk that was opened for the head of a name follows it: when a snapshot is
// taken it goes on with the new head, and its users notice nothing. If the head is
// deleted, renamed or rolled back its requests fail with sheep.ErrNoVDI. A Disk of
// a snapshot can only be read.
//
// Requests that overlap and run at the same time have no order; each byte is as
// one of them left it. A request that has failed may have been done in part and
// may be repeated.
//
// The first write takes the ownership of the VDI, opening takes nothing. Several
// Disks of one VDI, and other clients, see each other's writes, but two of them
// must not make the same object at the same time: one of the writes may be lost.
// Disks over one MapWatcher share no gates; whoever wants several users of a VDI
// on one node shares the Disk.
type Disk struct {
	host     DiskHost
	cfg      DiskConfig
	readOnly bool

	head   atomic.Pointer[head] // replaced by follow; nil when closed
	last   atomic.Pointer[head] // when closed: what head was
	size   atomic.Uint64        // bytes; only grows
	dirty  atomic.Bool          // something may not be durable
	gates  gates
	ops    sync.Pool     // of *diskOp
	moving chan struct{} // has room for one: held while the head is looked for

	mu     sync.Mutex
	former []sheep.VDIID // heads before, not flushed since; guarded by mu
}

// OpenDisk opens the head of the name or, with tag or snapID, a snapshot of it,
// as DiskHost.Lookup finds it. The caller has to close the Disk.
func OpenDisk(ctx context.Context, host DiskHost, name, tag string, snapID uint32, cfg DiskConfig) (*Disk, error) {
	if cfg.Parallel <= 0 {
		cfg.Parallel = defaultParallel
	}
	if cfg.MapPages <= 0 {
		cfg.MapPages = defaultMapPages
	}
	v, err := host.Lookup(ctx, name, tag, snapID)
	if err != nil {
		return nil, fmt.Errorf("open VDI %q: %w", name, err)
	}
	d := &Disk{
		host: host, cfg: cfg, moving: make(chan struct{}, 1),
		readOnly: tag != "" || snapID != 0 || v.Snapshot,
	}
	h, size, err := d.openHead(ctx, v)
	if err != nil {
		return nil, fmt.Errorf("open VDI %q: %w", name, err)
	}
	d.size.Store(size)
	d.head.Store(h)
	return d, nil
}

// VDI returns what the Disk is now, the head may change, or was when it was closed.
func (d *Disk) VDI() sheep.VDI {
	for {
		if h := d.head.Load(); h != nil {
			return h.vdi
		}
		if h := d.last.Load(); h != nil {
			return h.vdi
		}
	}
}

// ReadOnly reports whether the Disk is of a snapshot.
func (d *Disk) ReadOnly() bool { return d.readOnly }

// Size returns the size in bytes, as of the last Refresh or Resize.
func (d *Disk) Size() uint64 { return d.size.Load() }

// ReadAt fills p from byte off.
func (d *Disk) ReadAt(ctx context.Context, p []byte, off uint64) error {
	h, err := d.begin("read", off, uint64(len(p)))
	if err != nil {
		return err
	}
	if one, ok := h.single(off, uint64(len(p))); ok {
		return d.readPiece(ctx, one, p)
	}
	return inParallel(h.pieces(off, uint64(len(p))), d.cfg.Parallel, func(s piece) error {
		return d.readPiece(ctx, s, p[s.at:][:s.len])
	})
}

// WriteAt writes p at byte off. What was written is durable when WriteAt returns
// if durable says so, and after the next Flush otherwise.
func (d *Disk) WriteAt(ctx context.Context, p []byte, off uint64, durable bool) error {
	h, err := d.beginWrite("write", off, uint64(len(p)))
	if err != nil {
		return err
	}
	defer d.wrote(durable)
	if one, ok := h.single(off, uint64(len(p))); ok {
		return d.writePiece(ctx, one, p, 0, durable)
	}
	return inParallel(h.pieces(off, uint64(len(p))), d.cfg.Parallel, func(s piece) error {
		return d.writePiece(ctx, s, p[s.at:][:s.len], 0, durable)
	})
}

// wrote notes the end of a write: a flush that began later makes it durable.
func (d *Disk) wrote(durable bool) {
	if !durable && !d.dirty.Load() {
		d.dirty.Store(true)
	}
}

// Flush returns nil when every write that was answered before is durable. That
// writes were lost it says until sheep.Told has its error.
func (d *Disk) Flush(ctx context.Context) error {
	h := d.head.Load()
	switch {
	case h == nil:
		return ErrDiskClosed
	case d.readOnly:
		return nil
	}
	d.dirty.Store(false)
	err := d.flushFormer(ctx)
	if err == nil {
		err = d.host.Flush(ctx, h.vdi.ID)
	}
	if err != nil {
		d.dirty.Store(true)
		return h.fail("flush", 0, err)
	}
	return nil
}

// flushFormer flushes the heads before. What was written there has been flushed
// by the snapshot; this is for the answer that it was not lost.
func (d *Disk) flushFormer(ctx context.Context) error {
	d.mu.Lock()
	former := d.former
	d.former = nil
	d.mu.Unlock()
	for i, v := range former {
		if err := d.host.Flush(ctx, v); err != nil && !errors.Is(err, sheep.ErrNoVDI) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.former = append(d.former, former[i+1:]...)
			return err
		}
	}
	return nil
}

// Close flushes what was deferred and ends the use of the Disk. No request may be
// under way; those that come later fail with ErrDiskClosed. That writes were lost
// nobody may hear from Close: the next client is told.
func (d *Disk) Close(ctx context.Context) error {
	var err error
	if d.head.Load() != nil && d.dirty.Load() {
		err = d.Flush(ctx)
	}
	if h := d.head.Load(); h != nil {
		d.last.Store(h)
		d.head.Store(nil)
		h.stop()
	}
	return err
}

// begin checks a request.
func (d *Disk) begin(op string, off, n uint64) (*head, error) {
	h := d.head.Load()
	if h == nil {
		return nil, ErrDiskClosed
	}
	if size := d.size.Load(); off > size || n > size-off {
		return nil, h.fail(op, 0, fmt.Errorf("%w: %d bytes at %d of %d", sheep.ErrInvalid, n, off, size))
	}
	return h, nil
}

func (d *Disk) beginWrite(op string, off, n uint64) (*head, error) {
	h, err := d.begin(op, off, n)
	if err == nil && d.readOnly {
		err = h.fail(op, 0, sheep.ErrReadOnly)
	}
	return h, err
}
