package command

import (
	"context"

	"sheepdog/sheep"
	"sheepdog/sheep/listing"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// A diskRow is one disk of a node; its JSON form is fixed.
type diskRow struct {
	Node string `json:"node"` // host:port
	ID   uint32 `json:"id"`
	Size uint64 `json:"size"`
	Used uint64 `json:"used"`
	Free uint64 `json:"free"`
	Path string `json:"path"`
}

// nodeMDInfo shows the disks of one node or of all.
func nodeMDInfo(ctx context.Context, s *session) error {
	if !s.opts.raw && !s.opts.json {
		s.print("%s", listing.Disks)
	}
	rows := []diskRow{}
	nodes := s.nodes.Nodes
	if !s.opts.all {
		nodes = []sheep.Node{{}} // the node that is asked
	}
	for i, n := range nodes {
		addr, shown := "", s.entryName()
		if s.opts.all {
			addr, shown = remote.Address(n), n.String()
		}
		disks, err := s.Disks(ctx, addr)
		if err != nil {
			return failed(err, "failed to get multi-disk information: %s", remote.Text(err))
		}
		if s.opts.all && !s.opts.raw && !s.opts.json {
			s.print("Node %d:\n", i)
		}
		for _, d := range disks {
			row := diskRow{Node: shown, ID: d.Index, Size: d.Used + d.Free, Used: d.Used, Free: d.Free, Path: d.Path}
			rows = append(rows, row)
			s.printDisk(row)
		}
	}
	if s.opts.json {
		return s.writeJSON(rows)
	}
	return nil
}

func (s *session) printDisk(d diskRow) {
	switch {
	case s.opts.json:
	case s.opts.raw:
		s.print("%s %d %d %d %d %d%% %s\n", d.Node, d.ID, d.Size, d.Used, d.Free, listing.Percent(d.Used, d.Size), d.Path)
	default:
		s.print("%s", listing.Disk(proto.Disk{Index: d.ID, Used: d.Used, Free: d.Free, Path: d.Path}))
	}
}

// entryName returns the daemon that is asked, as host:port.
func (s *session) entryName() string { return s.opts.address + ":" + s.opts.port }
