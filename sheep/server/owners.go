package server

import (
	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// What a gateway forwards to the owner of a VDI is answered here or refused as
// "not owner", never forwarded again.

// ownerRequest returns what a request of another gateway names. It answers the
// request itself if that fails.
func (d *Daemon) ownerRequest(r *Request) (proto.PeerBody, sheep.Ref, bool) {
	b, ref, err := d.peerRef(r)
	if err == nil && d.Owner == nil {
		err = sheep.ErrNotOwner
	}
	if err != nil {
		d.fail(r, err)
		return b, ref, false
	}
	return b, ref, true
}

// ownerRead serves OWNER_READ.
func (d *Daemon) ownerRead(r *Request) {
	b, ref, ok := d.ownerRequest(r)
	if !ok {
		return
	}
	p := r.Room(int(b.Len))
	err := d.Owner.Read(r.Ctx, ref, p, b.Off)
	if err == nil {
		err = d.Cluster.Lease()
	}
	d.peerReply(r, err, p)
}

// ownerWrite serves OWNER_WRITE.
func (d *Daemon) ownerWrite(r *Request) {
	b, ref, ok := d.ownerRequest(r)
	if !ok {
		return
	}
	data := r.Data
	var from *sheep.Ref
	if b.Bits&proto.PeerCOW != 0 {
		c, err := proto.DecodeCOWPrefix(data)
		if err == nil {
			r.scratch.ref, err = c.Ref()
		}
		if err != nil {
			d.fail(r, err)
			return
		}
		from, data = &r.scratch.ref, data[proto.COWPrefixSize:]
	}
	w := &r.scratch.write
	err := writeOf(b, data, w)
	if err == nil {
		w.From = from
		err = d.Owner.Write(r.Ctx, ref, w)
	}
	d.peerReply(r, err)
}

// ownerRemove serves OWNER_REMOVE.
func (d *Daemon) ownerRemove(r *Request) {
	if _, ref, ok := d.ownerRequest(r); ok {
		d.peerReply(r, d.Owner.Remove(r.Ctx, ref))
	}
}

// ownerFlush serves OWNER_FLUSH.
func (d *Daemon) ownerFlush(r *Request) {
	if d.Owner == nil {
		d.fail(r, sheep.ErrNotOwner)
		return
	}
	d.peerReply(r, d.Owner.Flush(r.Ctx, proto.DecodePeerBody(r.Header.Body).ID.VDI()))
}

// ownerDecref serves OWNER_DECREF.
func (d *Daemon) ownerDecref(r *Request) {
	if b, ref, ok := d.ownerRequest(r); ok {
		d.peerReply(r, d.Owner.Decref(r.Ctx, ref, b.Off, b.Len))
	}
}
