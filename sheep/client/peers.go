package client

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A Peer names another daemon: where it is and which life of it is meant.
type Peer struct {
	Node        sheep.Node
	Incarnation sheep.Incarnation // 0 for any
}

func (p Peer) addr() netip.AddrPort {
	if p.Node.IOAddr.IsValid() {
		return p.Node.IOAddr
	}
	return p.Node.Addr
}

// Peers speaks the peer wire with the daemons of a Pool. Its errors match the
// sentinels of package sheep; whatever breaks a connection is sheep.ErrNetwork,
// and a node that is at another epoch answers with a *sheep.StaleEpochError.
type Peers struct {
	pool   *Pool
	writes sync.Pool // of *writeCall
}

// NewPeers returns Peers over pool.
func NewPeers(pool *Pool) *Peers { return &Peers{pool: pool} }

// Forget breaks off what is under way with a node that has left.
func (p *Peers) Forget(n sheep.Node) { p.pool.Forget(Peer{Node: n}.addr()) }

// Read fills buf from offset off of to's copy of the object.
func (p *Peers) Read(ctx context.Context, to Peer, ref sheep.Ref, buf []byte, off uint32) error {
	return p.read(ctx, to, ref, buf, off, 0)
}

// ReadAny is Read of a copy that its node need not trust.
func (p *Peers) ReadAny(ctx context.Context, to Peer, ref sheep.Ref, buf []byte, off uint32) error {
	return p.read(ctx, to, ref, buf, off, proto.PeerRecovery)
}

func (p *Peers) read(ctx context.Context, to Peer, ref sheep.Ref, buf []byte, off uint32, bits proto.PeerBits) error {
	body := proto.PeerBodyOf(ref)
	body.Off, body.Len = off, uint32(len(buf))
	body.Bits |= bits
	data, err := p.do(ctx, to, proto.OpPeerRead, ref.Epoch, body, nil, buf)
	if err == nil && len(data) != len(buf) {
		err = fmt.Errorf("%w: %d of %d bytes read", ErrProtocol, len(data), len(buf))
	}
	if err != nil {
		return fmt.Errorf("read object %v from %v: %w", ref.ID, to.Node, err)
	}
	return nil
}

// StartWrite sends a write to to's copy of the object. done is called once with
// the outcome, on a goroutine that must not wait; w must not be touched before.
func (p *Peers) StartWrite(ctx context.Context, to Peer, ref sheep.Ref, w *sheep.Write, done func(error)) {
	conn, err := p.conn(ctx, to)
	if err != nil {
		done(fmt.Errorf("write object %v to %v: %w", ref.ID, to.Node, err))
		return
	}
	c := p.writeCall()
	c.to, c.id, c.epoch, c.done = to.Node, ref.ID, ref.Epoch, done
	c.payload[0] = w.Data
	payload := c.payload[:]
	if len(w.Data) == 0 {
		payload = nil
	}
	h := proto.Header{Version: proto.PeerVersion, Op: proto.OpPeerWrite, Flags: proto.FlagWrite, Epoch: ref.Epoch,
		Body: writeBody(ref, w).Body()}
	conn.Start(h, payload, nil, c.answer)
}

// A writeCall is a write on its way; it exists to be used again.
type writeCall struct {
	peers   *Peers
	to      sheep.Node
	id      sheep.ObjectID
	epoch   sheep.Epoch
	done    func(error)
	payload [1][]byte
	answer  func(proto.Response, []byte, error) // c.end, made once
}

func (p *Peers) writeCall() *writeCall {
	if c, ok := p.writes.Get().(*writeCall); ok {
		return c
	}
	c := &writeCall{peers: p}
	c.answer = c.end
	return c
}

func (c *writeCall) end(resp proto.Response, _ []byte, err error) {
	if err = outcome(resp, err, c.epoch); err != nil {
		err = fmt.Errorf("write object %v to %v: %w", c.id, c.to, err)
	}
	done := c.done
	c.done, c.payload[0] = nil, nil
	c.peers.writes.Put(c)
	done(err)
}

// writeBody returns the body of a peer or owner write. Where the write copies
// from another object its prefix is the caller's to send.
func writeBody(ref sheep.Ref, w *sheep.Write) proto.PeerBody {
	body := proto.PeerBodyOf(ref)
	body.Off = w.Off
	if w.Create {
		body.Bits |= proto.PeerCreate
	}
	if w.Durable {
		body.Bits |= proto.PeerDurable
	}
	if w.Zero != 0 {
		body.Bits |= proto.PeerZero
		body.Len = w.Zero
	}
	return body
}

// Remove removes to's copy of the object.
func (p *Peers) Remove(ctx context.Context, to Peer, ref sheep.Ref) error {
	_, err := p.do(ctx, to, proto.OpPeerRemove, ref.Epoch, proto.PeerBodyOf(ref), nil, nil)
	if err != nil {
		return fmt.Errorf("remove object %v from %v: %w", ref.ID, to.Node, err)
	}
	return nil
}

// Flush makes to's deferred writes to vdi durable.
func (p *Peers) Flush(ctx context.Context, to Peer, e sheep.Epoch, vdi sheep.VDIID) error {
	_, err := p.do(ctx, to, proto.OpPeerFlush, e, proto.PeerBody{ID: sheep.InodeObject(vdi)}, nil, nil)
	if err != nil {
		return fmt.Errorf("flush VDI %v on %v: %w", vdi, to.Node, err)
	}
	return nil
}

