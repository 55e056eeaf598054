package remote

import (
	"context"
	"slices"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// The room for the status of VDIs: at first, and at most.
const (
	minStatusRoom = 1 << 20
	maxStatusRoom = 64 << 20
)

// Statuses returns what the cluster's log says of its VDIs: of those that have an
// owner, a lock or a deadline of their own.
func (c *Cluster) Statuses(ctx context.Context) (proto.VDIStatusList, error) {
	return c.statuses(ctx, 0)
}

// Status is Statuses of one VDI.
func (c *Cluster) Status(ctx context.Context, vdi sheep.VDIID) (proto.VDIStatus, error) {
	list, err := c.statuses(ctx, sheep.InodeObject(vdi))
	if err != nil {
		return proto.VDIStatus{}, err
	}
	i := slices.IndexFunc(list.VDIs, func(s proto.VDIStatus) bool { return s.VDI == vdi })
	if i < 0 {
		return proto.VDIStatus{}, sheep.ErrNoVDI
	}
	return list.VDIs[i], nil
}

func (c *Cluster) statuses(ctx context.Context, of sheep.ObjectID) (proto.VDIStatusList, error) {
	for room := minStatusRoom; ; room *= 4 {
		_, data, err := c.Do(ctx, Request{
			Op: proto.OpGetVDIStatus, Body: proto.ObjectBody{ID: of}.Body(), Into: make([]byte, room),
		})
		switch {
		case Result(err) == proto.ResultBufferSmall && room < maxStatusRoom:
			continue
		case err != nil:
			return proto.VDIStatusList{}, err
		}
		return proto.DecodeVDIStatusList(data)
	}
}

// SetDeadline sets how long clients of the VDI, or with 0 of the cluster, wait for
// a request: 0 is for ever, and proto.AsCluster, of a VDI, what the cluster says.
func (c *Cluster) SetDeadline(ctx context.Context, vdi sheep.VDIID, d time.Duration) error {
	_, _, err := c.Do(ctx, Request{Op: proto.OpSetDeadline, Data: proto.DeadlineOrder{VDI: vdi, Deadline: d}.Append(nil)})
	return err
}
