package remote

import (
	"context"
	"encoding/binary"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// Healing returns how far the daemon at addr, or the entry, is from having all
// its copies, and what the cluster does about nodes that leave.
func (c *Cluster) Healing(ctx context.Context, addr string) (proto.Healing, error) {
	_, data, err := c.Do(ctx, Request{Op: proto.OpGetHealing, To: addr, Into: make([]byte, proto.HealingRoom)})
	if err != nil {
		return proto.Healing{}, err
	}
	return proto.DecodeHealing(data)
}

// SetHealDelay sets how long the copies of a node that has left are waited for.
func (c *Cluster) SetHealDelay(ctx context.Context, d time.Duration) error {
	_, _, err := c.Do(ctx, Request{Op: proto.OpSetHealDelay, Data: binary.LittleEndian.AppendUint64(nil, uint64(d))})
	return err
}

// Maintain has the departure of the node start no healing for d, which may be
// proto.Forever, or with 0 as ever.
func (c *Cluster) Maintain(ctx context.Context, n sheep.Node, d time.Duration) error {
	_, _, err := c.Do(ctx, Request{Op: proto.OpMaintainNode, Data: proto.NodeOrder{Node: n, Value: uint64(d)}.Append(nil)})
	return err
}

// Drain has the node hold nothing, or with undo what its weight says.
func (c *Cluster) Drain(ctx context.Context, n sheep.Node, undo bool) error {
	o := proto.NodeOrder{Node: n}
	if !undo {
		o.Value = 1
	}
	_, _, err := c.Do(ctx, Request{Op: proto.OpDrainNode, Data: o.Append(nil)})
	return err
}

// SetHealRate limits how many bytes a second the entry fetches in the
// background; 0 does not limit.
func (c *Cluster) SetHealRate(ctx context.Context, limit uint64) error {
	_, _, err := c.Do(ctx, Request{Op: proto.OpSetHealRate, Data: binary.LittleEndian.AppendUint64(nil, limit)})
	return err
}
