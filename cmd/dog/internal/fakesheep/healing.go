package fakesheep

import (
	"encoding/binary"
	"slices"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// healing is what a fake cluster knows of nodes that leave.
type healing struct {
	delay      time.Duration
	absent     []proto.AbsentNode
	maintained []proto.MaintainedNode
	drained    []sheep.Node
	limit      uint64
	later      uint64 // objects that wait on every node that recovers
}

// Absent has the nodes of the cluster wait for n with objects.
func (c *Cluster) Absent(n proto.AbsentNode, objects uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.healing.absent = append(c.healing.absent, n)
	c.healing.later = objects
}

// heal serves the operations about healing. C Sheepdog has none.
func (c *Cluster) heal(n *node, h proto.Header, data []byte) (reply, []byte, proto.Result) {
	if c.Plain {
		return reply{}, nil, proto.ResultInvalid
	}
	s := &c.healing
	switch h.Op {
	case proto.OpGetHealing:
		return reply{}, c.stateOfHealing(n).Append(nil), 0
	case proto.OpSetHealDelay:
		s.delay = time.Duration(binary.LittleEndian.Uint64(data))
		return reply{}, nil, 0
	case proto.OpSetHealRate:
		s.limit = binary.LittleEndian.Uint64(data)
		return reply{}, nil, 0
	}
	o, err := proto.DecodeNodeOrder(data)
	if err != nil {
		return reply{}, nil, proto.ResultInvalid
	}
	same := func(m sheep.Node) bool { return m.Addr == o.Node.Addr }
	known := slices.ContainsFunc(c.members(), same)
	switch {
	case o.Value == 0:
		s.maintained = slices.DeleteFunc(s.maintained, func(m proto.MaintainedNode) bool { return same(m.Node) })
		s.drained = slices.DeleteFunc(s.drained, same)
	case !known:
		return reply{}, nil, proto.ResultInvalid
	case h.Op == proto.OpDrainNode:
		s.drained = append(s.drained, sheep.Node{Addr: o.Node.Addr})
	default:
		m := proto.MaintainedNode{Node: sheep.Node{Addr: o.Node.Addr}}
		if time.Duration(o.Value) != proto.Forever {
			m.Until = c.now.Add(time.Duration(o.Value)).Unix()
		}
		s.maintained = append(s.maintained, m)
	}
	return reply{}, nil, 0
}

func (c *Cluster) stateOfHealing(n *node) proto.Healing {
	s := c.healing
	h := proto.Healing{
		Epoch: c.info.Epoch, Finished: n.recover.Finished, Total: n.recover.Total,
		Delay: s.delay, Limit: s.limit, Absent: s.absent, Maintained: s.maintained, Drained: s.drained,
	}
	switch {
	case n.recover.Active:
		h.Bits = proto.HealingActive
		h.Later, h.Left = s.later, (h.Total-h.Finished)<<22
		h.Objects, h.Bytes, h.Rate, h.ETA = 3, 12<<20, 4<<20, 65*time.Second
	default:
		h.Bits = proto.HealingAll
	}
	if len(c.epochs) > 0 && c.epochs[0].RecoveryDisabled {
		h.Bits |= proto.HealingDisabled
	}
	return h
}
