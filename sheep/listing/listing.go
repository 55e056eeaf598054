// Package listing is the tables about a cluster that people and scripts know:
// dog prints them and sheepfs shows them as files, and both have to be the same
// to the byte.
//
// A table is a header and a function that makes one of its lines. What may
// change about a line is its values; scripts cut it at its columns, which never
// truncate: a longer value pushes the rest to the right. Every line ends in a
// newline.
//
// The package asks nobody anything; times are shown in the zone that the caller
// names.
package listing

import (
	"fmt"
	"strings"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/size"
)

// The headers of the tables.
const (
	Nodes      = "  Id   Host:Port         V-Nodes       Zone\n"
	Spaces     = "Id\tSize\tUsed\tAvail\tUse%\n"
	Disks      = "Id\tSize\tUsed\tAvail\tUse%\tPath\n"
	VDIs       = "  Name        Id    Size    Used  Shared    Creation time   VDI id  Copies  Tag   Block Size Shift\n"
	Epochs     = "Epoch Time           Version [Host:Port:V-Nodes,,,]\n"
	StatHead   = "Request\tActive\tTotal\tWrite\tRead\tRemove\tFlush\tAll WR\tAll RD\n"
	Recoveries = "Nodes In Recovery:\n  Id   Host:Port         V-Nodes       Zone       Progress\n"
)

// Node is the line of the node with the number.
func Node(number int, n sheep.Node) string {
	return fmt.Sprintf("%4d   %-20v\t%2d%11d\n", number, n, n.VNodes, uint32(n.Zone))
}

// A Space is how full something is, in bytes.
type Space struct {
	Size, Used, Free uint64
	Full             string // near full, or full, if it is
}

// SpaceOf returns the space of a node with size bytes, of which free are free.
func SpaceOf(size, free uint64) Space {
	return Space{Size: size, Used: size - min(free, size), Free: free}
}

func (s Space) columns() string {
	return fmt.Sprintf("%s\t%s\t%s\t%3d%%", size.Human(s.Size), size.Human(s.Used), size.Human(s.Free), Percent(s.Used, s.Size))
}

// NodeSpace is the line of the node with the number.
func NodeSpace(number int, s Space) string {
	line := fmt.Sprintf("%2d\t%s", number, s.columns())
	if s.Full != "" {
		line += "\t" + s.Full
	}
	return line + "\n"
}

// TotalSpace is what follows the lines of the nodes. Virtual is the sum of the
// sizes of the working VDIs.
func TotalSpace(s Space, virtual uint64) string {
	return fmt.Sprintf("Total\t%s\n\nTotal virtual image size\t%s\n", s.columns(), size.Human(virtual))
}

// Disk is the line of a disk of a node.
func Disk(d proto.Disk) string {
	return fmt.Sprintf("%2d\t%s\t%s\n", d.Index, Space{Size: d.Used + d.Free, Used: d.Used, Free: d.Free}.columns(), d.Path)
}

// Percent returns which part of size is used, rounded down.
func Percent(used, size uint64) int {
	if size == 0 {
		return 0
	}
	return int(float64(used) / float64(size) * 100)
}

// A VDI is one line of the table of VDIs. Its JSON form is fixed.
type VDI struct {
	Name       string `json:"name"`
	SnapshotID uint32 `json:"snapshot_id"` // 0 of the working VDI
	Tag        string `json:"tag"`
	Kind       string `json:"kind"` // working, clone or snapshot
	Size       uint64 `json:"size"`
	Used       uint64 `json:"used"`
	Shared     uint64 `json:"shared"`
	Created    int64  `json:"created"` // seconds since 1970
	ID         string `json:"vdi_id"`  // hexadecimal
	Parent     string `json:"parent_vdi_id"`
	Redundancy string `json:"redundancy"`
	Shift      uint8  `json:"block_size_shift"`
	Hyper      bool   `json:"hyper"`

	created time.Time
}

// NewVDI returns the line of l, whose header is known. What it uses is counted
// from its objects.
func NewVDI(l remote.Listed) VDI {
	h := l.Header
	v := VDI{
		Name: h.Name, Tag: h.Tag, Kind: "working", Size: h.Size,
		ID: l.VDI.String(), Parent: h.Parent.String(),
		Redundancy: "?", Shift: h.BlockShift, Hyper: h.Hyper(), created: proto.TimeFromWire(h.CreateTime),
	}
	v.Created = v.created.Unix()
	if p, err := h.Policy(); err == nil {
		v.Redundancy = p.String()
	}
	v.Used = l.Own << h.BlockShift
	for _, o := range l.Objects {
		if o.VDI == l.VDI {
			v.Used += 1 << h.BlockShift
		} else {
			v.Shared += 1 << h.BlockShift
		}
	}
	switch {
	case h.Snapshot():
		v.Kind, v.SnapshotID = "snapshot", h.SnapID
	case h.SnapID == 1 && h.Parent != 0:
		v.Kind = "clone"
	}
	return v
}