// Stat returns what to says of its copies of ids, in their order.
func (p *Peers) Stat(ctx context.Context, to Peer, e sheep.Epoch, ids []sheep.ObjectID) ([]proto.CopyState, error) {
	into := make([]byte, len(ids)*proto.CopyStateSize)
	data, err := p.do(ctx, to, proto.OpPeerStat, e, proto.PeerBody{}, proto.AppendObjectIDs(nil, ids), into)
	if err != nil {
		return nil, err
	}
	states, err := proto.DecodeCopyStates(data)
	if err == nil && len(states) != len(ids) {
		err = fmt.Errorf("%w: states of %d of %d objects", ErrProtocol, len(states), len(ids))
	}
	return states, err
}

// List returns the ids of at most limit objects that to stores, from from on.
func (p *Peers) List(ctx context.Context, to Peer, e sheep.Epoch, from sheep.ObjectID, limit int) ([]sheep.ObjectID, error) {
	into := make([]byte, limit*8)
	body := proto.PeerBody{ID: from, Len: uint32(limit)}
	data, err := p.do(ctx, to, proto.OpPeerList, e, body, nil, into)
	if err != nil {
		return nil, err
	}
	return proto.DecodeObjectIDs(data)
}

// Intents returns the objects that to's intent log names.
func (p *Peers) Intents(ctx context.Context, to Peer, e sheep.Epoch) ([]sheep.ObjectID, error) {
	data, err := p.do(ctx, to, proto.OpPeerIntents, e, proto.PeerBody{}, nil, make([]byte, maxIntents*8))
	if err != nil {
		return nil, err
	}
	return proto.DecodeObjectIDs(data)
}

// maxIntents bounds the intents of one node.
const maxIntents = 1 << 16

// Digest returns the SHA-1 of to's copy of the object, read afresh.
func (p *Peers) Digest(ctx context.Context, to Peer, e sheep.Epoch, id sheep.ObjectID) (sum [20]byte, err error) {
	conn, err := p.conn(ctx, to)
	if err != nil {
		return sum, err
	}
	h := proto.Header{Version: proto.PeerVersion, Op: proto.OpPeerDigest, Epoch: e, Body: proto.PeerBody{ID: id}.Body()}
	data := make([]byte, len(sum))
	resp, data, err := conn.Do(ctx, h, nil, data)
	if err := outcome(resp, err, e); err != nil {
		return sum, err
	}
	if copy(sum[:], data) != len(sum) {
		return sum, fmt.Errorf("%w: digest of %d bytes", ErrProtocol, len(data))
	}
	return sum, nil
}

// EpochNodes returns the members of epoch e and when it began.
func (p *Peers) EpochNodes(ctx context.Context, to Peer, e sheep.Epoch) ([]sheep.Node, time.Time, error) {
	conn, err := p.conn(ctx, to)
	if err != nil {
		return nil, time.Time{}, err
	}
	h := proto.Header{Version: proto.InternalVersion, Op: proto.OpGetEpoch,
		Body: proto.ObjectBody{TargetEpoch: e}.Body()}
	resp, data, err := conn.Do(ctx, h, nil, make([]byte, proto.MaxNodes*proto.NodeSize+8))
	if err := outcome(resp, err, e); err != nil {
		return nil, time.Time{}, err
	}
	if len(data) < 8 {
		return nil, time.Time{}, fmt.Errorf("%w: epoch record of %d bytes", ErrProtocol, len(data))
	}
	nodes, err := proto.DecodeNodes(data[:len(data)-8])
	return nodes, time.Unix(int64(binary.LittleEndian.Uint64(data[len(data)-8:])), 0), err
}

func (p *Peers) do(ctx context.Context, to Peer, op proto.Opcode, e sheep.Epoch, body proto.PeerBody, payload, into []byte) ([]byte, error) {
	conn, err := p.conn(ctx, to)
	if err != nil {
		return nil, err
	}
	h := proto.Header{Version: proto.PeerVersion, Op: op, Epoch: e, Body: body.Body()}
	resp, data, err := conn.Do(ctx, h, payload, into)
	return data, outcome(resp, err, e)
}

// conn returns the connection to the life of the daemon that is meant.
func (p *Peers) conn(ctx context.Context, to Peer) (*Conn, error) {
	conn, err := p.pool.Conn(ctx, to.addr())
	if err != nil {
		return nil, err
	}
	if inc := conn.Peer().Incarnation; to.Incarnation != 0 && inc != to.Incarnation {
		return nil, fmt.Errorf("%w: %v is now incarnation %v, not %v", sheep.ErrNetwork, to.Node, inc, to.Incarnation)
	}
	return conn, nil
}

// outcome turns an answer into an error.
func outcome(resp proto.Response, err error, sent sheep.Epoch) error {
	switch {
	case err != nil:
		return err
	case resp.Result == proto.ResultOldEpoch:
		return &sheep.StaleEpochError{Sent: sent, Current: resp.Epoch}
	}
	return resp.Result.Err()
}
