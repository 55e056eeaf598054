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
func (d *Daemon) coherentRead(ctx context.Context, a *Access, n int) (refresh bool, err error) {
	if !a.TGT {
		return false, nil
	}
	state, shares := d.share(a.ID.VDI())
	if !shares {
		return false, nil
	}
	refresh = a.ID.Kind() == sheep.KindInode && a.Off == 0 && n == refreshSize
	if state == sheep.ShareInvalidated && !refresh {
		return false, sheep.ErrInvalidated
	}
	return refresh && state != sheep.ShareShared, nil
}

// coherentWrite checks a write likewise, and before the map changes under the
// other participants it tells them so.
func (d *Daemon) coherentWrite(ctx context.Context, a *Access) error {
	mapWrite := isMapWrite(a)
	if !a.TGT && !mapWrite {
		return nil
	}
	state, shares := d.share(a.ID.VDI())
	switch {
	case !shares:
		return nil
	case a.TGT && state == sheep.ShareInvalidated:
		return sheep.ErrInvalidated
	case mapWrite && state != sheep.ShareModified:
		return d.Cluster.Coherence(ctx, a.ID.VDI(), false)
	}
	return nil
}

// isMapWrite reports whether a changes slots of an inode's map and nothing else.
func isMapWrite(a *Access) bool {
	return a.ID.Kind() == sheep.KindInode && !a.Create && len(a.Data) > 0 &&
		a.Off >= proto.MapOffset && uint64(a.Off)+uint64(len(a.Data)) <= proto.MapEnd
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
