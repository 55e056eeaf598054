package client

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A Doer sends a request and waits for its answer, as Conn.Do does. It may be
// used concurrently.
type Doer interface {
	Do(ctx context.Context, h proto.Header, payload, into []byte) (proto.Response, []byte, error)
}

// maxTransfer is how much data one request of Objects carries.
const maxTransfer = 4 << 20

// Objects are the objects of a cluster, as a client of a sheep sees them, and
// all that a vdi.Disk needs of its host. Of references only the ID is sent: the
// sheep knows the rest better.
//
// Writes that need not be durable are sent with the flag CACHE, the others
// without. The protocol of clients cannot punch holes: zeroes are sent as data.
//
// Objects believe that nobody else writes the maps of VDIs that are watched, as
// QEMU does: a Disk keeps them in memory until its Refresh.
type Objects struct {
	do Doer

	mu       sync.Mutex
	watchers map[sheep.VDIID][]*mapWatcher // guarded by mu
}

type mapWatcher struct {
	fn func(first uint32, owners []sheep.VDIID)
}

var (
	_ sheep.Objects = (*Objects)(nil)
	_ sheep.Flusher = (*Objects)(nil)
)

// NewObjects returns the objects that do reaches.
func NewObjects(do Doer) *Objects {
	return &Objects{do: do, watchers: make(map[sheep.VDIID][]*mapWatcher)}
}

// Read fills p from offset off of the object.
func (o *Objects) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	for len(p) > 0 {
		part := p[:min(len(p), maxTransfer)]
		n, err := o.request(ctx, proto.OpReadObj, 0, proto.ObjectBody{ID: ref.ID, Off: off}, nil, part)
		if err == nil && n != len(part) {
			err = fmt.Errorf("%w: %d of %d bytes", sheep.ErrIO, n, len(part))
		}
		if err != nil {
			return fmt.Errorf("read object %v: %w", ref.ID, err)
		}
		p, off = p[len(part):], off+uint32(len(part))
	}
	return nil
}

// Write changes the object, or makes it. More than 4 MiB are sent in several
// requests, of which the first makes the object.
func (o *Objects) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	data := w.Data
	if w.Zero != 0 {
		data = make([]byte, min(w.Zero, maxTransfer))
	}
	body := proto.ObjectBody{ID: ref.ID}
	flags := proto.FlagWrite
	if !w.Durable {
		flags |= proto.FlagCache
	}
	for at := uint32(0); at == 0 || at < w.Len(); {
		n := min(w.Len()-at, maxTransfer)
		part := data
		if w.Zero == 0 {
			part = data[at:]
		}
		op, f := proto.OpWriteObj, flags
		if body.Off = w.Off + at; at == 0 && w.Create {
			op = proto.OpCreateAndWriteObj
			if w.From != nil {
				body.COW = w.From.ID
				f |= proto.FlagCOW
			}
		}
		if _, err := o.request(ctx, op, f, body, part[:n], nil); err != nil {
			o.written(ref.ID, w, err)
			return fmt.Errorf("write object %v: %w", ref.ID, err)
		}
		body.COW = 0
		at += max(n, 1)
	}
	o.written(ref.ID, w, nil)
	return nil
}

// Remove removes the object.
func (o *Objects) Remove(ctx context.Context, ref sheep.Ref) error {
	if _, err := o.request(ctx, proto.OpRemoveObj, 0, proto.ObjectBody{ID: ref.ID}, nil, nil); err != nil {
		return fmt.Errorf("remove object %v: %w", ref.ID, err)
	}
	return nil
}

// Flush makes the deferred writes to vdi durable. A cluster that defers none says
// so, which is no error.
func (o *Objects) Flush(ctx context.Context, vdi sheep.VDIID) error {
	_, err := o.request(ctx, proto.OpFlushVDI, proto.FlagCache, proto.ObjectBody{ID: sheep.InodeObject(vdi)}, nil, nil)
	if err != nil && !errors.Is(err, sheep.ErrInvalid) {
		return fmt.Errorf("flush VDI %v: %w", vdi, err)
	}
	return nil
}

