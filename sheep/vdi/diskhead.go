package vdi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// errMoved says that the head is none any more: a snapshot has been taken.
var errMoved = errors.New("the head has become a snapshot")

// aliveSize is how much of an inode says whether it still is what it was.
const aliveSize = vmClockField

// A head is the inode that a Disk works on.
type head struct {
	host    DiskHost
	watcher MapWatcher // nil if there is none
	vdi     sheep.VDI
	frozen  bool // a snapshot: its map does not change
	name    string
	created uint64 // time
	cache   mapCache
	slots   slotWriter
	stop    func() // ends the watching

	treeTold bool // the watcher also tells of writes to a hyper volume's tree
}

// openHead returns the head of v and the size of the disk.
func (d *Disk) openHead(ctx context.Context, v sheep.VDI) (*head, uint64, error) {
	inode, err := ReadHeader(ctx, d.host, v)
	size := inode.Size
	switch {
	case errors.Is(err, sheep.ErrNoObject):
		return nil, 0, sheep.ErrNoVDI
	case err != nil:
		return nil, 0, err
	case inode.Name == "":
		return nil, 0, sheep.ErrNoVDI
	case v.BlockShift < sheep.MinBlockShift || v.BlockShift > sheep.MaxBlockShift:
		return nil, 0, fmt.Errorf("%w: VDI %v has block size shift %d", sheep.ErrInvalid, v.ID, v.BlockShift)
	case size > MaxSize(v.BlockShift, inode.Hyper()):
		return nil, 0, fmt.Errorf("%w: VDI %v has %d bytes", sheep.ErrInvalid, v.ID, size)
	}
	v.Hyper = inode.Hyper()
	h := &head{host: d.host, vdi: v, frozen: d.readOnly, name: inode.Name, created: inode.CreateTime, stop: func() {}}
	h.cache.limit = d.cfg.MapPages
	if w, ok := d.host.(MapWatcher); ok {
		h.watcher = w
		h.stop = w.WatchMap(v.ID, h.cache.written)
		_, h.treeTold = w.(treeWatcher)
	}
	return h, size, nil
}

// fail returns err as what has happened to a request for the object at index i
// of owner, if that is not 0.
func (h *head) fail(op string, id sheep.ObjectID, err error) error {
	return &DiskError{Op: op, Name: h.name, VDI: h.vdi.ID, Object: id, Err: err}
}

// object returns the head's own object at index.
func (h *head) object(index uint32) sheep.ObjectID { return sheep.DataObject(h.vdi.ID, index) }

// ref returns the reference of the inode.
func (h *head) ref() sheep.Ref { return Ref(h.vdi, sheep.InodeObject(h.vdi.ID)) }

// version returns the version of the map, and whether it may be kept in memory.
func (h *head) version() (uint64, bool) {
	switch {
	case h.frozen:
		return 0, true
	case h.watcher == nil:
		return 0, false
	}
	return h.watcher.MapVersion(h.vdi.ID)
}

// owner returns who owns the object at index, 0 if there is none. It fails with
// errMoved if the head has become a snapshot.
func (h *head) owner(ctx context.Context, index uint32, op *diskOp) (sheep.VDIID, error) {
	err := h.owners(ctx, index, op.owner[:], op)
	return op.owner[0], err
}

// owners finds who owns the objects from index on, which are all in one page.
func (h *head) owners(ctx context.Context, index uint32, owners []sheep.VDIID, op *diskOp) error {
	for range patience {
		version, ok := h.version()
		if !ok {
			break
		}
		p, mine, found := h.cache.find(version, index, owners)
		if found {
			return nil
		}
		if !mine {
			if err := p.wait(ctx); err != nil {
				return err
			}
			continue
		}
		first := index / cachedSlots * cachedSlots
		err := h.readSlots(ctx, first, p.slots[:], make([]byte, cachedSlots*proto.MapEntrySize), op)
		now, ok := h.version()
		if h.cache.arrived(p, index, owners, err == nil && ok && now == version) || err != nil {
			return err
		}
	}
	if len(owners) == 1 {
		return h.readSlots(ctx, index, owners, op.slot[:], op)
	}
	return h.readSlots(ctx, index, owners, make([]byte, len(owners)*proto.MapEntrySize), op)
}

// sureOwner is owner for who wants to make the object: it must not be the
// knowledge of a gateway that does not know yet that another is the owner.
func (h *head) sureOwner(ctx context.Context, index uint32, op *diskOp) (sheep.VDIID, error) {
	if version, ok := h.version(); ok && h.cache.isProven(version) {
		return h.owner(ctx, index, op)
	}
	if h.vdi.Hyper {
		if err := h.enterTree(ctx, nil); err != nil { // from now on there is an owner
			return 0, err
		}
	}
	err := h.readSlots(ctx, index, op.owner[:], op.slot[:], op)
	return op.owner[0], err
}

