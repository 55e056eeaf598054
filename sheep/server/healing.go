package server

import (
	"encoding/binary"
	"math"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// getHealing serves GET_HEALING.
func (d *Daemon) getHealing(r *Request) {
	var h proto.Healing
	if d.Recovery != nil {
		h = d.Recovery.Healing()
	}
	d.record(r, proto.HealingRoom, h.Append)
}

// setHealDelay serves SET_HEAL_DELAY.
func (d *Daemon) setHealDelay(r *Request) {
	n := binary.LittleEndian.Uint64(r.Data)
	if n > math.MaxInt64 {
		invalid(d, r)
		return
	}
	d.finish(r, d.Cluster.SetHealDelay(r.Ctx, time.Duration(n)))
}

// maintainNode serves MAINTAIN_NODE.
func (d *Daemon) maintainNode(r *Request) {
	o, err := proto.DecodeNodeOrder(r.Data)
	if err == nil && o.Value > math.MaxInt64 {
		err = sheep.ErrInvalid
	}
	if err == nil {
		err = d.Cluster.Maintain(r.Ctx, o.Node.Addr, time.Duration(o.Value))
	}
	d.finish(r, err)
}

// drainNode serves DRAIN_NODE.
func (d *Daemon) drainNode(r *Request) {
	o, err := proto.DecodeNodeOrder(r.Data)
	if err == nil && o.Value > 1 {
		err = sheep.ErrInvalid
	}
	if err == nil {
		err = d.Cluster.Drain(r.Ctx, o.Node.Addr, o.Value == 0)
	}
	d.finish(r, err)
}

// setHealRate serves SET_HEAL_RATE.
func (d *Daemon) setHealRate(r *Request) {
	if d.Recovery == nil {
		unsupported(d, r)
		return
	}
	d.Recovery.SetRate(binary.LittleEndian.Uint64(r.Data))
	succeed(d, r)
}
