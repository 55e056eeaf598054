package native

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A Config says how a Disk is used. Servers must not be empty.
type Config struct {
	Servers   []string // where to connect, in order of preference
	WriteBack bool     // say CACHE instead of DIRECT
	Retries   func(server string, err error)
}

// A Disk is an open VDI. ReadAt and WriteAt may be called concurrently; as in
// QEMU, two writes to the same bytes at the same time are the caller's fault.
type Disk struct {
	cfg   Config
	name  string
	size  uint64
	shift uint8
	noop  atomic.Bool // the server says that it needs no flushes

	objects []sync.RWMutex // held for writing while the object is being created

	mu      sync.Mutex // guards what follows
	conn    *Conn
	server  int // of cfg.Servers
	vid     uint32
	copies  uint8
	entries []uint32 // the map: owner of each object, 0 if there is none

	dialling sync.Mutex // held while a new connection is made
}

// Open opens the working VDI of that name without a lock, as tests open the
// same disk many times.
func Open(ctx context.Context, cfg Config, name string) (*Disk, error) {
	d := &Disk{cfg: cfg, name: name}
	if err := d.load(ctx); err != nil {
		d.Close()
		return nil, fmt.Errorf("open %q: %w", name, err)
	}
	return d, nil
}

// Close drops the connection.
func (d *Disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == nil {
		return nil
	}
	return d.conn.Close()
}

// Size returns the size of the disk in bytes.
func (d *Disk) Size() int64 { return int64(d.size) }

// ObjectSize returns the size of the disk's data objects.
func (d *Disk) ObjectSize() int64 { return 1 << d.shift }

// Server returns the server that the disk is, or was last, connected to.
func (d *Disk) Server() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cfg.Servers[d.server]
}

func (d *Disk) load(ctx context.Context) error {
	vid, err := d.lookup(ctx)
	if err != nil {
		return err
	}
	b, err := d.readInode(ctx, vid, InodeClientSize)
	if err != nil {
		return err
	}
	d.size, d.shift = binary.LittleEndian.Uint64(b[536:]), b[555]
	if d.shift < 20 || d.shift > 31 {
		return fmt.Errorf("inode of vdi %x: block size shift %d", vid, d.shift)
	}
	n := int((d.size + 1<<d.shift - 1) >> d.shift)
	if 4*n > len(b)-InodeHeaderSize {
		return fmt.Errorf("inode of vdi %x: a size of %d bytes", vid, d.size)
	}
	d.objects = make([]sync.RWMutex, n)
	d.entries = make([]uint32, n)
	for i := range d.entries {
		d.entries[i] = binary.LittleEndian.Uint32(b[InodeHeaderSize+4*i:])
	}
	d.setHead(vid, b[554])
	return nil
}

func (d *Disk) setHead(vid uint32, copies uint8) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.vid, d.copies = vid, copies
}

func (d *Disk) lookup(ctx context.Context) (uint32, error) {
	resp, err := d.call(ctx, func() *Request {
		return &Request{Proto: 1, Op: OpGetVDIInfo, Flags: FlagWrite, Data: append(Name(d.name), Name("")...)}
	})
	if err != nil {
		return 0, fmt.Errorf("look up: %w", err)
	}
	return binary.LittleEndian.Uint32(resp.Body[4:]), nil
}

func (d *Disk) readInode(ctx context.Context, vid uint32, n int) ([]byte, error) {
	resp, err := d.call(ctx, func() *Request {
		return &Request{Op: OpRead, Flags: d.flag(), Body: ObjectBody(InodeID(vid), 0, 0, 0), Into: make([]byte, n)}
	})
	if err != nil {
		return nil, fmt.Errorf("inode of vdi %x: %w", vid, err)
	}
	if len(resp.Data) != n {
		return nil, fmt.Errorf("inode of vdi %x: %d bytes instead of %d", vid, len(resp.Data), n)
	}
	return resp.Data, nil
}

// follow learns that the disk was snapshotted by somebody else: the name has a
// new head, whose map begins as a copy of the one that is known here.
func (d *Disk) follow(ctx context.Context) error {
	vid, err := d.lookup(ctx)
	if err != nil {
		return err
	}
	b, err := d.readInode(ctx, vid, InodeHeaderSize)
	if err != nil {
		return err
	}
	d.setHead(vid, b[554])
	return nil
}

func (d *Disk) flag() uint16 {
	if d.cfg.WriteBack && !d.noop.Load() {
		return FlagCache
	}
	return FlagDirect
}

// ReadAt fills p from off.
func (d *Disk) ReadAt(ctx context.Context, p []byte, off int64) error {
	return d.pieces(p, off, func(index, in uint32, p []byte) error {
		d.objects[index].RLock()
		defer d.objects[index].RUnlock()
		owner, _, copies := d.entry(index)
		if owner == 0 {
			clear(p)
			return nil
		}
		resp, err := d.call(ctx, func() *Request {
			return &Request{Op: OpRead, Flags: d.flag(), Body: ObjectBody(DataID(owner, index), 0, copies, in), Into: p}
		})
		if err == nil && len(resp.Data) != len(p) {
			err = fmt.Errorf("%d bytes instead of %d", len(resp.Data), len(p))
		}
		if err != nil {
			return fmt.Errorf("read %x:%d at %d: %w", owner, index, in, err)
		}
		return nil
	})
}

// WriteAt writes p at off. When it returns nil the server has answered for all
// of it, the map included.
func (d *Disk) WriteAt(ctx context.Context, p []byte, off int64) error {
	return d.pieces(p, off, func(index, in uint32, p []byte) error {
		done, err := d.overwrite(ctx, index, in, p)
		if !done && err == nil {
			err = d.create(ctx, index, in, p)
		}
		if err != nil {
			return fmt.Errorf("write %q object %d at %d: %w", d.name, index, in, err)
		}
		return nil
	})
}

