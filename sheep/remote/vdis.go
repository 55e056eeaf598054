package remote

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A Version says which VDI of a name is meant: the snapshot with the id or the
// tag, or the working VDI if both are zero.
type Version struct {
	ID  uint32
	Tag string
}

// Working reports whether v is the working VDI.
func (v Version) Working() bool { return v == Version{} }

// Lookup returns the number of the VDI that name and v stand for.
func (c *Cluster) Lookup(ctx context.Context, name string, v Version) (sheep.VDIID, error) {
	resp, _, err := c.Do(ctx, Request{
		Op:   proto.OpGetVDIInfo,
		Body: proto.VDIBody{SnapID: v.ID}.Body(),
		Data: proto.AppendLookup(nil, name, v.Tag),
	})
	if err != nil {
		return 0, err
	}
	return proto.DecodeVDIReply(resp.Body).VDI, nil
}

// NewVDI makes a VDI, or with b.SnapID a snapshot, and returns its number.
func (c *Cluster) NewVDI(ctx context.Context, name string, b proto.VDIBody) (sheep.VDIID, error) {
	resp, _, err := c.Do(ctx, Request{Op: proto.OpNewVDI, Body: b.Body(), Data: proto.AppendName(nil, name)})
	if err != nil {
		return 0, err
	}
	return proto.DecodeVDIReply(resp.Body).VDI, nil
}

// DeleteVDI deletes the VDI that name and v stand for.
func (c *Cluster) DeleteVDI(ctx context.Context, name string, v Version) error {
	_, _, err := c.Do(ctx, Request{
		Op:   proto.OpDelVDI,
		Body: proto.VDIBody{SnapID: v.ID}.Body(),
		Data: proto.AppendLookup(nil, name, v.Tag),
	})
	return err
}

// Release gives the lock of vdi back, a shared one for the daemon at addr.
func (c *Cluster) Release(ctx context.Context, vdi sheep.VDIID, t proto.LockType, addr string) error {
	_, _, err := c.Do(ctx, Request{Op: proto.OpReleaseVDI, To: addr, Body: proto.VDIBody{Base: vdi, Type: t}.Body()})
	return err
}

// Header returns the header of the inode of vdi.
func (c *Cluster) Header(ctx context.Context, vdi sheep.VDIID) (*proto.InodeHeader, error) {
	b := make([]byte, proto.InodeHeaderSize)
	if err := c.Read(ctx, sheep.InodeObject(vdi), b, 0); err != nil {
		return nil, err
	}
	h, err := proto.DecodeInodeHeader(b)
	if err != nil {
		return nil, fmt.Errorf("inode of VDI %v: %w", vdi, err)
	}
	return &h, nil
}

// Slots returns the number of map entries of a VDI with the header h.
func Slots(h *proto.InodeHeader) (int, error) {
	if h.BlockShift < sheep.MinBlockShift || h.BlockShift > sheep.MaxBlockShift {
		return 0, fmt.Errorf("inode of VDI %v: %w: block size shift %d", h.VDI, sheep.ErrInvalid, h.BlockShift)
	}
	n := h.Size >> h.BlockShift
	if n<<h.BlockShift < h.Size {
		n++
	}
	if n > proto.MaxMapEntries {
		return 0, fmt.Errorf("inode of VDI %v: %w: size %d", h.VDI, sheep.ErrInvalid, h.Size)
	}
	return int(n), nil
}

// Map returns the map of a VDI that is no hyper volume: the owner of each of
// its data objects, or zero.
func (c *Cluster) Map(ctx context.Context, h *proto.InodeHeader) ([]sheep.VDIID, error) {
	n, err := Slots(h)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, nil
	}
	b := make([]byte, n*proto.MapEntrySize)
	if err := c.Read(ctx, sheep.InodeObject(h.VDI), b, proto.MapOffset); err != nil {
		return nil, err
	}
	m := make([]sheep.VDIID, n)
	for i := range m {
		m[i] = sheep.VDIID(binary.LittleEndian.Uint32(b[i*proto.MapEntrySize:]))
	}
	return m, nil
}

// WriteMap writes entries into the map of vdi from index first on. The objects
// that the old entries named lose a reference.
func (c *Cluster) WriteMap(ctx context.Context, vdi sheep.VDIID, first uint32, entries []sheep.VDIID, flags proto.Flags) error {
	b := make([]byte, 0, len(entries)*proto.MapEntrySize)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint32(b, uint32(e))
	}
	return c.Write(ctx, sheep.InodeObject(vdi), b, proto.MapOffset+first*proto.MapEntrySize, flags)
}

// A Listed is one VDI of a listing. Err says why its inode, or its map, could
// not be read.
type Listed struct {
	VDI     sheep.VDIID
	Deleted bool // its number is marked so
	Header  *proto.InodeHeader
	Objects []proto.BTreeEntry // if asked for, and not of a hyper volume
	Own     uint64             // if asked for: how many objects of its own a hyper volume has
	Err     error
}

// A Query says what a listing shall have.
type Query struct {
	All  bool                          // list deleted ones and those without a name, too
	Map  bool                          // read the maps, too
	Want func(*proto.InodeHeader) bool // if set, the maps of which VDIs
}

// pipeline is how many requests are in flight at once.
const pipeline = 32

