package command

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// findNode returns the node that arg means: the number of one in the list of
// nodes, or the address of one that may be absent.
func (s *session) findNode(arg string) (sheep.Node, error) {
	if id, err := strconv.ParseUint(arg, 10, 31); err == nil {
		if int(id) >= len(s.nodes.Nodes) {
			return sheep.Node{}, fail(ExitUsage, "Invalid node id '%d'", id)
		}
		return s.nodes.Nodes[id], nil
	}
	addr, err := netip.ParseAddrPort(arg)
	if err != nil {
		return sheep.Node{}, fail(ExitUsage, "Invalid node '%s', please specify its id or address:port", arg)
	}
	if i := slices.IndexFunc(s.nodes.Nodes, func(n sheep.Node) bool { return n.Addr == addr }); i >= 0 {
		return s.nodes.Nodes[i], nil
	}
	return sheep.Node{Addr: addr}, nil
}

// nodeMaintenance says that the departure of a node is meant, so that it starts
// no healing, or lists the nodes of which that was said.
func nodeMaintenance(ctx context.Context, s *session) error {
	if len(s.args) == 0 {
		return s.listMaintenance(ctx)
	}
	n, err := s.findNode(s.args[0])
	if err != nil {
		return err
	}
	d := proto.Forever
	switch {
	case s.arg(1) == "off" && len(s.args) == 2:
		d = 0
	case s.arg(1) != "on":
		return badUsage("Say whether node %v is being maintained: on or off", n)
	case len(s.args) == 3:
		if d, err = parseDuration(s.args[2]); err != nil {
			return err
		}
	}
	if err := s.Maintain(ctx, n, d); err != nil {
		if remote.Result(err) == proto.ResultInvalid {
			return fail(ExitFailure, "No node that stores data is or was at %v", n)
		}
		return requestFailed(err)
	}
	switch d {
	case 0:
		s.print("Node %v is not being maintained any more.\n", n)
	case proto.Forever:
		s.print("Node %v is being maintained: its absence starts no healing until it is back.\n", n)
	default:
		s.print("Node %v is being maintained for %s: till then its absence starts no healing.\n", n, shortDuration(d))
	}
	if d != 0 {
		s.warnOfFewCopies(ctx)
	}
	return nil
}

// warnOfFewCopies says what depends on few nodes while one is away.
func (s *session) warnOfFewCopies(ctx context.Context) {
	states, err := s.States(ctx)
	if err != nil {
		return // it is only a hint
	}
	var single, double int
	for _, v := range states {
		p, err := sheep.PolicyFromWire(v.Copies, v.CopyPolicy)
		switch {
		case err != nil || v.Deleted || p.Erasure():
		case p.Copies == 1:
			single++
		case p.Copies == 2:
			double++
		}
	}
	if single > 0 {
		s.warn("Take care: %d disks and snapshots have one copy, parts of them cannot be used while the node is away.", single)
	}
	if double > 0 {
		s.warn("Take care: %d disks and snapshots have two copies, one of which is away with the node.", double)
	}
}

func (s *session) listMaintenance(ctx context.Context) error {
	h, err := s.Healing(ctx, "")
	if err != nil {
		return requestFailed(err)
	}
	for _, m := range h.Maintained {
		until := "until it is back"
		if m.Until != 0 {
			until = "until " + time.Unix(m.Until, 0).In(s.app.env.Location).Format(time.DateTime)
		}
		s.print("Node %v is being maintained %s\n", m.Node, until)
	}
	s.print("%s", absenceLines(h))
	return nil
}
