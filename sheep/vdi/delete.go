package vdi

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// executeDelete runs PlanDelete.
func (o *Operations) executeDelete(ctx context.Context, t Task, p deletePlan) (made, []Change, error) {
	s := search{o: o, query: p.query, missing: true}
	v, err := s.run(ctx)
	if err != nil {
		return made{}, nil, err
	}
	if err := o.checkLock(v, p.Requester); err != nil {
		return made{}, nil, err
	}
	if err := t.Freeze(ctx, v.ID); err != nil {
		return made{}, nil, err
	}
	d := deletion{guard: o.guard, next: o.next, vdi: v}
	if err := d.run(ctx); err != nil {
		return made{}, nil, fmt.Errorf("delete VDI %v of %q: %w", v.ID, p.Name, err)
	}
	v.Name, v.Deleted = "", true
	changes := []Change{{VDI: v}}
	if o.dir.Defaults().Recycle {
		if changes, err = o.recycle(ctx, v); err != nil {
			return made{}, nil, err
		}
	}
	return made{VDI: v.ID}, changes, nil
}

// checkLock refuses to delete what another gateway has locked. In clusters
// without locks nothing is ever locked.
func (o *Operations) checkLock(v sheep.VDI, requester string) error {
	if o.cfg.DeleteLocked == DeleteAnyLocked {
		return nil
	}
	foreign := func(n sheep.Node) bool { return n.Addr.String() != requester }
	lock := o.dir.LockOf(v.ID)
	switch lock.State {
	case sheep.Exclusive:
		if !foreign(lock.Owner) {
			return nil
		}
	case sheep.Shared:
		if !slices.ContainsFunc(lock.Participants, func(p sheep.Participant) bool { return foreign(p.Node) }) {
			return nil
		}
	default:
		return nil
	}
	return fmt.Errorf("VDI %v of %q: %w", v.ID, v.Name, sheep.ErrVDILocked)
}

// recycle returns the changes that follow the deletion of v where numbers are
// used again: when nobody of a family is left, its inodes are removed.
func (o *Operations) recycle(ctx context.Context, v sheep.VDI) ([]Change, error) {
	root := v
	for range sheep.MaxVDIs {
		parent, ok := o.dir.VDI(root.Parent)
		if !ok || root.Parent == 0 {
			break
		}
		root = parent
	}
	family := descendants(o.dir, root.ID)
	if slices.ContainsFunc(family, func(m sheep.VDI) bool { return !m.Deleted && m.ID != v.ID }) {
		return []Change{{VDI: v}}, nil
	}
	var changes []Change
	for _, m := range family {
		if err := ignoreMissing(o.next.Remove(ctx, Ref(m, sheep.InodeObject(m.ID)))); err != nil {
			return nil, err
		}
		m.Name, m.Deleted = "", true
		changes = append(changes, Change{VDI: m, Drop: true})
	}
	return changes, nil
}

// A deletion empties a VDI that its plan has frozen.
type deletion struct {
	guard *Guard
	next  Next
	vdi   sheep.VDI
}

