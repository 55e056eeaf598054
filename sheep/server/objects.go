package server

import (
	"context"
	"errors"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// scratch is what the handlers keep in a request while it is served, so that
// serving it allocates nothing.
type scratch struct {
	from   sheep.Ref
	write  sheep.Write
	done   func(error) // of a peer write; made once per Request
	daemon *Daemon
}

// deferrable reports whether the client will flush what it writes: it has said
// so and has not asked for more.
func deferrable(f proto.Flags) bool {
	return f&(proto.FlagCache|proto.FlagDirect|proto.FlagTGT) == proto.FlagCache
}

// readObj serves READ_OBJ: all of the length, or an error and nothing.
func (d *Daemon) readObj(r *Request) {
	b := proto.DecodeObjectBody(r.Header.Body)
	n := int(r.Header.Room())
	d.stats.gatewayRead(n)
	defer d.stats.gatewayDone()
	refresh, err := d.coherentRead(r.Header.Flags, b, n)
	if err != nil {
		d.fail(r, err)
		return
	}
	p := r.Room(n)
	err = d.readLeased(r.Ctx, b.ID.VDI(), func() error { return d.Guard.Read(r.Ctx, sheep.Ref{ID: b.ID}, p, b.Off) })
	if err == nil && refresh {
		err = d.Cluster.Coherence(r.Ctx, b.ID.VDI(), true)
	}
	switch {
	case errors.Is(err, errNoLease):
		r.Drop() // the client asks again, another node if this one has gone
	case err != nil:
		d.fail(r, err)
	default:
		r.Reply(proto.Response{}, p)
	}
}

// writeObj serves WRITE_OBJ and CREATE_AND_WRITE_OBJ.
func (d *Daemon) writeObj(r *Request) {
	b := proto.DecodeObjectBody(r.Header.Body)
	w := &r.scratch.write
	*w = sheep.Write{
		Off:     b.Off,
		Data:    r.Data,
		Create:  r.Header.Op == proto.OpCreateAndWriteObj,
		Durable: !deferrable(r.Header.Flags) || b.ID.Metadata(),
	}
	if w.Create && r.Header.Flags&proto.FlagCOW != 0 {
		r.scratch.from = sheep.Ref{ID: b.COW}
		w.From = &r.scratch.from
	}
	d.stats.gatewayWrite(len(r.Data))
	defer d.stats.gatewayDone()
	err := d.coherentWrite(r.Ctx, r.Header.Flags, b.ID, w)
	if err == nil {
		if !w.Durable {
			r.Session.Deferred(b.ID.VDI())
		}
		err = d.Guard.Write(r.Ctx, sheep.Ref{ID: b.ID}, w)
	}
	d.finish(r, err)
}

// removeObj serves REMOVE_OBJ. The links below remove what is not there without
// a word, so that a removal can be repeated; the client is told.
func (d *Daemon) removeObj(r *Request) {
	d.stats.gatewayRemove()
	defer d.stats.gatewayDone()
	ref := sheep.Ref{ID: proto.DecodeObjectBody(r.Header.Body).ID}
	err := d.Guard.Read(r.Ctx, ref, make([]byte, 1), 0)
	if err == nil {
		err = d.Guard.Remove(r.Ctx, ref)
	}
	d.finish(r, err)
}

// discardObj serves DISCARD_OBJ.
func (d *Daemon) discardObj(r *Request) {
	id := proto.DecodeObjectBody(r.Header.Body).ID
	if id.Kind() != sheep.KindData {
		invalid(d, r)
		return
	}
	err := d.announceMapWrite(r.Ctx, id.VDI())
	if err == nil {
		err = d.Guard.Discard(r.Ctx, id)
	}
	d.finish(r, err)
}

// decrefObj serves DECREF_OBJ, which only C's sheep send to each other.
func (d *Daemon) decrefObj(r *Request) {
	b := proto.DecodeRefBody(r.Header.Body)
	d.finish(r, d.Guard.Decref(r.Ctx, b.ID, b.Generation, b.Count))
}

// flushVDI serves FLUSH_VDI. C's "no need to flush" would be a lie here.
func (d *Daemon) flushVDI(r *Request) {
	d.stats.gatewayFlush()
	vdi := proto.DecodeObjectBody(r.Header.Body).ID.VDI()
	d.flushed(r, d.flush(r.Ctx, r.Session, vdi))
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

// flushed answers a request with what has come of its flush.
func (d *Daemon) flushed(r *Request, err error) {
	if errors.Is(err, sheep.ErrLostWrites) {
		r.Once(err)
	}
	d.finish(r, err)
}
