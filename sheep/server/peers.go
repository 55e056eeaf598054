package server

import (
	"context"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/wire"
)

// planPeerRead reserves what a read by a peer returns, and lets recovery's
// reads pass those that may wait for it.
func planPeerRead(h *proto.Header, p *Plan) {
	b := proto.DecodePeerBody(h.Body)
	p.Room = int(b.Len)
	if b.Len > MaxIO || h.Flags&proto.FlagWrite != 0 {
		p.Room, p.Result = 0, proto.ResultInvalid
	}
	if b.Bits&proto.PeerRecovery != 0 {
		p.Class = ClassUrgent
	}
}

// planPeerWrite has small writes served by the reading goroutine: the replica
// does not wait, and many share one answering write.
func planPeerWrite(h *proto.Header, p *Plan) {
	p.Inline = h.Payload() < wire.LargePayload
}

// hello serves HELLO: both sides say who they are. A sheep of another cluster
// or of another version is turned away.
func (d *Daemon) hello(r *Request) {
	theirs, err := proto.DecodeHello(r.Data)
	mine := d.Hello
	mine.Ctime = d.Cluster.View().Settings.Ctime
	switch {
	case err != nil:
	case theirs.Version != proto.PeerVersion:
		err = fmt.Errorf("%w: peer speaks version %d", sheep.ErrVersion, theirs.Version)
	}
	if err != nil {
		d.fail(r, err)
		return
	}
	p := &peer{hello: theirs}
	if d.Owner != nil {
		p.owner = d.Owner(theirs.Incarnation)
	}
	if before := r.Session.peer.Swap(p); before == nil {
		r.conn.identify(sheep.Client{Kind: "node", Addr: theirs.Node.String()}) // HELLO is served by the reading goroutine
	}
	r.Reply(proto.Response{}, mine.Append(r.Room(proto.HelloSize)[:0]))
}

// peerRef returns what a peer's or gateway's request names. Without copies and
// policy the object is that of a peer that only looks at it.
func (d *Daemon) peerRef(r *Request) (proto.PeerBody, sheep.Ref, error) {
	b := proto.DecodePeerBody(r.Header.Body)
	if r.Header.Epoch == 0 && r.Header.Op < proto.OpOwnerRead {
		return b, sheep.Ref{}, fmt.Errorf("%w: %v outside of any epoch", sheep.ErrInvalid, r.Header.Op)
	}
	if b.Copies == 0 && b.CopyPolicy == 0 {
		return b, sheep.Ref{ID: b.ID, Size: b.Size, Generation: b.Generation, Epoch: r.Header.Epoch}, nil
	}
	ref, err := b.Ref(r.Header.Epoch)
	return b, ref, err
}

// peerReply answers a peer with data, or with the result that stands for err.
func (d *Daemon) peerReply(r *Request, err error, data ...[]byte) {
	if err != nil {
		d.fail(r, err)
		return
	}
	r.Reply(proto.Response{Body: proto.PeerReply{Incarnation: d.Hello.Incarnation}.Body()}, data...)
}

// peerRead serves PEER_READ.
func (d *Daemon) peerRead(r *Request) {
	b, ref, err := d.peerRef(r)
	d.stats.peerRead(int(b.Len))
	defer d.stats.peerDone()
	if err == nil && d.Replica == nil {
		err = sheep.ErrNoObject // a gateway has nothing
	}
	if err != nil {
		d.fail(r, err)
		return
	}
	p := r.Room(int(b.Len))
	if b.Bits&proto.PeerRecovery != 0 {
		err = d.Replica.ReadAny(r.Ctx, ref, p, b.Off)
	} else {
		err = d.Replica.Read(r.Ctx, ref, p, b.Off)
	}
	if err == nil {
		err = d.leased()
	}
	d.peerReply(r, err, p)
}

// peerWrite serves PEER_WRITE.
func (d *Daemon) peerWrite(r *Request) {
	b, ref, err := d.peerRef(r)
	d.stats.peerWrite(len(r.Data))
	if r.scratch.done == nil {
		r.scratch.done = r.peerWritten
	}
	r.scratch.daemon = d
	if err == nil {
		err = writeOf(b, r.Data, &r.scratch.write)
	}
	if err == nil && d.Replica == nil {
		err = sheep.ErrNotSupported
	}
	if err != nil {
		r.peerWritten(err)
		return
	}
	d.Replica.StartWrite(r.Ctx, ref, &r.scratch.write, r.scratch.done)
}

// peerWritten answers a PEER_WRITE.
func (r *Request) peerWritten(err error) {
	d := r.scratch.daemon
	d.stats.peerDone()
	d.peerReply(r, err)
}

