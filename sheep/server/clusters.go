package server

import (
	"errors"
	"fmt"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
)

// storeNames are the store layouts that a cluster can be formatted with, as
// GET_STORE_LIST tells them.
const storeNames = "plain \x00"

// defaultCopies is what a format without a number of copies means.
const defaultCopies = 3

// makeFS serves MAKE_FS.
func (d *Daemon) makeFS(r *Request) {
	s, err := settings(proto.DecodeClusterBody(r.Header.Body), proto.Text(r.Data))
	if err == nil {
		err = d.Cluster.Format(r.Ctx, s)
	}
	d.finish(r, err)
}

// settings checks what a cluster is to be formatted with and fills in defaults.
func settings(b proto.ClusterBody, store string) (cluster.Settings, error) {
	if store != "plain" {
		return cluster.Settings{}, fmt.Errorf("store %q: %w", store, proto.ErrNoStore)
	}
	if b.Flags&proto.ClusterDiskMode != 0 {
		return cluster.Settings{}, fmt.Errorf("%w: vnodes per disk", sheep.ErrInvalid)
	}
	if b.Copies == 0 && b.CopyPolicy == 0 {
		b.Copies = defaultCopies
	}
	if b.BlockShift == 0 {
		b.BlockShift = sheep.DefaultBlockShift
	}
	if b.BlockShift < sheep.MinBlockShift || b.BlockShift > sheep.MaxBlockShift {
		return cluster.Settings{}, fmt.Errorf("%w: block size shift %d", sheep.ErrInvalid, b.BlockShift)
	}
	if b.Ctime == 0 {
		b.Ctime = proto.WireTime(time.Now())
	}
	policy, err := sheep.PolicyFromWire(b.Copies, b.CopyPolicy)
	if err != nil {
		return cluster.Settings{}, err
	}
	if policy.Erasure() {
		return cluster.Settings{}, fmt.Errorf("%w: erasure-coded VDIs (%v)", sheep.ErrNotSupported, policy)
	}
	s := cluster.Settings{Ctime: b.Ctime, BlockShift: b.BlockShift, Flags: uint16(b.Flags), Store: store}
	s.Copies, s.CopyPolicy = policy.Wire()
	return s, nil
}

// shutdown serves SHUTDOWN.
func (d *Daemon) shutdown(r *Request) { d.finish(r, d.Cluster.Shutdown(r.Ctx)) }

// enableRecover serves ENABLE_RECOVER.
func (d *Daemon) enableRecover(r *Request) { d.finish(r, d.Cluster.SetRecovery(r.Ctx, true)) }

// disableRecover serves DISABLE_RECOVER.
func (d *Daemon) disableRecover(r *Request) { d.finish(r, d.Cluster.SetRecovery(r.Ctx, false)) }

// forceRecover serves FORCE_RECOVER: the cluster goes on with the members that
// are present. It returns the nodes of the epoch before. If a majority is lost,
// the first request has all nodes begin anew, and another one is needed when
// they are members.
func (d *Daemon) forceRecover(r *Request) {
	v := d.Cluster.View()
	restart, err := d.Cluster.RecoverQuorum(r.Ctx)
	switch {
	case err == nil:
		r.Reply(proto.Response{})
		restart()
		return
	case !errors.Is(err, sheep.ErrNotSupported) && !errors.Is(err, cluster.ErrQuorum):
		d.fail(r, err)
		return
	case !errors.Is(v.Serving(), sheep.ErrWaitForJoin):
		d.fail(r, proto.ErrForceRecover)
		return
	case int(r.Header.Room()) < len(v.Nodes)*proto.NodeSize:
		invalid(d, r)
		return
	}
	if err := d.Cluster.ForceRecover(r.Ctx); err != nil {
		if errors.Is(err, sheep.ErrInvalid) {
			err = proto.ErrForceRecover
		}
		d.fail(r, err)
		return
	}
	r.Reply(proto.Response{}, proto.AppendNodes(nil, v.Nodes))
}

// getClusterDefault serves GET_CLUSTER_DEFAULT, all zero before the format.
func (d *Daemon) getClusterDefault(r *Request) {
	s := d.Cluster.View().Settings
	body := proto.ClusterDefaultReply{Copies: s.Copies, CopyPolicy: s.CopyPolicy, BlockShift: s.BlockShift}
	r.Reply(proto.Response{Body: body.Body()})
}

// clusterInfo serves CLUSTER_INFO; C would return all of it whatever was asked.
func (d *Daemon) clusterInfo(r *Request) {
	v := d.Cluster.View()
	info := proto.ClusterInfo{
		Version:          proto.InternalVersion,
		RecoveryDisabled: v.RecoveryDisabled,
		Epoch:            v.Epoch,
		Ctime:            v.Settings.Ctime,
		Flags:            d.clusterFlags(v),
		Copies:           v.Settings.Copies,
		CopyPolicy:       v.Settings.CopyPolicy,
		Status:           proto.Status(v.Status),
		BlockShift:       v.Settings.BlockShift,
		Store:            v.Settings.Store,
		Nodes:            v.Nodes,
	}
	n := min(int(r.Header.Room()), proto.ClusterInfoSize)
	b := info.Append(r.Room(proto.ClusterInfoSize)[:0])
	r.Reply(proto.Response{}, b[:n])
}

// clusterFlags returns the flags of the cluster, or before its format what this
// node's command line asks for: dog compares that with its own.
func (d *Daemon) clusterFlags(v *cluster.View) proto.ClusterFlags {
	if v.Settings.Ctime == 0 && !d.FixedVNodes {
		return proto.ClusterAutoVNodes
	}
	return proto.ClusterFlags(v.Settings.Flags)
}

// statCluster serves STAT_CLUSTER: the epochs, newest first, as many as fit.
// The result tells the cluster's state, also beside records.
func (d *Daemon) statCluster(r *Request) {
	v := d.Cluster.View()
	slots := int(min(proto.DecodeClusterBody(r.Header.Body).Nodes, proto.MaxNodes))
	size := proto.EpochRecordSize(slots)
	fit := min(int(r.Header.Room()), 16<<20) / size
	b := r.Room(size * min(fit, int(v.Epoch)))[:0]
	for e := v.Epoch; e > 0 && fit > 0; e-- {
		rec, ok := d.epochRecord(v, e)
		if !ok {
			continue
		}
		if slots > 0 && len(rec.Nodes) > slots {
			d.fail(r, sheep.ErrBufferSmall)
			return
		}
		if slots == 0 {
			rec.Time = time.Time{}
		}
		b = rec.Append(b, slots)
		fit--
	}
	r.Reply(proto.Response{Result: proto.ResultOf(v.Serving())}, b)
}

// epochRecord returns the record of epoch e; only the newest has the cluster's
// parameters.
func (d *Daemon) epochRecord(v *cluster.View, e sheep.Epoch) (proto.EpochRecord, bool) {
	rec := proto.EpochRecord{Epoch: e}
	if e == v.Epoch {
		rec.Ctime = v.Settings.Ctime
		rec.RecoveryDisabled = v.RecoveryDisabled
		rec.Copies, rec.CopyPolicy = v.Settings.Copies, v.Settings.CopyPolicy
		rec.Flags = proto.ClusterFlags(v.Settings.Flags)
		rec.Store = v.Settings.Store
		rec.Nodes, rec.Time = v.Nodes, v.EpochTime
		return rec, true
	}
	nodes, t, err := d.Store.Epoch(e)
	rec.Nodes, rec.Time = nodes, t
	return rec, err == nil
}
