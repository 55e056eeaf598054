package server

import (
	"context"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
)

// vdiReply answers a lookup or creation.
func (d *Daemon) vdiReply(r *Request, v sheep.VDI, err error) {
	if err != nil {
		d.fail(r, err)
		return
	}
	copies, _ := v.Policy.Wire()
	r.Reply(proto.Response{Body: proto.VDIReply{VDI: v.ID, Copies: copies, BlockShift: v.BlockShift}.Body()})
}

// newVDI serves NEW_VDI.
func (d *Daemon) newVDI(r *Request) {
	b := proto.DecodeVDIBody(r.Header.Body)
	if b.Copies != 0 && b.CopyPolicy != 0 { // below the server nothing writes strips yet
		d.fail(r, fmt.Errorf("%w: erasure-coded VDIs", sheep.ErrNotSupported))
		return
	}
	v, err := d.Operations.Create(r.Ctx, proto.Text(r.Data), b)
	d.vdiReply(r, v, err)
}

// delVDI serves DEL_VDI.
func (d *Daemon) delVDI(r *Request) {
	v, err := named(r, d.Operations.Delete)
	d.vdiReply(r, sheep.VDI{ID: v.ID}, err) // of what is gone only the number is told
}

// getVDIInfo serves GET_VDI_INFO.
func (d *Daemon) getVDIInfo(r *Request) {
	v, err := d.lookup(r)
	d.vdiReply(r, v, err)
}

func (d *Daemon) lookup(r *Request) (sheep.VDI, error) { return named(r, d.Operations.Lookup) }

// named calls fn with what names the VDI that a request is about.
func named(r *Request, fn func(ctx context.Context, name, tag string, snapID uint32) (sheep.VDI, error)) (sheep.VDI, error) {
	name, tag, err := proto.DecodeLookup(r.Data)
	if err != nil {
		return sheep.VDI{}, err
	}
	return fn(r.Ctx, name, tag, proto.DecodeVDIBody(r.Header.Body).SnapID)
}

// lockVDI serves LOCK_VDI: a lookup, and a lock if the cluster was formatted
// with locking. A client that has a disk for itself begins with it, so it need
// not hear of writes that were lost before.
func (d *Daemon) lockVDI(r *Request) {
	v, err := d.lookup(r)
	if err == nil && d.Cluster.View().Settings.Flags&cluster.FlagLocks != 0 {
		v, err = d.lock(r, v)
	}
	if doubt := d.Cluster.DoubtAbout(v.ID); err == nil && doubt.Since != 0 && proto.DecodeVDIBody(r.Header.Body).Type != proto.LockShared {
		err = d.Cluster.SettleDoubt(r.Ctx, v.ID, doubt)
	}
	d.vdiReply(r, v, err)
}

// lock locks v, or what has taken its place while it was being locked.
func (d *Daemon) lock(r *Request, v sheep.VDI) (sheep.VDI, error) {
	want, err := d.lockRequest(r)
	if err != nil {
		return v, err
	}
	for {
		if err := d.Cluster.Lock(r.Ctx, v.ID, want); err != nil {
			return v, err
		}
		now, err := d.lookup(r)
		if err == nil && now.ID == v.ID {
			return now, nil
		}
		if e := d.Cluster.Unlock(r.Ctx, v.ID, want.Shared, d.Hello.Node); e != nil {
			return v, e
		}
		if err != nil {
			return v, err
		}
		v = now
	}
}

// lockRequest returns what lock a client asks for.
func (d *Daemon) lockRequest(r *Request) (want cluster.LockRequest, err error) {
	want.Client, _ = sheep.ClientOf(r.Ctx)
	switch kind := proto.DecodeVDIBody(r.Header.Body).Type; kind {
	case proto.LockNormal:
	case proto.LockShared:
		want.Shared = true
	case proto.LockSession:
		want.Client.Kind = "sheepfs" // which alone asks for such
		want.Session = r.Session.number(d.Cluster.NewSession)
	default:
		err = fmt.Errorf("%w: lock type %d", sheep.ErrVDILocked, kind)
	}
	return want, err
}

// releaseVDI serves RELEASE_VDI: always success, except that deferred writes
// could not be made durable, which the client could learn in no other way.
func (d *Daemon) releaseVDI(r *Request) {
	b := proto.DecodeVDIBody(r.Header.Body)
	if b.Base == 0 || b.Base >= sheep.MaxVDIs {
		succeed(d, r)
		return
	}
	var flushed error
	if _, ok := d.Cluster.VDI(b.Base); ok {
		flushed = d.flush(r.Ctx, r.Session, b.Base)
	}
	if err := d.Cluster.Unlock(r.Ctx, b.Base, b.Type == proto.LockShared, d.Hello.Node); err != nil {
		d.fail(r, err)
		return
	}
	d.flushed(r, flushed)
}

// readVDIs serves READ_VDIS.
func (d *Daemon) readVDIs(r *Request) { d.bitmap(r, d.Cluster.UsedBitmap) }

// readDelVDIs serves READ_DEL_VDIS.
func (d *Daemon) readDelVDIs(r *Request) { d.bitmap(r, d.Cluster.DeletedBitmap) }

func (d *Daemon) bitmap(r *Request, bitmap func() []byte) {
	if r.Header.Room() != sheep.MaxVDIs/8 {
		invalid(d, r)
		return
	}
	r.Reply(proto.Response{}, bitmap())
}

// getVDICopies serves GET_VDI_COPIES.
func (d *Daemon) getVDICopies(r *Request) {
	vdis := d.Cluster.VDIs()
	if len(vdis)*proto.VDIStateSize > int(r.Header.Room()) {
		d.fail(r, sheep.ErrBufferSmall)
		return
	}
	b := r.Room(len(vdis) * proto.VDIStateSize)[:0]
	for _, v := range vdis {
		b = proto.VDIStateOf(v, d.Cluster.LockOf(v.ID)).Append(b)
	}
	r.Reply(proto.Response{}, b)
}

// notifyVDIAdd serves NOTIFY_VDI_ADD, by which dog restores cluster snapshots.
func (d *Daemon) notifyVDIAdd(r *Request) {
	b := proto.DecodeVDIStateBody(r.Header.Body)
	policy, err := sheep.PolicyFromWire(b.Copies, b.CopyPolicy)
	if err == nil && (b.New == 0 || b.New >= sheep.MaxVDIs || b.Old >= sheep.MaxVDIs) {
		err = fmt.Errorf("%w: VDI number %x", sheep.ErrInvalid, uint32(b.New))
	}
	if err == nil {
		v, _ := d.Cluster.VDI(b.New)
		v.ID, v.Parent, v.Policy, v.BlockShift = b.New, b.Old, policy, b.BlockShift
		err = d.Cluster.AddVDI(r.Ctx, b.Old, v, b.SetBitmap)
	}
	d.finish(r, err)
}

// inodeCoherence serves INODE_COHERENCE.
func (d *Daemon) inodeCoherence(r *Request) {
	b := proto.DecodeCoherenceBody(r.Header.Body)
	d.finish(r, d.Cluster.Coherence(r.Ctx, b.VDI, b.Validate))
}

// checkpointCtl serves VDI_STATE_CHECKPOINT_CTL: there are no checkpoints, the
// log tells joining nodes all.
func (d *Daemon) checkpointCtl(r *Request) {
	if proto.DecodeCheckpointBody(r.Header.Body).Get && d.Cluster.View().Settings.Flags&cluster.FlagLocks != 0 {
		d.fail(r, proto.ErrNoCheckpoint)
		return
	}
	succeed(d, r)
}