// writeOf turns the body and data of a write into w. A write that would not
// end within the object is refused.
func writeOf(b proto.PeerBody, data []byte, w *sheep.Write) error {
	*w = sheep.Write{
		Off:     b.Off,
		Data:    data,
		Create:  b.Bits&proto.PeerCreate != 0,
		Durable: b.Bits&proto.PeerDurable != 0,
	}
	if b.Bits&proto.PeerZero != 0 {
		if len(data) > 0 {
			return fmt.Errorf("%w: zeroes with %d bytes of data", sheep.ErrInvalid, len(data))
		}
		w.Data, w.Zero = nil, b.Len
	}
	if uint64(w.Off)+uint64(w.Len()) > uint64(b.Size) {
		return fmt.Errorf("%w: write of %d bytes at %d of %v of %d bytes", sheep.ErrInvalid, w.Len(), w.Off, b.ID, b.Size)
	}
	return nil
}

// peerRemove serves PEER_REMOVE.
func (d *Daemon) peerRemove(r *Request) {
	_, ref, err := d.peerRef(r)
	d.stats.peerRemove()
	defer d.stats.peerDone()
	if err == nil && d.Replica != nil {
		err = d.Replica.Remove(r.Ctx, ref)
	}
	d.peerReply(r, err)
}

// peerFlush serves PEER_FLUSH.
func (d *Daemon) peerFlush(r *Request) {
	var err error
	if d.Replica != nil {
		err = d.Replica.Flush(r.Ctx, r.Header.Epoch, proto.DecodePeerBody(r.Header.Body).ID.VDI())
	}
	d.peerReply(r, err)
}

// peerStat serves PEER_STAT.
func (d *Daemon) peerStat(r *Request) {
	ids, err := proto.DecodeObjectIDs(r.Data)
	var states []proto.CopyState
	if err == nil {
		states, err = d.copies().States(r.Ctx, r.Header.Epoch, ids)
	}
	if err != nil {
		d.fail(r, err)
		return
	}
	b := r.Room(len(states) * proto.CopyStateSize)[:0]
	for _, s := range states {
		b = s.Append(b)
	}
	d.peerReply(r, nil, b)
}

// peerList serves PEER_LIST.
func (d *Daemon) peerList(r *Request) {
	b := proto.DecodePeerBody(r.Header.Body)
	limit := int(min(b.Len, r.Header.DataLen/8, maxIDs))
	ids, err := d.copies().List(r.Ctx, r.Header.Epoch, b.ID, limit)
	d.peerReply(r, err, proto.AppendObjectIDs(nil, ids))
}

// peerIntents serves PEER_INTENTS.
func (d *Daemon) peerIntents(r *Request) {
	ids, err := d.copies().Intents(r.Ctx, r.Header.Epoch)
	if len(ids) > int(r.Header.DataLen/8) {
		err = sheep.ErrBufferSmall
	}
	d.peerReply(r, err, proto.AppendObjectIDs(nil, ids))
}

// peerDigest serves PEER_DIGEST.
func (d *Daemon) peerDigest(r *Request) {
	sum, err := d.copies().Digest(r.Ctx, r.Header.Epoch, proto.DecodePeerBody(r.Header.Body).ID)
	p := r.Room(len(sum))
	copy(p, sum[:])
	d.peerReply(r, err, p)
}

// copies returns what tells of this node's copies.
func (d *Daemon) copies() Copies {
	if d.Copies == nil {
		return none{}
	}
	return d.Copies
}

// none are the Copies of a gateway.
type none struct{}

func (none) States(_ context.Context, _ sheep.Epoch, ids []sheep.ObjectID) ([]proto.CopyState, error) {
	states := make([]proto.CopyState, len(ids))
	for i, id := range ids {
		states[i].ID = id
	}
	return states, nil
}

func (none) List(context.Context, sheep.Epoch, sheep.ObjectID, int) ([]sheep.ObjectID, error) {
	return nil, nil
}

func (none) Intents(context.Context, sheep.Epoch) ([]sheep.ObjectID, error) { return nil, nil }

func (none) Digest(context.Context, sheep.Epoch, sheep.ObjectID) (sum [20]byte, err error) {
	return sum, sheep.ErrNoObject
}

// readPeer serves C's READ_PEER, by which dog compares copies. C's other peer
// operations would change one copy behind the owner's back and are not served.
func (d *Daemon) readPeer(r *Request) {
	if d.Replica == nil {
		d.fail(r, sheep.ErrNoObject)
		return
	}
	b := proto.DecodeObjectBody(r.Header.Body)
	v, _ := d.Cluster.VDI(b.ID.VDI())
	ref := sheep.Ref{ID: b.ID, Policy: v.Policy, Size: b.ID.Size(v.BlockShift), Epoch: r.Header.Epoch}
	if ref.Epoch == 0 {
		ref.Epoch = d.Epoch()
	}
	p := r.Room(int(r.Header.Room()))
	d.stats.peerRead(len(p))
	defer d.stats.peerDone()
	if err := d.Replica.Read(r.Ctx, ref, p, b.Off); err != nil {
		d.fail(r, err)
		return
	}
	r.Reply(proto.Response{}, p)
}
