package main

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"sheepdog/cmd/internal/logging"
	"sheepdog/gateway/flight"
	"sheepdog/recovery"
	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/replica"
	"sheepdog/sheep/store"
	"sheepdog/sheep/vdi"
)

// The parts know of each other only what they need. The types of this file
// show one part as another wants to see it.

// directory shows the cluster to the operations on VDIs.
type directory struct{ *cluster.Cluster }

func (d directory) Defaults() vdi.Defaults {
	s := d.View().Settings
	return vdi.Defaults{
		Copies: s.Copies, CopyPolicy: s.CopyPolicy, BlockShift: s.BlockShift,
		Recycle: s.Flags&cluster.FlagRecycle != 0,
	}
}

// copies shows the replica's judgement of its copies on the wire.
type copies struct{ *replica.Replica }

func (c copies) States(ctx context.Context, e sheep.Epoch, ids []sheep.ObjectID) ([]proto.CopyState, error) {
	states, err := c.Replica.States(ctx, e, ids)
	if err != nil {
		return nil, err
	}
	out := make([]proto.CopyState, len(states))
	for i, s := range states {
		out[i] = proto.CopyState{ID: s.ID, WriteEpoch: s.Written, TrustedEpoch: s.Current, MemberEpoch: s.Member}
		for bit, on := range map[proto.CopyBits]bool{
			proto.CopyExists: s.Exists, proto.CopyTrusted: s.Trusted, proto.CopyIntent: s.Hot, proto.CopyBad: s.Bad,
			proto.CopyBusy: s.Busy,
		} {
			if on {
				out[i].Bits |= bit
			}
		}
	}
	return out, nil
}

// storeView shows the store to the server.
type storeView struct{ *store.Store }

func (s storeView) Room() (proto.SpaceReport, error) {
	r, err := s.Store.Room()
	return proto.SpaceReport{Size: r.Size, Free: r.Free, NearFull: r.NearFull, Reserve: r.Reserve}, err
}

// recoveryView shows the recovery to the server, in the units of the wire.
type recoveryView struct {
	r    *recovery.Recoverer
	view func() *cluster.View
}

func (v recoveryView) State() proto.RecoveryState {
	p := v.r.Progress()
	s := proto.RecoveryState{Active: p.Running, Finished: p.Finished, Total: p.Total}
	if p.Running {
		s.Phase = proto.RecoveryRunning
	}
	return s
}

func (v recoveryView) Throttle() proto.Throttle {
	t := v.r.Throttle()
	return proto.Throttle{
		Max: t.Max, Interval: uint64(t.Interval / time.Millisecond), On: t.Max > 0 && t.Interval > 0,
	}
}

func (v recoveryView) SetThrottle(t proto.Throttle) {
	v.r.SetThrottle(recovery.Throttle{Max: t.Max, Interval: t.Duration(), Rate: v.r.Throttle().Rate})
}

func (v recoveryView) SetRate(limit uint64) {
	t := v.r.Throttle()
	t.Rate = limit
	v.r.SetThrottle(t)
}

// Healing is the Recoverer's progress with what the log says of absences.
func (v recoveryView) Healing() proto.Healing {
	p, view := v.r.Progress(), v.view()
	h := proto.Healing{
		Epoch: view.Epoch, Finished: p.Finished, Total: p.Total, Left: p.Left, Objects: p.Objects, Bytes: p.Bytes,
		Rate: p.Rate, ETA: p.ETA, Later: p.Later, Delay: view.HealDelay, Throttle: v.Throttle(), Limit: v.r.Throttle().Rate,
	}
	for bit, on := range map[uint8]bool{
		proto.HealingActive: p.Running, proto.HealingDisabled: view.RecoveryDisabled, proto.HealingAll: view.Complete(),
	} {
		if on {
			h.Bits |= bit
		}
	}
	for _, a := range v.r.Awaited() {
		h.Absent = append(h.Absent, proto.AbsentNode{Node: a.Node, Since: a.Since.Unix(), Left: a.Left, Maintained: a.Maintained})
	}
	for _, m := range view.Maintenance {
		shown := proto.MaintainedNode{Node: sheep.Node{Addr: m.Addr}}
		if !m.Until.IsZero() {
			shown.Until = m.Until.Unix()
		}
		h.Maintained = append(h.Maintained, shown)
	}
	for _, addr := range view.Drained {
		h.Drained = append(h.Drained, sheep.Node{Addr: addr})
	}
	return h
}

func (v recoveryView) Waiting() proto.WaitingList {
	all := v.r.Waiting()
	list := proto.WaitingList{Total: uint32(len(all))}
	for _, w := range all[:min(len(all), proto.MaxWaiting)] {
		reason := strings.TrimSuffix(w.Err.Error(), ": "+sheep.ErrAgain.Error()) // which is for sheep
		list.Objects = append(list.Objects, proto.WaitingObject{ID: w.ID, Since: w.Since.Unix(), Reason: reason})
	}
	return list
}

func (v recoveryView) Repair(ctx context.Context, id sheep.ObjectID, from netip.AddrPort) error {
	return v.r.Repair(ctx, id, from)
}

// flightsView shows the requests in flight to the server.
type flightsView struct {
	t   *flight.Table
	vdi func(sheep.VDIID) (sheep.VDI, bool)
}

func (v flightsView) Slow(age time.Duration) proto.SlowList {
	all := v.t.Slow(age)
	list := proto.SlowList{Total: uint32(len(all))}
	for _, r := range all[:min(len(all), proto.MaxSlow)] {
		shown := proto.SlowRequest{
			ID: r.ID, Age: r.Age, Epoch: r.Epoch, GivenUp: r.GivenUp, Op: r.Op.String(), State: r.State.String(), Client: r.Client.String(),
		}
		if vdi, ok := v.vdi(r.ID.VDI()); ok {
			shown.Name = vdi.Name
		}
		for _, n := range r.Nodes {
			shown.Nodes = append(shown.Nodes, n.Addr)
		}
		if r.Reason != nil {
			shown.Reason = r.Reason.Error()
		}
		list.Requests = append(list.Requests, shown)
	}
	return list
}

// logLevel shows the threshold of the log to the server.
type logLevel struct{ *logging.Threshold }

func (l logLevel) Get() int            { return int(l.Severity()) }
func (l logLevel) Set(level int) error { return l.Threshold.Set(logging.Severity(level)) }
