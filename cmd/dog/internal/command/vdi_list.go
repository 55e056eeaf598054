package command

import (
	"context"
	"strings"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

const vdiListHeader = "  Name        Id    Size    Used  Shared    Creation time   VDI id  Copies  Tag   Block Size Shift\n"

// vdiList lists VDIs.
func vdiList(ctx context.Context, s *session) error {
	if !s.opts.raw && !s.opts.json {
		s.print(vdiListHeader)
	}
	if s.opts.hasOID && s.opts.oid.Kind() != sheep.KindData {
		return quiet(ExitFailure)
	}
	name := s.arg(0)
	vdis, err := s.VDIs(ctx, remote.Query{Map: true, Want: func(h *proto.InodeHeader) bool {
		return name == "" || h.Name == name
	}})
	if err != nil {
		return s.listFailed(err)
	}
	rows := []vdiRow{}
	for v := range vdis {
		if v.Err != nil {
			s.warn("Failed to read object %v %s", sheep.InodeObject(v.VDI), remote.Text(v.Err))
			s.warn("Failed to read inode header")
			continue
		}
		if name != "" && v.Header.Name != name || s.opts.hasOID && !owns(v.Objects, s.opts.oid) {
			continue
		}
		row := s.vdiRow(v)
		if s.opts.json {
			rows = append(rows, row)
			continue
		}
		s.printVDI(row)
	}
	if s.opts.json {
		return s.writeJSON(rows)
	}
	return nil
}

// listFailed returns the failure of a listing: none on a cluster that has no
// VDIs because it has not been formatted.
func (s *session) listFailed(err error) error {
	switch {
	case remote.Result(err) == proto.ResultWaitForFormat && s.opts.json:
		return s.writeJSON([]struct{}{})
	case remote.Result(err) == proto.ResultWaitForFormat:
		return nil
	}
	return err
}

// owns reports whether the data object id is among objects.
func owns(objects []proto.BTreeEntry, id sheep.ObjectID) bool {
	for _, o := range objects {
		if o.Index == id.Index() && o.VDI == id.VDI() {
			return true
		}
	}
	return false
}

// A vdiRow is one VDI of a listing; its JSON form is fixed.
type vdiRow struct {
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

	created uint64 // wire time
}

func (s *session) vdiRow(v remote.Listed) vdiRow {
	h := v.Header
	row := vdiRow{
		Name: h.Name, Tag: h.Tag, Kind: "working", Size: h.Size,
		Created: s.time(h.CreateTime).Unix(), created: h.CreateTime,
		ID: v.VDI.String(), Parent: h.Parent.String(),
		Redundancy: redundancy(h), Shift: h.BlockShift, Hyper: h.Hyper(),
	}
	for _, o := range v.Objects {
		if o.VDI == v.VDI {
			row.Used += 1 << h.BlockShift
		} else {
			row.Shared += 1 << h.BlockShift
		}
	}
	switch {
	case h.Snapshot():
		row.Kind, row.SnapshotID = "snapshot", h.SnapID
	case h.SnapID == 1 && h.Parent != 0:
		row.Kind = "clone"
	}
	return row
}

// redundancy returns the redundancy of a VDI as listings show it.
func redundancy(h *proto.InodeHeader) string {
	if p, err := h.Policy(); err == nil {
		return p.String()
	}
	return "?"
}

func (s *session) printVDI(r vdiRow) {
	flag := map[string]string{"snapshot": "s", "clone": "c", "working": " "}[r.Kind]
	if s.opts.raw {
		if r.Kind == "working" {
			flag = "="
		}
		s.print("%s %s %d %d %d %d %d %s %s %s %d\n", flag, escape(r.Name), r.SnapshotID,
			r.Size, r.Used, r.Shared, r.Created, r.ID, r.Redundancy, r.Tag, r.Shift)
		return
	}
	s.print("%s %-8s %5d %7s %7s %7s %s  %7s %6s %13s %3d\n", flag, r.Name, r.SnapshotID,
		s.size(r.Size), s.size(r.Used), s.size(r.Shared),
		s.time(r.created).Format("2006-01-02 15:04"), r.ID, r.Redundancy, r.Tag, r.Shift)
}

// escape puts a backslash before each white-space character and backslash.
func escape(name string) string {
	var b strings.Builder
	for i := range len(name) {
		if strings.IndexByte(" \t\n\v\f\r\\", name[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(name[i])
	}
	return b.String()
}
