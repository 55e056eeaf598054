package main

import (
	"context"
	"fmt"
	"log/slog"

	"sheepdog/gateway"
	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/store"
	"sheepdog/sheep/vdi"
)

// Install acts on a new view of the cluster, in the order of its log. A new
// epoch is on the disk before anything is served in it; recovery judges by the
// new view before the replica lets requests of the new epoch in.
func (n *node) Install(v *cluster.View, epochChanged bool) error {
	if epochChanged && v.Epoch != 0 {
		if err := n.store.LogEpoch(v.Epoch, v.Nodes, v.EpochTime); err != nil {
			return fmt.Errorf("record epoch %d: %w", v.Epoch, err)
		}
	}
	if err := n.keep(v); err != nil {
		return err
	}
	if n.formatted {
		n.resetRecovery(v)
		n.formatted = false
	}
	n.recovery.Install(v)
	if v.Status == cluster.OK {
		n.replica.Install(v.Epoch)
	}
	n.forgetDeparted(v)
	n.view = v
	if epochChanged {
		n.log.Info("epoch", "epoch", v.Epoch, "status", v.Status, "nodes", len(v.Nodes))
	}
	return nil
}

// resetRecovery begins anew after a format. A cluster's first epoch is complete
// from the start; a node that came later has yet to fetch what it should hold.
func (n *node) resetRecovery(v *cluster.View) {
	if v.Epoch == 1 {
		n.recovery.Reset(1)
	} else {
		n.recovery.Reset(0)
	}
}

// keep keeps in the store what has changed about the cluster's settings and the
// state of its copies.
func (n *node) keep(v *cluster.View) error {
	conf := n.store.Config()
	if v.Settings.Ctime == 0 || conf.Ctime != v.Settings.Ctime {
		return nil
	}
	if healed, forced := n.store.Healed(); healed != v.HealedEpoch || forced != v.ForcedEpoch {
		if err := n.store.SetHealed(v.HealedEpoch, v.ForcedEpoch); err != nil {
			return err
		}
	}
	want := configOf(v.Settings, conf.Space)
	conf.Version = want.Version
	if conf == want {
		return nil
	}
	return n.store.SetConfig(want)
}

// forgetDeparted breaks off what is under way with members that have left, and
// has made durable what they may have had copies of.
func (n *node) forgetDeparted(v *cluster.View) {
	if n.view == nil {
		return
	}
	var departed bool
	for _, m := range n.view.Members {
		if _, ok := v.Member(m.Incarnation); !ok {
			n.pools.forget(m.Node)
			departed = true
		}
	}
	if departed && v.Status == cluster.OK {
		n.gateway.Secure()
	}
}

// Format wipes the store: the cluster was formatted, or this node has become
// part of one that was.
func (n *node) Format(s cluster.Settings) error {
	n.log.Warn("formatting the store", "copies", s.Copies, "store", s.Store)
	n.formatted = true
	return n.store.Format(configOf(s, n.self.Space))
}

func configOf(s cluster.Settings, space uint64) proto.StoreConfig {
	return proto.StoreConfig{
		Ctime: s.Ctime, Flags: proto.ClusterFlags(s.Flags), Copies: s.Copies, CopyPolicy: s.CopyPolicy,
		BlockShift: s.BlockShift, Store: s.Store, Space: space,
	}
}

// Ownership tells the gateway, and has the replica refuse the owners before.
func (n *node) Ownership(vid sheep.VDIID, old, now cluster.Ownership) {
	if !now.Draining && now.Generation != 0 {
		n.replica.Fence(vid, now.Generation)
	}
	n.disks.ownership(vid, now)
	n.gateway.Ownership(vid, old, now)
}

// Stop ends the node's life.
func (n *node) Stop(reason error) { n.stop(reason) }

// Execute runs a plan of the cluster's.
func (n *node) Execute(ctx context.Context, t *cluster.Turn) ([]byte, []cluster.VDIChange, error) {
	result, changes, err := n.ops.Execute(gateway.WithGrant(ctx, t), vdi.Task{
		Index: t.Index, Kind: t.Kind, Payload: t.Payload, Retry: t.Retry, Freeze: t.Freeze,
	})
	effects := make([]cluster.VDIChange, len(changes))
	for i, c := range changes {
		effects[i] = cluster.VDIChange{VDI: c.VDI, Drop: c.Drop}
	}
	return result, effects, err
}

// defaultPolicy is the redundancy of what belongs to no VDI.
func (n *node) defaultPolicy() sheep.Policy {
	s := n.cluster.View().Settings
	p, err := sheep.PolicyFromWire(s.Copies, s.CopyPolicy)
	if err != nil {
		return sheep.Replicated(1)
	}
	return p
}

// announce tells the cluster of a VDI whose inode a client has written itself.
func (n *node) announce(ctx context.Context, v sheep.VDI) error {
	return n.cluster.AddVDI(ctx, 0, v, true)
}

// readHistory returns what the store remembers of the cluster.
func readHistory(st *store.Store, log *slog.Logger) (cluster.History, error) {
	conf := st.Config()
	h := cluster.History{Settings: cluster.Settings{
		Ctime: conf.Ctime, Copies: conf.Copies, CopyPolicy: conf.CopyPolicy,
		BlockShift: conf.BlockShift, Flags: uint16(conf.Flags), Store: conf.Store,
	}}
	if conf.Ctime == 0 {
		return h, nil
	}
	h.Epoch = st.LatestEpoch()
	h.Healed, h.Forced = st.Healed()
	var err error
	if h.Nodes, h.Time, err = st.Epoch(h.Epoch); err != nil {
		return h, fmt.Errorf("read epoch %d: %w", h.Epoch, err)
	}
	h.VDIs, err = readVDIs(st, log)
	return h, err
}

// readVDIs returns the VDIs whose inodes the store has. A damaged copy tells
// nothing, and keeps nobody from starting: the others have theirs.
func readVDIs(st *store.Store, log *slog.Logger) ([]cluster.KnownVDI, error) {
	ids, err := st.IDs(0)
	if err != nil {
		return nil, err
	}
	var vdis []cluster.KnownVDI
	buf := make([]byte, proto.InodeHeaderSize)
	for _, id := range ids {
		if id.Kind() != sheep.KindInode {
			continue
		}
		info, err := st.Stat(id)
		if err == nil {
			err = st.Read(id, uint32(len(buf)), buf, 0)
		}
		var v sheep.VDI
		if err == nil {
			v, err = vdiOf(id, buf)
		}
		if err != nil {
			log.Error("a copy of an inode is damaged: dog cluster check repairs it", "oid", id, "err", err)
			continue
		}
		vdis = append(vdis, cluster.KnownVDI{VDI: v, Epoch: info.WriteEpoch})
	}
	return vdis, nil
}

func vdiOf(id sheep.ObjectID, header []byte) (sheep.VDI, error) {
	h, err := proto.DecodeInodeHeader(header)
	if err != nil {
		return sheep.VDI{}, err
	}
	policy, err := sheep.PolicyFromWire(h.Copies, h.CopyPolicy)
	if err != nil {
		return sheep.VDI{}, err
	}
	return sheep.VDI{
		ID: id.VDI(), Name: h.Name, SnapID: h.SnapID, Parent: h.Parent, Policy: policy, BlockShift: h.BlockShift,
		Hyper: h.StorePolicy != 0, Snapshot: h.SnapTime != 0, Deleted: h.Name == "",
	}, nil
}
