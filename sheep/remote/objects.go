package remote

import (
	"context"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// Read fills p from offset off of object id.
func (c *Cluster) Read(ctx context.Context, id sheep.ObjectID, p []byte, off uint32) error {
	_, data, err := c.Do(ctx, Request{
		Op:    proto.OpReadObj,
		Flags: proto.FlagDirect,
		Body:  proto.ObjectBody{ID: id, Off: off}.Body(),
		Into:  p,
	})
	if err != nil {
		return err
	}
	if len(data) != len(p) {
		return fmt.Errorf("%w: %d bytes of object %v instead of %d", sheep.ErrIO, len(data), id, len(p))
	}
	return nil
}

// Write writes p at offset off of object id, which must exist.
func (c *Cluster) Write(ctx context.Context, id sheep.ObjectID, p []byte, off uint32, flags proto.Flags) error {
	_, _, err := c.Do(ctx, Request{
		Op:    proto.OpWriteObj,
		Flags: proto.FlagWrite | cacheFlag(flags),
		Body:  proto.ObjectBody{ID: id, Off: off}.Body(),
		Data:  p,
	})
	return err
}

// Create makes object id, filled from object from if that is not zero, and
// writes p at offset off of it. An object that exists is replaced.
func (c *Cluster) Create(ctx context.Context, id, from sheep.ObjectID, p []byte, off uint32, flags proto.Flags) error {
	flags = proto.FlagWrite | cacheFlag(flags)
	if from != 0 {
		flags |= proto.FlagCOW
	}
	_, _, err := c.Do(ctx, Request{
		Op:    proto.OpCreateAndWriteObj,
		Flags: flags,
		Body:  proto.ObjectBody{ID: id, COW: from, Off: off}.Body(),
		Data:  p,
	})
	return err
}

// cacheFlag returns flags with the one that asks for write-through if they do
// not ask for write-back.
func cacheFlag(flags proto.Flags) proto.Flags {
	if flags.Has(proto.FlagCache) {
		return flags
	}
	return flags | proto.FlagDirect
}

// Flush makes the deferred writes to vdi durable. It reports whether the cluster
// defers writes at all; C's does not.
func (c *Cluster) Flush(ctx context.Context, vdi sheep.VDIID) (deferring bool, err error) {
	_, _, err = c.Do(ctx, Request{
		Op:    proto.OpFlushVDI,
		Flags: proto.FlagCache,
		Body:  proto.ObjectBody{ID: sheep.InodeObject(vdi)}.Body(),
	})
	if Result(err) == proto.ResultInvalid {
		return false, nil
	}
	return err == nil, err
}

// Exists reports whether node n stores object id.
func (c *Cluster) Exists(ctx context.Context, n sheep.Node, id sheep.ObjectID) (bool, error) {
	_, _, err := c.Do(ctx, Request{Op: proto.OpExist, To: Address(n), Body: proto.ObjectBody{ID: id}.Body()})
	if Result(err) == proto.ResultNoObject {
		return false, nil
	}
	return err == nil, err
}

// Missing returns those of ids that node n does not store.
func (c *Cluster) Missing(ctx context.Context, n sheep.Node, ids []sheep.ObjectID) ([]sheep.ObjectID, error) {
	sent := proto.AppendObjectIDs(nil, ids)
	_, data, err := c.Do(ctx, Request{
		Op: proto.OpOIDsExist, Flags: proto.FlagPiggyback, To: Address(n),
		Data: sent, Into: make([]byte, len(sent)),
	})
	if Result(err) == proto.ResultNoObject {
		return proto.DecodeObjectIDs(data)
	}
	return nil, err
}

// Remove removes all copies of object id. It does not ask who refers to it.
func (c *Cluster) Remove(ctx context.Context, id sheep.ObjectID) error {
	_, _, err := c.Do(ctx, Request{Op: proto.OpRemoveObj, Body: proto.ObjectBody{ID: id}.Body()})
	return err
}

// Stored returns what node n stores, in any order. For each object it takes
// eight bytes, and while the list arrives as much again.
func (c *Cluster) Stored(ctx context.Context, n sheep.Node, epoch sheep.Epoch) ([]sheep.ObjectID, error) {
	for room := firstListRoom; ; room *= 2 {
		_, data, err := c.Do(ctx, Request{
			Op: proto.OpGetObjList, To: Address(n), Epoch: epoch,
			Body: proto.ObjectBody{TargetEpoch: epoch}.Body(), Into: make([]byte, room),
		})
		if Result(err) == proto.ResultBufferSmall && room < maxListRoom {
			continue
		}
		if err != nil {
			return nil, err
		}
		return proto.DecodeObjectIDs(data)
	}
}

// The room for a list of objects at first, and at most.
const (
	firstListRoom = 64 << 10
	maxListRoom   = 1 << 30
)

// A Digest is the hash of a copy's content.
type Digest [20]byte

// Hash returns the digest of node n's copy of object id.
func (c *Cluster) Hash(ctx context.Context, n sheep.Node, id sheep.ObjectID, epoch sheep.Epoch) (Digest, error) {
	resp, _, err := c.Do(ctx, Request{
		Op: proto.OpGetHash, To: Address(n), Epoch: epoch,
		Body: proto.ObjectBody{ID: id, TargetEpoch: epoch}.Body(),
	})
	if err != nil {
		return Digest{}, err
	}
	return proto.DecodeHashReply(resp.Body).Digest, nil
}

// Repair makes node n replace its copy of object id by that of node from.
func (c *Cluster) Repair(ctx context.Context, n, from sheep.Node, id sheep.ObjectID, epoch sheep.Epoch) error {
	_, _, err := c.Do(ctx, Request{
		Op: proto.OpRepairReplica, To: Address(n), Epoch: epoch,
		Body: proto.ForwBody{ID: id, From: from.Addr}.Body(),
	})
	return err
}

// Copy returns what node n says of its copy of object id, whose content it reads
// for that. Of a daemon of C Sheepdog only the content is known, and that counts
// as current.
func (c *Cluster) Copy(ctx context.Context, n sheep.Node, id sheep.ObjectID, epoch sheep.Epoch) (proto.CopyReport, error) {
	_, data, err := c.Do(ctx, Request{
		Op: proto.OpGetCopy, To: Address(n), Epoch: epoch,
		Body: proto.ObjectBody{ID: id}.Body(), Into: make([]byte, proto.CopyReportSize),
	})
	switch Result(err) {
	case proto.ResultSuccess:
		if err != nil {
			return proto.CopyReport{}, err
		}
		return proto.DecodeCopyReport(data)
	case proto.ResultInvalid, proto.ResultSystemError: // by which C's sheep answers what it does not know
		return c.hashed(ctx, n, id, epoch)
	}
	return proto.CopyReport{}, err
}

// hashed is Copy for daemons that only tell the hash.
func (c *Cluster) hashed(ctx context.Context, n sheep.Node, id sheep.ObjectID, epoch sheep.Epoch) (proto.CopyReport, error) {
	r := proto.CopyReport{CopyState: proto.CopyState{ID: id, Bits: proto.CopyTrusted}}
	digest, err := c.Hash(ctx, n, id, epoch)
	switch Result(err) {
	case proto.ResultNoObject:
		return r, nil
	case proto.ResultIO:
		r.Bits |= proto.CopyExists
		r.Read = proto.ResultIO
		return r, nil
	}
	r.Bits |= proto.CopyExists
	r.Digest = digest
	return r, err
}