// Flag returns the first column: s of a snapshot, c of a clone, else a blank.
func (v VDI) Flag() string {
	switch v.Kind {
	case "snapshot":
		return "s"
	case "clone":
		return "c"
	}
	return " "
}

// Line is the line of v.
func (v VDI) Line(zone *time.Location) string {
	return fmt.Sprintf("%s %-8s %5d %7s %7s %7s %s  %7s %6s %13s %3d\n", v.Flag(), v.Name, v.SnapshotID,
		size.Human(v.Size), size.Human(v.Used), size.Human(v.Shared),
		v.created.In(zone).Format("2006-01-02 15:04"), v.ID, v.Redundancy, v.Tag, v.Shift)
}

// Status returns the state of a cluster in words: that of its newest epoch, or
// why it does not run.
func Status(newest proto.EpochRecord, state error) string {
	switch {
	case state != nil:
		return remote.Text(state)
	case newest.RecoveryDisabled:
		return "running, auto-recovery disabled"
	}
	return "running, auto-recovery enabled"
}

// Created is the line that tells when a cluster was formatted.
func Created(newest proto.EpochRecord, zone *time.Location) string {
	return fmt.Sprintf("Cluster created at %s\n", proto.TimeFromWire(newest.Ctime).In(zone).Format("Mon Jan _2 15:04:05 2006"))
}

// EpochNodes returns the nodes of an epoch as they are shown.
func EpochNodes(e proto.EpochRecord) []string {
	var words []string
	for _, n := range e.Nodes {
		words = append(words, fmt.Sprintf("%v:%d", n, n.VNodes))
	}
	return words
}

// Epoch is the line of an epoch: words are its nodes or what has changed.
func Epoch(e proto.EpochRecord, words []string, zone *time.Location) string {
	return fmt.Sprintf("%s %6d [%s]\n", e.Time.In(zone).Format("2006-01-02 15:04:05"), e.Epoch, strings.Join(words, ", "))
}

// A Stats is what a node has done since it started. Its JSON form is fixed.
type Stats struct {
	Client Stat `json:"client"` // for clients
	Peer   Stat `json:"peer"`   // for other nodes
}

// A Stat is one line of the table of what a node has done.
type Stat struct {
	Active       uint64 `json:"active"`
	Total        uint64 `json:"total"`
	Writes       uint64 `json:"writes"`
	Reads        uint64 `json:"reads"`
	Removes      uint64 `json:"removes"`
	Flushes      uint64 `json:"flushes"`
	BytesWritten uint64 `json:"bytes_written"`
	BytesRead    uint64 `json:"bytes_read"`
}

// NewStats returns what st says.
func NewStats(st proto.Stat) Stats {
	return Stats{
		Client: Stat{
			Active: st.GatewayActive, Total: st.GatewayTotal, Writes: st.GatewayWrites, Reads: st.GatewayReads,
			Removes: st.GatewayRemoves, Flushes: st.GatewayFlushes, BytesWritten: st.GatewayRx, BytesRead: st.GatewayTx,
		},
		Peer: Stat{
			Active: st.PeerActive, Total: st.PeerTotal, Writes: st.PeerWrites, Reads: st.PeerReads,
			Removes: st.PeerRemoves, BytesWritten: st.PeerRx, BytesRead: st.PeerTx,
		},
	}
}

// Line is the line of s, named Client or Peer.
func (s Stat) Line(name string) string {
	return fmt.Sprintf("%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", name, s.Active, s.Total, s.Writes, s.Reads, s.Removes, s.Flushes,
		size.Human(s.BytesWritten), size.Human(s.BytesRead))
}

// Recovery is the line of a node in recovery.
func Recovery(number int, n sheep.Node, state proto.RecoveryState) string {
	share := 0.0
	if state.Total > 0 {
		share = float64(state.Finished) / float64(state.Total) * 100
	}
	return fmt.Sprintf("%4d   %-20v%5d%11d%11.1f%%\n", number, n, n.VNodes, uint32(n.Zone), share)
}