// Lookup returns the head of the name or, with tag or snapID, a snapshot of it.
func (o *Objects) Lookup(ctx context.Context, name, tag string, snapID uint32) (sheep.VDI, error) {
	h := proto.Header{
		Version: proto.OpGetVDIInfo.Version(), Op: proto.OpGetVDIInfo, Flags: proto.FlagWrite,
		Body: proto.VDIBody{SnapID: snapID}.Body(),
	}
	resp, _, err := o.do.Do(ctx, h, proto.AppendLookup(nil, name, tag), nil)
	if err = outcome(resp, err, 0); err != nil {
		return sheep.VDI{}, fmt.Errorf("look up VDI %q: %w", name, err)
	}
	id := proto.DecodeVDIReply(resp.Body).VDI
	b := make([]byte, proto.InodeHeaderSize)
	if err := o.Read(ctx, sheep.Ref{ID: sheep.InodeObject(id)}, b, 0); err != nil {
		return sheep.VDI{}, err
	}
	inode, err := proto.DecodeInodeHeader(b)
	if err != nil {
		return sheep.VDI{}, fmt.Errorf("inode of VDI %v: %w", id, err)
	}
	policy, err := sheep.PolicyFromWire(inode.Copies, inode.CopyPolicy)
	if err != nil {
		return sheep.VDI{}, fmt.Errorf("inode of VDI %v: %w", id, err)
	}
	return sheep.VDI{
		ID: id, Name: inode.Name, SnapID: inode.SnapID, Parent: inode.Parent, Policy: policy,
		BlockShift: inode.BlockShift, Hyper: inode.Hyper(), Snapshot: inode.SnapTime != 0,
	}, nil
}

// MapVersion says that maps stay as they are: see Objects.
func (o *Objects) MapVersion(sheep.VDIID) (version uint64, ok bool) { return 0, true }

// WatchMap has fn called for every write to the map of v's inode that is made
// through o, after it has been answered: slots first and following now name
// owners. owners is nil if a write has failed, and nobody knows what the map has.
func (o *Objects) WatchMap(v sheep.VDIID, fn func(first uint32, owners []sheep.VDIID)) (stop func()) {
	w := &mapWatcher{fn}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.watchers[v] = append(o.watchers[v], w)
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		var rest []*mapWatcher
		for _, other := range o.watchers[v] {
			if other != w {
				rest = append(rest, other)
			}
		}
		if o.watchers[v] = rest; rest == nil {
			delete(o.watchers, v)
		}
	}
}

// written tells the watchers of a map of a write to its inode.
func (o *Objects) written(id sheep.ObjectID, w *sheep.Write, err error) {
	if id.Kind() != sheep.KindInode || w.Off+w.Len() <= proto.MapOffset || w.Off >= proto.MapEnd {
		return
	}
	var owners []sheep.VDIID
	if err == nil && w.Off >= proto.MapOffset && w.Off%proto.MapEntrySize == proto.MapOffset%proto.MapEntrySize {
		owners = make([]sheep.VDIID, w.Len()/proto.MapEntrySize)
		for i := range owners {
			if w.Zero == 0 {
				owners[i] = sheep.VDIID(binary.LittleEndian.Uint32(w.Data[i*proto.MapEntrySize:]))
			}
		}
	}
	first := (max(w.Off, proto.MapOffset) - proto.MapOffset) / proto.MapEntrySize
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, watcher := range o.watchers[id.VDI()] {
		watcher.fn(first, owners)
	}
}

func (o *Objects) request(ctx context.Context, op proto.Opcode, flags proto.Flags, body proto.ObjectBody, payload, into []byte) (int, error) {
	h := proto.Header{Version: op.Version(), Op: op, Flags: flags, Body: body.Body(), DataLen: uint32(len(into))}
	resp, data, err := o.do.Do(ctx, h, payload, into)
	return len(data), outcome(resp, err, 0)
}
