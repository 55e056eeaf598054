package server

import (
	"context"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// What a gateway forwards to the owner of a VDI is answered here or refused as
// "not owner", never forwarded again.

// ownerServe answers a request of another gateway with the outcome of fn.
func (d *Daemon) ownerServe(r *Request, fn func(o Owner, b proto.PeerBody, ref sheep.Ref) error) {
	o, b, ref, err := d.forwarded(r)
	if err == nil {
		err = fn(o, b, ref)
	}
	d.peerReply(r, err)
}

// forwarded returns what serves a request that another gateway has forwarded, and
// what it names. Of one that is no member any more nothing is taken: its clients have
// gone elsewhere, and what it sent before arrives late.
func (d *Daemon) forwarded(r *Request) (Owner, proto.PeerBody, sheep.Ref, error) {
	b, ref, err := d.peerRef(r)
	p := r.Session.peer.Load()
	m, ok := d.Cluster.View().MemberAt(p.hello.Node)
	if err == nil && (!ok || m.Incarnation != p.hello.Incarnation || p.owner == nil) {
		err = sheep.ErrNotOwner
	}
	return p.owner, b, ref, err
}

// ownerRead serves OWNER_READ.
func (d *Daemon) ownerRead(r *Request) {
	o, b, ref, err := d.forwarded(r)
	var p []byte
	if err == nil {
		p = r.Room(int(b.Len))
		err = o.Read(r.Ctx, ref, p, b.Off)
	}
	if err == nil {
		err = d.leased()
	}
	d.peerReply(r, err, p)
}

// ownerWrite serves OWNER_WRITE.
func (d *Daemon) ownerWrite(r *Request) {
	d.ownerServe(r, func(o Owner, b proto.PeerBody, ref sheep.Ref) error {
		data := r.Data
		w := &r.scratch.write
		var from *sheep.Ref
		if b.Bits&proto.PeerCOW != 0 {
			c, err := proto.DecodeCOWPrefix(data)
			if err != nil {
				return err
			}
			if r.scratch.from, err = c.Ref(); err != nil {
				return err
			}
			from, data = &r.scratch.from, data[proto.COWPrefixSize:]
		}
		if err := writeOf(b, data, w); err != nil {
			return err
		}
		w.From = from
		return d.writeOwned(r.Ctx, o, ref, w)
	})
}

// writeOwned hands a write to who it is meant for: those to inodes to the
// Guard, which knows what they mean, others to the gateway.
func (d *Daemon) writeOwned(ctx context.Context, o Owner, ref sheep.Ref, w *sheep.Write) error {
	if ref.ID.Kind() == sheep.KindInode && !w.Create && w.Len() > 0 {
		return d.Guard.WriteOwned(ctx, ref, w)
	}
	return o.Write(ctx, ref, w)
}

// ownerRemove serves OWNER_REMOVE.
func (d *Daemon) ownerRemove(r *Request) {
	d.ownerServe(r, func(o Owner, _ proto.PeerBody, ref sheep.Ref) error {
		return o.Remove(r.Ctx, ref)
	})
}

// ownerFlush serves OWNER_FLUSH.
func (d *Daemon) ownerFlush(r *Request) {
	d.ownerServe(r, func(o Owner, b proto.PeerBody, _ sheep.Ref) error {
		return o.Flush(r.Ctx, b.ID.VDI())
	})
}

// ownerDecref serves OWNER_DECREF.
func (d *Daemon) ownerDecref(r *Request) {
	d.ownerServe(r, func(_ Owner, b proto.PeerBody, ref sheep.Ref) error {
		return d.Guard.DecrefOwned(r.Ctx, ref, b.Off, b.Len)
	})
}
