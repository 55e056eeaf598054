package fakesheep

import (
	"maps"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// status serves the operations about the state of VDIs that C Sheepdog does not
// have. Each VDI is owned by the first node, under a generation made of its number,
// and locks are since the start.
func (c *Cluster) status(h proto.Header, data []byte) (reply, []byte, proto.Result) {
	if c.Plain {
		return reply{}, nil, proto.ResultInvalid
	}
	if h.Op == proto.OpSetDeadline {
		o, err := proto.DecodeDeadlineOrder(data)
		switch {
		case err != nil || o.VDI != 0 && !c.used[o.VDI]:
			return reply{}, nil, proto.ResultInvalid
		case o.Deadline == proto.AsCluster:
			delete(c.deadline, o.VDI)
		default:
			c.deadline[o.VDI] = o.Deadline
		}
		return reply{}, nil, 0
	}
	only := proto.DecodeObjectBody(h.Body).ID.VDI()
	list := proto.VDIStatusList{Deadline: c.deadline[0]}
	for _, id := range slices.Sorted(maps.Keys(c.used)) {
		if only == 0 || only == id {
			list.VDIs = append(list.VDIs, c.statusOf(id))
		}
	}
	return reply{}, list.Append(nil), 0
}

func (c *Cluster) statusOf(id sheep.VDIID) proto.VDIStatus {
	s := proto.VDIStatus{VDI: id, Deadline: proto.AsCluster, Owner: c.nodes[0].Addr, Generation: sheep.Generation(id & 0xFF)}
	if d, ok := c.deadline[id]; ok {
		s.Deadline = d
	}
	l := c.locks[id]
	holder := func(n sheep.Node) {
		s.Holders = append(s.Holders, proto.LockHolder{
			Node: n.Addr, Since: Start().UnixNano(), Client: sheep.Client{Kind: "native", Addr: "127.0.0.1:40000"},
		})
	}
	if l.State == sheep.Exclusive {
		holder(l.Owner)
	}
	for _, p := range l.Participants {
		holder(p.Node)
	}
	return s
}