// readSlots reads slots from the inode, by way of buf, and looks whether the
// inode is still that of the disk.
func (h *head) readSlots(ctx context.Context, first uint32, owners []sheep.VDIID, buf []byte, op *diskOp) error {
	var err error
	if h.vdi.Hyper {
		err = NewTree(h.host, h.vdi).Owners(ctx, first, owners)
	} else {
		err = h.host.Read(ctx, h.ref(), buf, slotOffset(first))
	}
	switch {
	case errors.Is(err, sheep.ErrNoObject):
		return sheep.ErrNoVDI
	case err != nil:
		return fmt.Errorf("read map of VDI %v: %w", h.vdi.ID, err)
	}
	for i := range owners {
		if !h.vdi.Hyper {
			owners[i] = ownerAt(buf, i)
		}
	}
	return h.alive(ctx, op)
}

// alive returns errMoved if the head has become a snapshot, and sheep.ErrNoVDI if
// the VDI is deleted or has another name.
func (h *head) alive(ctx context.Context, op *diskOp) error {
	b := op.alive[:]
	err := h.host.Read(ctx, h.ref(), b, 0)
	switch {
	case errors.Is(err, sheep.ErrNoObject):
		return sheep.ErrNoVDI
	case err != nil:
		return fmt.Errorf("read inode of VDI %v: %w", h.vdi.ID, err)
	case b[nameField] == 0:
		return fmt.Errorf("%w: the VDI was deleted", sheep.ErrNoVDI)
	case binary.LittleEndian.Uint64(b[createField:]) != h.created,
		len(h.name) < proto.LabelSize && b[len(h.name)] != 0, string(b[:len(h.name)]) != h.name:
		return fmt.Errorf("%w: the VDI was renamed or replaced", sheep.ErrNoVDI)
	case !h.frozen && binary.LittleEndian.Uint64(b[snapTimeField:]) != 0:
		return errMoved
	}
	return nil
}

// follow makes the head of the name the head of the disk, in place of old. It
// does nothing if somebody else has done that.
func (d *Disk) follow(ctx context.Context, old *head) error {
	select {
	case d.moving <- struct{}{}:
		defer func() { <-d.moving }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	switch d.head.Load() {
	case nil:
		return ErrDiskClosed
	case old:
	default:
		return nil
	}
	v, err := d.host.Lookup(ctx, old.name, "", 0)
	if err != nil {
		return fmt.Errorf("look up the head: %w", err)
	}
	old.cache.forgetAll()
	if v.ID == old.vdi.ID {
		return nil
	}
	h, size, err := d.openHead(ctx, v)
	if err != nil {
		return err
	}
	if err := d.inherits(ctx, h, old); err != nil {
		h.stop()
		return err
	}
	d.mu.Lock()
	d.former = append(d.former, old.vdi.ID)
	d.mu.Unlock()
	d.grow(size)
	if !d.head.CompareAndSwap(old, h) {
		h.stop()
		return ErrDiskClosed
	}
	old.stop()
	return nil
}

// inherits fails if the content of h is known not to come from old: it was rolled
// back, or it is a new VDI of the same name.
func (d *Disk) inherits(ctx context.Context, h, old *head) error {
	if h.vdi.BlockShift != old.vdi.BlockShift {
		return fmt.Errorf("%w: the VDI was replaced", sheep.ErrNoVDI)
	}
	v := h.vdi
	for range sheep.MaxVDIs {
		if v.Parent == old.vdi.ID {
			return nil
		}
		if v.Parent == 0 || v.SnapID <= old.vdi.SnapID && v.Name == old.vdi.Name {
			return fmt.Errorf("%w: the VDI was replaced", sheep.ErrNoVDI)
		}
		inode, err := ReadHeader(ctx, d.host, sheep.VDI{ID: v.Parent, Policy: v.Policy, BlockShift: v.BlockShift})
		switch {
		case errors.Is(err, sheep.ErrNoObject) || err == nil && inode.Name == "":
			return nil // deleted since, it may have come from old
		case err != nil:
			return err
		}
		v = sheep.VDI{ID: inode.VDI, Name: inode.Name, SnapID: inode.SnapID, Parent: inode.Parent, Policy: v.Policy, BlockShift: v.BlockShift}
	}
	return nil
}

// grow makes the disk size bytes large unless it is larger.
func (d *Disk) grow(size uint64) {
	for {
		old := d.size.Load()
		if size <= old || d.size.CompareAndSwap(old, size) {
			return
		}
	}
}
