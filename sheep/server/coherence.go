package server

import (
	"context"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
)

// refreshSize is the length of the read by which a participant of a shared VDI
// learns its present inode.
const refreshSize = proto.MapEnd

// coherentRead checks a read of an iSCSI target against the state of its
// gateway's share of the VDI. It reports whether the read is the one that
// makes the share valid again.
func (d *Daemon) coherentRead(f proto.Flags, b proto.ObjectBody, n int) (refresh bool, err error) {
	if f&proto.FlagTGT == 0 {
		return false, nil
	}
	state, shares := d.share(b.ID.VDI())
	if !shares {
		return false, nil
	}
	refresh = b.ID == sheep.InodeObject(b.ID.VDI()) && b.Off == 0 && n == refreshSize
	if state == sheep.ShareInvalidated && !refresh {
		return false, sheep.ErrInvalidated
	}
	return refresh && state != sheep.ShareShared, nil
}

// coherentWrite checks a write likewise, and before the map changes under the
// other participants it tells them so.
func (d *Daemon) coherentWrite(ctx context.Context, f proto.Flags, id sheep.ObjectID, w *sheep.Write) error {
	if f&proto.FlagTGT != 0 {
		if state, _ := d.share(id.VDI()); state == sheep.ShareInvalidated {
			return sheep.ErrInvalidated
		}
	}
	if isMapWrite(id, w) {
		return d.announceMapWrite(ctx, id.VDI())
	}
	return nil
}

// announceMapWrite makes the other participants' inodes of a shared VDI stale.
func (d *Daemon) announceMapWrite(ctx context.Context, vdi sheep.VDIID) error {
	state, shares := d.share(vdi)
	if !shares || state == sheep.ShareModified {
		return nil
	}
	return d.Cluster.Coherence(ctx, vdi, false)
}

// isMapWrite reports whether w changes slots of an inode's map and nothing else.
func isMapWrite(id sheep.ObjectID, w *sheep.Write) bool {
	return id.Kind() == sheep.KindInode && !w.Create && w.Len() > 0 &&
		w.Off >= proto.MapOffset && uint64(w.Off)+uint64(w.Len()) <= proto.MapEnd
}

// share returns the state of this node's share of the lock of vdi.
func (d *Daemon) share(vdi sheep.VDIID) (sheep.ShareState, bool) {
	if d.Cluster.View().Settings.Flags&cluster.FlagLocks == 0 {
		return 0, false
	}
	for _, p := range d.Cluster.LockOf(vdi).Participants {
		if p.Node.Addr == d.Hello.Node.Addr {
			return p.State, true
		}
	}
	return 0, false
}
