package command

import (
	"context"

	"sheepdog/sheep"
	"sheepdog/sheep/listing"
)

// A nodeRow is one node of a listing; its JSON form is fixed.
type nodeRow struct {
	ID     int    `json:"id"`
	Host   string `json:"host"`
	Port   uint16 `json:"port"`
	VNodes uint16 `json:"vnodes"`
	Zone   uint32 `json:"zone"`
}

// nodeList lists the nodes.
func nodeList(_ context.Context, s *session) error {
	if s.opts.json {
		return s.writeJSON(s.nodeRows())
	}
	if !s.opts.raw {
		s.print("%s", listing.Nodes)
	}
	for i, n := range s.nodes.Nodes {
		if s.opts.raw {
			s.print("%d %v %d %d\n", i, n, n.VNodes, uint32(n.Zone))
		} else {
			s.print("%s", listing.Node(i, n))
		}
	}
	return nil
}

func (s *session) nodeRows() []nodeRow { return rowsOf(s.nodes.Nodes) }

func rowsOf(nodes []sheep.Node) []nodeRow {
	rows := []nodeRow{}
	for i, n := range nodes {
		rows = append(rows, nodeRow{
			ID: i, Host: n.Addr.Addr().String(), Port: n.Addr.Port(), VNodes: n.VNodes, Zone: uint32(n.Zone),
		})
	}
	return rows
}
