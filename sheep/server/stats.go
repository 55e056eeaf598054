package server

import (
	"sync/atomic"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// stats counts what this node did since it started.
type stats struct {
	gateway, peer role
}

// A role counts the requests of clients, or those of peers.
type role struct {
	active, total          atomic.Int64
	rx, tx                 atomic.Int64 // bytes
	removes, reads, writes atomic.Int64
	flushes                atomic.Int64
}

func (o *role) begin() {
	o.active.Add(1)
	o.total.Add(1)
}

func (s *stats) gatewayRead(n int) {
	s.gateway.begin()
	s.gateway.reads.Add(1)
	s.gateway.tx.Add(int64(n))
}

func (s *stats) gatewayWrite(n int) {
	s.gateway.begin()
	s.gateway.writes.Add(1)
	s.gateway.rx.Add(int64(n))
}

func (s *stats) gatewayRemove() {
	s.gateway.begin()
	s.gateway.removes.Add(1)
}

func (s *stats) gatewayFlush() { s.gateway.flushes.Add(1) }
func (s *stats) gatewayDone()  { s.gateway.active.Add(-1) }

func (s *stats) peerRead(n int) {
	s.peer.begin()
	s.peer.reads.Add(1)
	s.peer.tx.Add(int64(n))
}

func (s *stats) peerWrite(n int) {
	s.peer.begin()
	s.peer.writes.Add(1)
	s.peer.rx.Add(int64(n))
}

func (s *stats) peerRemove() {
	s.peer.begin()
	s.peer.removes.Add(1)
}

func (s *stats) peerDone() { s.peer.active.Add(-1) }

// Stat returns the counters.
func (d *Daemon) Stat() proto.Stat {
	g, p := &d.stats.gateway, &d.stats.peer
	n := func(c *atomic.Int64) uint64 { return uint64(max(c.Load(), 0)) }
	return proto.Stat{
		GatewayActive:  n(&g.active),
		PeerActive:     n(&p.active),
		GatewayTotal:   n(&g.total),
		PeerTotal:      n(&p.total),
		GatewayRx:      n(&g.rx),
		GatewayTx:      n(&g.tx),
		PeerRx:         n(&p.rx),
		PeerTx:         n(&p.tx),
		GatewayRemoves: n(&g.removes),
		GatewayReads:   n(&g.reads),
		GatewayWrites:  n(&g.writes),
		GatewayFlushes: n(&g.flushes),
		PeerRemoves:    n(&p.removes),
		PeerReads:      n(&p.reads),
		PeerWrites:     n(&p.writes),
	}
}

// stat serves STAT.
func (d *Daemon) stat(r *Request) {
	d.record(r, proto.StatSize, d.Stat().Append)
}

// record answers with size bytes that appendTo makes, if they are wanted whole.
func (d *Daemon) record(r *Request, size int, appendTo func([]byte) []byte) {
	if int(r.Header.Room()) < size {
		invalid(d, r)
		return
	}
	r.Reply(proto.Response{}, appendTo(r.Room(size)[:0]))
}

// statRecovery serves STAT_RECOVERY.
func (d *Daemon) statRecovery(r *Request) {
	var s proto.RecoveryState
	if d.Recovery != nil {
		s = d.Recovery.State()
	}
	d.record(r, proto.RecoveryStateSize, s.Append)
}

// getWaiting serves GET_WAITING.
func (d *Daemon) getWaiting(r *Request) {
	var w proto.WaitingList
	if d.Recovery != nil {
		w = d.Recovery.Waiting()
	}
	d.record(r, proto.WaitingRoom, w.Append)
}

// getSlow serves GET_SLOW.
func (d *Daemon) getSlow(r *Request) {
	if d.Flights == nil {
		unsupported(d, r)
		return
	}
	d.record(r, proto.SlowRoom, d.Flights.Slow(proto.SlowAge).Append)
}

// getRecovery serves GET_RECOVERY.
func (d *Daemon) getRecovery(r *Request) {
	var t proto.Throttle
	if d.Recovery != nil {
		t = d.Recovery.Throttle()
	}
	d.record(r, proto.ThrottleSize, t.Append)
}

// setRecovery serves SET_RECOVERY.
func (d *Daemon) setRecovery(r *Request) {
	t, err := proto.DecodeThrottle(r.Data)
	switch {
	case err != nil:
	case d.Recovery == nil:
		err = sheep.ErrNotSupported
	default:
		t.On = t.Max > 0 && t.Interval > 0
		d.Recovery.SetThrottle(t)
	}
	d.finish(r, err)
}
