package server

import (
	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
)

// maxStatus bounds the answer to GET_VDI_STATUS.
const maxStatus = 64 << 20

// getVDIStatus serves GET_VDI_STATUS.
func (d *Daemon) getVDIStatus(r *Request) {
	view := d.Cluster.View()
	list := proto.VDIStatusList{Deadline: view.Deadline}
	if only := proto.DecodeObjectBody(r.Header.Body).ID.VDI(); only != 0 {
		list.VDIs = []proto.VDIStatus{d.vdiStatus(view, only)}
	} else {
		for _, v := range d.Cluster.VDIs() {
			if s := d.vdiStatus(view, v.ID); s.Generation != 0 || len(s.Holders) > 0 || s.Deadline != proto.AsCluster {
				list.VDIs = append(list.VDIs, s)
			}
		}
	}
	b := list.Append(nil)
	if len(b) > int(r.Header.Room()) {
		d.fail(r, sheep.ErrBufferSmall)
		return
	}
	r.Reply(proto.Response{}, b)
}

// vdiStatus returns what the log says of a VDI.
func (d *Daemon) vdiStatus(view *cluster.View, id sheep.VDIID) proto.VDIStatus {
	s := proto.VDIStatus{VDI: id, Deadline: proto.AsCluster}
	if own, ok := d.Cluster.Owner(id); ok {
		s.Owner, s.Generation = own.Node.Addr, own.Generation
		if own.Draining {
			s.Bits |= proto.VDIDraining
		}
		if own.Plan {
			s.Bits |= proto.VDIFrozen
		}
	}
	if limit, ok := view.VDIDeadlines[id]; ok {
		s.Deadline = limit
	}
	lock := d.Cluster.LockOf(id)
	if lock.Life != 0 {
		s.Bits |= proto.VDIBound
	}
	if lock.State == sheep.Exclusive {
		s.Holders = append(s.Holders, lockHolder(lock.Owner, lock.Holder))
	}
	for _, p := range lock.Participants {
		s.Holders = append(s.Holders, lockHolder(p.Node, p.Holder))
	}
	return s
}

func lockHolder(n sheep.Node, h sheep.Holder) proto.LockHolder {
	shown := proto.LockHolder{Node: n.Addr, Client: h.Client}
	if !h.Since.IsZero() {
		shown.Since = h.Since.UnixNano()
	}
	return shown
}

// setDeadline serves SET_DEADLINE.
func (d *Daemon) setDeadline(r *Request) {
	o, err := proto.DecodeDeadlineOrder(r.Data)
	switch {
	case err != nil:
	case o.VDI == 0:
		err = d.Cluster.SetDeadline(r.Ctx, o.Deadline)
	default:
		err = d.Cluster.SetVDIDeadline(r.Ctx, o.VDI, o.Deadline)
	}
	d.finish(r, err)
}
