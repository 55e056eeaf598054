package command

import (
	"context"
	"slices"

	"sheepdog/sheep"
	"sheepdog/sheep/listing"
	"sheepdog/sheep/remote"
)

// A spaceRow is how full a node is; its JSON form is fixed.
type spaceRow struct {
	ID   int    `json:"id"`
	Host string `json:"host"`
	Port uint16 `json:"port"`
	Size uint64 `json:"size"`
	Used uint64 `json:"used"`
	Free uint64 `json:"free"`
	Full string `json:"full,omitempty"` // near full, or full

	err error
}

func (r spaceRow) space() listing.Space {
	return listing.Space{Size: r.Size, Used: r.Used, Free: r.Free, Full: r.Full}
}

// nodeInfo shows how full the nodes are.
func nodeInfo(ctx context.Context, s *session) error {
	if !s.opts.raw && !s.opts.json {
		s.print("%s", listing.Spaces)
	}
	var rows []spaceRow
	var total spaceRow
	for row := range remote.Ordered(slices.Values(s.nodeRows()), queryWidth, func(r nodeRow) spaceRow {
		row := spaceRow{ID: r.ID, Host: r.Host, Port: r.Port}
		var size uint64
		size, row.Free, row.err = s.Space(ctx, s.nodes.Nodes[r.ID])
		row.Size, row.Used = size, size-min(row.Free, size)
		if room, err := s.Room(ctx, remote.Address(s.nodes.Nodes[r.ID])); err == nil { // C's daemons do not tell
			row.Full = room.Full()
		}
		return row
	}) {
		if row.err != nil {
			if !unreachable(row.err) {
				s.warn("Response's result: %s", remote.Text(row.err))
			}
			continue
		}
		rows = append(rows, row)
		total.Size, total.Used, total.Free = total.Size+row.Size, total.Used+row.Used, total.Free+row.Free
	}
	if len(rows) == 0 {
		return fail(ExitSystem, "Cannot get information from any nodes")
	}
	virtual := s.virtualSize(ctx)
	if s.opts.json {
		return s.writeJSON(spaceReport{Nodes: rows, Size: total.Size, Used: total.Used, Free: total.Free, Virtual: virtual})
	}
	s.printSpace(rows, total, virtual)
	return nil
}

// A spaceReport is the JSON form of node info.
type spaceReport struct {
	Nodes   []spaceRow `json:"nodes"`
	Size    uint64     `json:"size"`
	Used    uint64     `json:"used"`
	Free    uint64     `json:"free"`
	Virtual uint64     `json:"virtual_size"`
}

func (s *session) printSpace(rows []spaceRow, total spaceRow, virtual uint64) {
	if s.opts.raw {
		for _, r := range rows {
			s.print("%d %d %d %d %d%%\n", r.ID, r.Size, r.Used, r.Free, listing.Percent(r.Used, r.Size))
		}
		s.print("Total %d %d %d %d%% %d\n", total.Size, total.Used, total.Free, listing.Percent(total.Used, total.Size), virtual)
		return
	}
	for _, r := range rows {
		s.print("%s", listing.NodeSpace(r.ID, r.space()))
	}
	s.print("%s", listing.TotalSpace(total.space(), virtual))
}

// virtualSize returns the sum of the sizes of the working VDIs.
func (s *session) virtualSize(ctx context.Context) uint64 {
	vdis, err := s.VDIs(ctx, remote.Query{})
	if err != nil {
		return 0
	}
	var sum uint64
	for v := range vdis {
		if v.Err != nil {
			s.warn("Failed to read object %v %s", sheep.InodeObject(v.VDI), remote.Text(v.Err))
			s.warn("Failed to read inode header")
		} else if !v.Header.Snapshot() {
			sum += v.Header.Size
		}
	}
	return sum
}

// queryWidth is how many nodes are asked at once.
const queryWidth = 16
