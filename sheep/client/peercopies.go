package client

import (
	"context"
	"fmt"
	"net/netip"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// Copy returns what to says of its copy of the object, which it reads for that.
func (p *Peers) Copy(ctx context.Context, to Peer, id sheep.ObjectID) (proto.CopyReport, error) {
	data, err := p.admin(ctx, to, proto.OpGetCopy, proto.ObjectBody{ID: id}.Body(), make([]byte, proto.CopyReportSize))
	if err != nil {
		return proto.CopyReport{}, fmt.Errorf("copy of object %v at %v: %w", id, to.Node, err)
	}
	return proto.DecodeCopyReport(data)
}

// Missing returns those of ids that to does not store.
func (p *Peers) Missing(ctx context.Context, to Peer, ids []sheep.ObjectID) ([]sheep.ObjectID, error) {
	conn, err := p.conn(ctx, to)
	if err != nil {
		return nil, err
	}
	sent := proto.AppendObjectIDs(nil, ids)
	h := proto.Header{Version: proto.InternalVersion, Op: proto.OpOIDsExist,
		Flags: proto.FlagWrite | proto.FlagPiggyback, DataLen: uint32(len(sent))}
	resp, data, err := conn.Do(ctx, h, sent, make([]byte, len(sent)))
	if err == nil && resp.Result == proto.ResultNoObject {
		return proto.DecodeObjectIDs(data)
	}
	return nil, outcome(resp, err, 0)
}

// Repair makes to replace its copy of the object by that of the node at from.
func (p *Peers) Repair(ctx context.Context, to Peer, id sheep.ObjectID, from netip.AddrPort) error {
	_, err := p.admin(ctx, to, proto.OpRepairReplica, proto.ForwBody{ID: id, From: from}.Body(), nil)
	if err != nil {
		return fmt.Errorf("repair object %v at %v: %w", id, to.Node, err)
	}
	return nil
}

// admin sends a request of administration to the life of the daemon that is meant.
func (p *Peers) admin(ctx context.Context, to Peer, op proto.Opcode, body [32]byte, into []byte) ([]byte, error) {
	conn, err := p.conn(ctx, to)
	if err != nil {
		return nil, err
	}
	resp, data, err := conn.Do(ctx, proto.Header{Version: op.Version(), Op: op, Body: body}, nil, into)
	return data, outcome(resp, err, 0)
}
