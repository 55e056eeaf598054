package client

import (
	"context"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// Owners sends requests to the gateways that own VDIs. A gateway that does not
// answers with an error that matches sheep.ErrNotOwner.
type Owners struct {
	pool *Pool
}

// NewOwners returns Owners over pool.
func NewOwners(pool *Pool) *Owners { return &Owners{pool: pool} }

// Forget breaks off what is under way with a node that has left.
func (o *Owners) Forget(n sheep.Node) { o.pool.Forget(n.Addr) }

// Read fills buf from offset off of the object.
func (o *Owners) Read(ctx context.Context, owner sheep.Node, ref sheep.Ref, buf []byte, off uint32) error {
	body := proto.PeerBodyOf(ref)
	body.Off, body.Len = off, uint32(len(buf))
	n, err := o.do(ctx, owner, proto.OpOwnerRead, body, nil, buf)
	if err == nil && n != len(buf) {
		err = fmt.Errorf("%w: %d of %d bytes read", ErrProtocol, n, len(buf))
	}
	if err != nil {
		return fmt.Errorf("read object %v through %v: %w", ref.ID, owner, err)
	}
	return nil
}

// Write changes the object.
func (o *Owners) Write(ctx context.Context, owner sheep.Node, ref sheep.Ref, w *sheep.Write) error {
	body := writeBody(ref, w)
	data := w.Data
	if w.From != nil {
		body.Bits |= proto.PeerCOW
		data = append(proto.COWPrefixOf(*w.From).Append(nil), w.Data...)
	}
	if _, err := o.do(ctx, owner, proto.OpOwnerWrite, body, data, nil); err != nil {
		return fmt.Errorf("write object %v through %v: %w", ref.ID, owner, err)
	}
	return nil
}

// Remove removes the object.
func (o *Owners) Remove(ctx context.Context, owner sheep.Node, ref sheep.Ref) error {
	if _, err := o.do(ctx, owner, proto.OpOwnerRemove, proto.PeerBodyOf(ref), nil, nil); err != nil {
		return fmt.Errorf("remove object %v through %v: %w", ref.ID, owner, err)
	}
	return nil
}

// Flush makes the deferred writes to vdi durable.
func (o *Owners) Flush(ctx context.Context, owner sheep.Node, vdi sheep.VDIID) error {
	if _, err := o.do(ctx, owner, proto.OpOwnerFlush, proto.PeerBody{ID: sheep.InodeObject(vdi)}, nil, nil); err != nil {
		return fmt.Errorf("flush VDI %v through %v: %w", vdi, owner, err)
	}
	return nil
}

// Decref drops a reference of the data object of ref.
func (o *Owners) Decref(ctx context.Context, owner sheep.Node, ref sheep.Ref, generation, count uint32) error {
	body := proto.PeerBodyOf(ref)
	body.Off, body.Len = generation, count
	if _, err := o.do(ctx, owner, proto.OpOwnerDecref, body, nil, nil); err != nil {
		return fmt.Errorf("drop a reference of object %v through %v: %w", ref.ID, owner, err)
	}
	return nil
}

func (o *Owners) do(ctx context.Context, owner sheep.Node, op proto.Opcode, body proto.PeerBody, payload, into []byte) (int, error) {
	conn, err := o.pool.Conn(ctx, owner.Addr)
	if err != nil {
		return 0, err
	}
	h := proto.Header{Version: proto.PeerVersion, Op: op, Body: body.Body()}
	if op == proto.OpOwnerWrite {
		h.Flags = proto.FlagWrite
	}
	resp, data, err := conn.Do(ctx, h, payload, into)
	return len(data), outcome(resp, err, 0)
}
