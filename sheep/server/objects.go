package server

import (
	"context"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// scratch is what the handlers keep in a request while it is served, so that
// serving it allocates nothing.
type scratch struct {
	access Access
	ref    sheep.Ref
	write  sheep.Write
	done   func(error) // of a peer write; made once per Request
	daemon *Daemon
}

// access turns the request into what the Guard understands.
func (d *Daemon) access(r *Request) *Access {
	b := proto.DecodeObjectBody(r.Header.Body)
	f := r.Header.Flags
	r.scratch.access = Access{
		ID:      b.ID,
		Off:     b.Off,
		Data:    r.Data,
		Create:  r.Header.Op == proto.OpCreateAndWriteObj,
		Durable: f&proto.FlagCache == 0 || f&(proto.FlagDirect|proto.FlagTGT) != 0,
		TGT:     f&proto.FlagTGT != 0,
	}
	a := &r.scratch.access
	if a.Create && f&proto.FlagCOW != 0 {
		a.COW = b.COW
	}
	return a
}

// readObj serves READ_OBJ: all of the length, or an error and nothing.
func (d *Daemon) readObj(r *Request) {
	a := d.access(r)
	n := int(r.Header.Room())
	d.stats.gatewayRead(n)
	defer d.stats.gatewayDone()
	refresh, err := d.coherentRead(r.Ctx, a, n)
	if err != nil {
		d.fail(r, err)
		return
	}
	p := r.Room(n)
	if err := d.Guard.Read(r.Ctx, a, p); err != nil {
		d.fail(r, err)
		return
	}
	if refresh {
		if err := d.Cluster.Coherence(r.Ctx, a.ID.VDI(), true); err != nil {
			d.fail(r, err)
			return
		}
	}
	if d.Cluster.Lease() != nil {
		r.Drop() // what was read may be old: the client asks another node
		return
	}
	r.Reply(proto.Response{}, p)
}

// writeObj serves WRITE_OBJ and CREATE_AND_WRITE_OBJ.
func (d *Daemon) writeObj(r *Request) {
	a := d.access(r)
	d.stats.gatewayWrite(len(a.Data))
	defer d.stats.gatewayDone()
	err := d.coherentWrite(r.Ctx, a)
	if err == nil {
		if !a.Durable && !a.ID.Metadata() {
			r.Session.Deferred(a.ID.VDI())
		}
		err = d.Guard.Write(r.Ctx, a)
	}
	d.finish(r, err)
}

// removeObj serves REMOVE_OBJ.
func (d *Daemon) removeObj(r *Request) {
	d.stats.gatewayRemove()
	defer d.stats.gatewayDone()
	d.finish(r, d.Guard.Remove(r.Ctx, d.access(r)))
}

// discardObj serves DISCARD_OBJ.
func (d *Daemon) discardObj(r *Request) {
	a := d.access(r)
	if a.ID.Kind() != sheep.KindData {
		invalid(d, r)
		return
	}
	d.finish(r, d.Guard.Discard(r.Ctx, a.ID))
}

// flushVDI serves FLUSH_VDI. C's "no need to flush" would be a lie here.
func (d *Daemon) flushVDI(r *Request) {
	d.stats.gatewayFlush()
	vdi := proto.DecodeObjectBody(r.Header.Body).ID.VDI()
	d.finish(r, d.flush(r.Ctx, r.Session, vdi))
}

// flush makes what was written to vdi durable, by whomever.
func (d *Daemon) flush(ctx context.Context, s *Session, vdi sheep.VDIID) error {
	s.Flushing(vdi)
	err := d.Guard.Flush(ctx, vdi)
	if err != nil {
		s.Deferred(vdi)
	}
	return err
}