// VDIs returns the VDIs that exist, in ascending order. Those whose inodes
// cannot be read are listed with the error; deleted ones are listed only if q
// asks for all.
func (c *Cluster) VDIs(ctx context.Context, q Query) (iter.Seq[Listed], error) {
	used, err := c.bitmap(ctx, proto.OpReadVDIs)
	if err != nil {
		return nil, err
	}
	deleted, err := c.bitmap(ctx, proto.OpReadDelVDIs)
	if err != nil {
		return nil, err
	}
	for i := range used {
		if !q.All {
			used[i] &^= deleted[i]
		}
	}
	return c.listed(ctx, used, deleted, q), nil
}

// listed lists the VDIs with the numbers in the bitmap.
func (c *Cluster) listed(ctx context.Context, numbers, deleted []byte, q Query) iter.Seq[Listed] {
	ids := func(yield func(sheep.VDIID) bool) {
		for i, b := range numbers {
			for bit := range 8 {
				if b>>bit&1 != 0 && !yield(sheep.VDIID(i*8+bit)) {
					return
				}
			}
		}
	}
	read := func(id sheep.VDIID) Listed { return c.list(ctx, id, q) }
	return func(yield func(Listed) bool) {
		for l := range Ordered(ids, pipeline, read) {
			l.Deleted = deleted[l.VDI/8]>>(l.VDI%8)&1 != 0
			if (q.All || l.Err != nil || l.Header.Name != "") && !yield(l) {
				return
			}
		}
	}
}

func (c *Cluster) list(ctx context.Context, id sheep.VDIID, q Query) Listed {
	if q.Map {
		return c.listMap(ctx, id, q)
	}
	l := Listed{VDI: id}
	l.Header, l.Err = c.Header(ctx, id)
	return l
}

// firstSlots is how many entries of a map are read together with the header:
// those of 4 GiB with objects of the usual size.
const firstSlots = 1024

// listMap reads header and map in one request if the map is short.
func (c *Cluster) listMap(ctx context.Context, id sheep.VDIID, q Query) Listed {
	l := Listed{VDI: id}
	b := make([]byte, proto.InodeHeaderSize+firstSlots*proto.MapEntrySize)
	if l.Err = c.Read(ctx, sheep.InodeObject(id), b, 0); l.Err != nil {
		return l
	}
	h, err := proto.DecodeInodeHeader(b)
	if err != nil {
		l.Err = fmt.Errorf("inode of VDI %v: %w", id, err)
		return l
	}
	l.Header = &h
	if h.Name == "" || q.Want != nil && !q.Want(&h) {
		return l
	}
	if h.Hyper() {
		for _, err := range c.Objects(ctx, &h) {
			if err != nil {
				l.Err = err
				return l
			}
			l.Own++
		}
		return l
	}
	n, err := Slots(&h)
	if err != nil || n > firstSlots {
		l.Objects, l.Err = c.Allocated(ctx, &h)
		return l
	}
	for i, slot := 0, b[proto.InodeHeaderSize:]; i < n; i++ {
		if owner := sheep.VDIID(binary.LittleEndian.Uint32(slot[i*proto.MapEntrySize:])); owner != 0 {
			l.Objects = append(l.Objects, proto.BTreeEntry{Index: uint32(i), VDI: owner})
		}
	}
	return l
}

// Used returns the bitmap of the numbers that VDIs, deleted ones included, have.
func (c *Cluster) Used(ctx context.Context) ([]byte, error) { return c.bitmap(ctx, proto.OpReadVDIs) }

func (c *Cluster) bitmap(ctx context.Context, op proto.Opcode) ([]byte, error) {
	b := make([]byte, sheep.MaxVDIs/8)
	_, data, err := c.Do(ctx, Request{Op: op, Into: b})
	if err != nil {
		return nil, err
	}
	clear(b[len(data):])
	return b, nil
}

// States returns what the cluster knows of its VDIs, deleted ones included,
// in ascending order.
func (c *Cluster) States(ctx context.Context) ([]proto.VDIState, error) {
	for room := 512; ; room *= 2 {
		_, data, err := c.Do(ctx, Request{Op: proto.OpGetVDICopies, Into: make([]byte, room*proto.VDIStateSize)})
		if Result(err) == proto.ResultBufferSmall && room < sheep.MaxVDIs {
			continue
		}
		if err != nil {
			return nil, err
		}
		states, err := proto.DecodeVDIStates(data)
		if err != nil {
			return nil, fmt.Errorf("VDI states: %w", err)
		}
		slices.SortFunc(states, func(a, b proto.VDIState) int { return int(a.VDI) - int(b.VDI) })
		return states, nil
	}
}

// Ordered applies f to each value of in, up to width of them at once, and
// yields the results in the order of in.
func Ordered[In, Out any](in iter.Seq[In], width int, f func(In) Out) iter.Seq[Out] {
	return func(yield func(Out) bool) {
		running := make([]chan Out, 0, width)
		stopped := false
		in(func(v In) bool {
			if len(running) == width {
				if stopped = !yield(<-running[0]); stopped {
					running = running[1:]
					return false
				}
				running = append(running[:0], running[1:]...)
			}
			result := make(chan Out, 1)
			running = append(running, result)
			go func() { result <- f(v) }()
			return true
		})
		for _, result := range running {
			if out := <-result; !stopped {
				stopped = !yield(out)
			}
		}
	}
}
