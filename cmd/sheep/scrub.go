package main

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/scrub"
	"sheepdog/sheep/server"
)

// setScrub takes the schedule of the background scrub.
func (p *parser) setScrub(arg string) error {
	if arg == "off" {
		p.cfg.scrub = scrub.Config{}
		return nil
	}
	p.cfg.scrub = scrub.DefaultConfig()
	return items(arg, []string{"every=", "rate=", "hours="}, func(name, value string) (err error) {
		c := &p.cfg.scrub
		switch name {
		case "every":
			c.Every, err = parseLong(value)
		case "rate":
			c.Rate, err = parseSize(value)
		case "hours":
			c.Hours, err = parseHours(value)
		}
		return err
	})
}

// parseLong parses a time that may be days.
func parseLong(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, ok := parseNumber(days, 1, 3650); ok {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second {
		return 0, refuse("Invalid time '%s': must be like 7d, 12h or 30m, and at least a second", s)
	}
	return d, nil
}

func parseHours(s string) (scrub.Hours, error) {
	from, to, ok := strings.Cut(s, "-")
	first, ok1 := parseNumber(from, 0, 24)
	last, ok2 := parseNumber(to, 0, 24)
	if !ok || !ok1 || !ok2 {
		return scrub.Hours{}, refuse("Invalid hours '%s': must be like 22-6", s)
	}
	return scrub.Hours{From: int(first % 24), To: int(last % 24)}, nil
}

// newScrub makes the scrubber of this node, whose requests d serves.
func (n *node) newScrub(d *server.Daemon) *scrub.Scrubber {
	cfg := n.cfg.scrub
	if n.self.VNodes == 0 {
		cfg.Every = 0 // it has no copies
	}
	return scrub.New(n.self.Addr, scrubbed{n, d}, client.NewPeers(n.pools.peers), n.cluster, cfg, n.log)
}

// scrubbed shows this node to its scrubber.
type scrubbed struct {
	n *node
	d *server.Daemon
}

func (s scrubbed) IDs(from sheep.ObjectID) ([]sheep.ObjectID, error) { return s.n.store.IDs(from) }
func (s scrubbed) Settled(e sheep.Epoch) bool                        { return s.n.recovery.Settled(e) }
func (s scrubbed) ScrubState() ([]byte, error)                       { return s.n.store.ScrubState() }
func (s scrubbed) SetScrubState(b []byte) error                      { return s.n.store.SetScrubState(b) }

func (s scrubbed) CopyOf(ctx context.Context, id sheep.ObjectID) (proto.CopyReport, error) {
	return s.d.CopyOf(ctx, id)
}

func (s scrubbed) Repair(ctx context.Context, id sheep.ObjectID, from netip.AddrPort) error {
	return s.n.recovery.Repair(ctx, id, from)
}

func (s scrubbed) Background(ctx context.Context, fn func() error) error {
	return s.n.replica.Background(ctx, fn)
}

// Policy knows attributes to belong to names, not to VDIs. What is left of a VDI
// that nobody knows any more is not compared: there is no telling who should have
// it.
func (s scrubbed) Policy(id sheep.ObjectID) (sheep.Policy, uint32) {
	v, ok := s.n.cluster.VDI(id.VDI())
	switch {
	case id.Kind() == sheep.KindAttr:
		return s.n.defaultPolicy(), id.Size(s.n.cluster.View().Settings.BlockShift)
	case !ok:
		return sheep.Replicated(1), 0
	}
	return v.Policy, id.Size(v.BlockShift)
}