// run takes away the name, then all else. Of the header the other fields stay.
func (d *deletion) run(ctx context.Context) error {
	header, err := ReadHeader(ctx, d.next, d.vdi)
	if errors.Is(err, sheep.ErrNoObject) {
		return nil // nothing is left but the entry of the table
	}
	if err != nil {
		return err
	}
	if !header.Deleted() {
		if err := d.clear(ctx, nameField, proto.LabelSize); err != nil {
			return err
		}
	}
	if err := d.removeVMState(ctx, header.VMStateSize); err != nil {
		return err
	}
	if d.vdi.Hyper {
		if err = d.removeTree(ctx); errors.Is(err, errDamaged) {
			d.guard.cfg.Log.Warn("the map of a hyper volume cannot be read, its objects leak", "vdi", d.vdi.ID, "err", err)
			err = nil
		}
	} else {
		err = ReadMap(ctx, d.next, d.vdi, 0, proto.MaxMapEntries, func(page MapPage) error {
			for from := 0; from < page.Len(); from += chunkSlots {
				if err := d.releaseSlots(ctx, page, from, min(from+chunkSlots, page.Len())); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		return err
	}
	if err := d.clear(ctx, proto.MapOffset, sheep.InodeSize-proto.MapOffset); err != nil {
		return err
	}
	return write(ctx, d.next, d.vdi, sizeField, make([]byte, 8))
}

// clear zeroes n bytes of the inode.
func (d *deletion) clear(ctx context.Context, off, n uint32) error {
	err := d.next.Write(ctx, d.inode(), &sheep.Write{Off: off, Zero: n, Durable: true})
	if err != nil {
		return fmt.Errorf("clear inode of VDI %v: %w", d.vdi.ID, err)
	}
	return nil
}

func (d *deletion) inode() sheep.Ref { return Ref(d.vdi, sheep.InodeObject(d.vdi.ID)) }

// releaseSlots releases what the slots [from, to) of page name: it marks their
// references, releases the objects and clears the slots, each when the one
// before is durable.
func (d *deletion) releaseSlots(ctx context.Context, page MapPage, from, to int) error {
	slots := page.raw[from*proto.MapEntrySize : to*proto.MapEntrySize]
	if isZero(slots) {
		return nil
	}
	first := page.First + uint32(from)
	grefs := make([]byte, (to-from)*proto.GRefSize)
	if err := d.next.Read(ctx, d.inode(), grefs, grefOffset(first)); err != nil {
		return err
	}
	var drops []drop
	for i := range to - from {
		owner := page.Owner(from + i)
		if owner == 0 {
			continue
		}
		r := grefAt(grefs, i)
		drops = append(drops, drop{owner: owner, index: first + uint32(i), ref: r})
		putGref(grefs, i, gref{generation: r.generation | released, count: r.count})
	}
	if err := writeRuns(ctx, d.next, d.vdi, grefOffset(first), grefs); err != nil {
		return err
	}
	if err := inParallel(drops, removals, func(s drop) error { return d.release(ctx, s) }); err != nil {
		return err
	}
	clear(grefs)
	if err := d.clear(ctx, slotOffset(first), uint32(len(slots))); err != nil {
		return err
	}
	return d.clear(ctx, grefOffset(first), uint32(len(grefs)))
}

func (d *deletion) release(ctx context.Context, s drop) error {
	if _, ok := d.guard.table.VDI(s.owner); !ok {
		return nil // there is no telling what the slot means
	}
	if s.unshared(d.vdi) || s.owner == d.vdi.ID && !d.vdi.Snapshot && s.ref == (gref{generation: released}) {
		return ignoreMissing(d.next.Remove(ctx, Ref(d.vdi, s.id())))
	}
	return ignoreMissing(d.guard.release(ctx, s))
}

// removeVMState removes the pieces of the saved state of the VM. A savevm that
// was not finished leaves pieces that the size does not tell of; a client may
// also have written a size without having pieces.
func (d *deletion) removeVMState(ctx context.Context, size uint64) error {
	const patience = 16 << 10
	known := min(size>>d.vdi.BlockShift+1, maxVMStatePart)
	missing := uint64(0)
	for i := uint64(0); i < maxVMStatePart && missing < patience; i++ {
		err := d.next.Remove(ctx, Ref(d.vdi, sheep.VMStateObject(d.vdi.ID, uint32(i))))
		switch {
		case err == nil:
			missing = 0
		case ignoreMissing(err) != nil:
			return err
		case i >= known:
			return nil
		default:
			missing++
		}
	}
	return nil
}

// removeTree removes the objects of a hyper volume, which were never shared. Its
// B-tree stays readable until the inode is cleared: a leaf goes when what it names
// is gone. A leaf that cannot be read is left, with what it names.
func (d *deletion) removeTree(ctx context.Context) error {
	tree := NewTree(d.next, d.vdi)
	root, err := tree.root(ctx)
	if err != nil {
		return err
	}
	if err := d.removeLeaf(ctx, root.Entries); err != nil {
		return err
	}
	end := root.counter // of the numbers of nodes
	known := make(map[uint32]bool)
	for _, child := range root.Children {
		end = max(end, child.ID.Index()+1)
		known[child.ID.Index()] = true
		entries, err := tree.leaf(ctx, child.ID)
		if errors.Is(err, errDamaged) {
			d.guard.cfg.Log.Warn("a part of the map of a hyper volume cannot be read, its objects leak", "vdi", d.vdi.ID, "err", err)
			continue
		}
		if err == nil {
			err = d.removeLeaf(ctx, entries)
		}
		if err == nil {
			err = d.next.Remove(ctx, Ref(d.vdi, child.ID))
		}
		if ignoreMissing(err) != nil {
			return err
		}
	}
	return d.removeStray(ctx, end, known)
}

// removeStray removes the nodes with numbers below end that no root has named, which
// crashes have left. It does not believe that there are many numbers without node.
func (d *deletion) removeStray(ctx context.Context, end uint32, known map[uint32]bool) error {
	const patience = 16
	for i, missing := uint32(0), 0; i < end && missing < patience; i++ {
		if known[i] {
			continue
		}
		err := d.next.Remove(ctx, Ref(d.vdi, sheep.BTreeObject(d.vdi.ID, i)))
		switch {
		case errors.Is(err, sheep.ErrNoObject):
			missing++
		case err != nil:
			return err
		default:
			missing = 0
		}
	}
	return nil
}

func (d *deletion) removeLeaf(ctx context.Context, entries []proto.BTreeEntry) error {
	return inParallel(entries, removals, func(e proto.BTreeEntry) error {
		if e.VDI != d.vdi.ID {
			return nil
		}
		return ignoreMissing(d.next.Remove(ctx, Ref(d.vdi, sheep.DataObject(e.VDI, e.Index))))
	})
}