func (d *Disk) pieces(p []byte, off int64, fn func(index, in uint32, p []byte) error) error {
	if off < 0 || off+int64(len(p)) > int64(d.size) {
		return fmt.Errorf("%d bytes at %d of a disk of %d", len(p), off, d.size)
	}
	for len(p) > 0 {
		in := off & (1<<d.shift - 1)
		n := min(int64(len(p)), 1<<d.shift-in)
		if err := fn(uint32(off>>d.shift), uint32(in), p[:n]); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (d *Disk) entry(index uint32) (owner, vid uint32, copies uint8) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.entries[index], d.vid, d.copies
}

func (d *Disk) head() (vid uint32, copies uint8) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.vid, d.copies
}

// overwrite writes to an object that the disk owns. It reports false if it owns
// none at that index, or no longer.
func (d *Disk) overwrite(ctx context.Context, index, in uint32, p []byte) (bool, error) {
	d.objects[index].RLock()
	defer d.objects[index].RUnlock()
	owner, vid, copies := d.entry(index)
	if owner == 0 || owner != vid {
		return false, nil
	}
	_, err := d.call(ctx, func() *Request {
		return &Request{Op: OpWrite, Flags: FlagWrite | d.flag(), Data: p, Body: ObjectBody(DataID(owner, index), 0, copies, in)}
	})
	if errors.Is(err, ReadOnly) {
		return false, d.follow(ctx)
	}
	return true, err
}

// create makes the object and enters it into the map.
func (d *Disk) create(ctx context.Context, index, in uint32, p []byte) error {
	d.objects[index].Lock()
	defer d.objects[index].Unlock()
	for {
		owner, vid, copies := d.entry(index)
		op, flags, cow := uint8(OpCreateAndWrite), FlagWrite|d.flag(), uint64(0)
		switch owner {
		case 0:
		case vid: // somebody else created it while this call waited
			op = OpWrite
		default:
			flags, cow = flags|FlagCOW, DataID(owner, index)
		}
		_, err := d.call(ctx, func() *Request {
			return &Request{Op: op, Flags: flags, Data: p, Body: ObjectBody(DataID(vid, index), cow, copies, in)}
		})
		if err == nil && owner != vid {
			err = d.setMap(ctx, index, vid, copies)
		}
		if !errors.Is(err, ReadOnly) {
			return err
		}
		if err := d.follow(ctx); err != nil {
			return err
		}
	}
}

func (d *Disk) setMap(ctx context.Context, index, vid uint32, copies uint8) error {
	value := binary.LittleEndian.AppendUint32(nil, vid)
	_, err := d.call(ctx, func() *Request {
		return &Request{Op: OpWrite, Flags: FlagWrite | d.flag(), Data: value, Body: ObjectBody(InodeID(vid), 0, copies, InodeHeaderSize+4*index)}
	})
	if err != nil {
		return fmt.Errorf("map: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries[index] = vid
	return nil
}

// Flush makes what was written durable. A server that needs no flushes says so
// once and is not asked again.
func (d *Disk) Flush(ctx context.Context) error {
	if !d.cfg.WriteBack || d.noop.Load() {
		return nil
	}
	vid, copies := d.head()
	_, err := d.call(ctx, func() *Request {
		return &Request{Op: OpFlushVDI, Flags: FlagCache, Body: ObjectBody(InodeID(vid), 0, copies, 0)}
	})
	if errors.Is(err, InvalidParms) {
		d.noop.Store(true)
		return nil
	}
	if err != nil {
		return fmt.Errorf("flush %q: %w", d.name, err)
	}
	return nil
}

// call sends what build returns until it is answered, on a new connection
// whenever the old one is lost. A refusal is an error of type Result.
func (d *Disk) call(ctx context.Context, build func() *Request) (*Response, error) {
	for {
		c, err := d.connection(ctx)
		if err != nil {
			return nil, err
		}
		resp, err := c.Do(ctx, build())
		if errors.Is(err, ErrLost) && ctx.Err() == nil {
			d.lost(c, err)
			continue
		}
		if err == nil {
			err = resp.Err()
		}
		return resp, err
	}
}

func (d *Disk) lost(c *Conn, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == c {
		d.conn = nil
		if d.cfg.Retries != nil {
			d.cfg.Retries(d.cfg.Servers[d.server], err)
		}
		d.server = (d.server + 1) % len(d.cfg.Servers)
	}
}

// connection returns the connection, made anew if it was lost. It tries one
// server after the other until one serves a running cluster.
func (d *Disk) connection(ctx context.Context) (*Conn, error) {
	if c, _ := d.current(); c != nil {
		return c, nil
	}
	d.dialling.Lock()
	defer d.dialling.Unlock()
	for {
		c, server := d.current()
		if c != nil {
			return c, nil
		}
		c, err := connect(ctx, d.cfg.Servers[server])
		d.mu.Lock()
		if err == nil {
			d.conn = c
		} else {
			d.server = (server + 1) % len(d.cfg.Servers)
		}
		d.mu.Unlock()
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (last attempt: %w)", context.Cause(ctx), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (d *Disk) current() (*Conn, int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conn, d.server
}

// connect dials a server and refuses one whose cluster does not run, where QEMU
// would pass the refusal of its first request on to the guest.
func connect(ctx context.Context, server string) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := Dial(ctx, server)
	if err != nil {
		return nil, err
	}
	s, err := Stat(ctx, c)
	if err == nil && s.Result != Success {
		err = s.Result
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("%s: %w", server, err)
	}
	return c, nil
}
