package command

import (
	"context"
	"strings"

	"sheepdog/sheep"
	"sheepdog/sheep/listing"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// A vdiRow is a VDI of the JSON listing, which is fixed. What only our daemons
// know is missing with others.
type vdiRow struct {
	listing.VDI
	*ownership
	Deadline *float64 `json:"deadline_seconds,omitempty"` // so long clients wait; 0 is for ever
}

// vdiRows adds to rows what the cluster's log says of the VDIs.
func (s *session) vdiRows(ctx context.Context, rows []listing.VDI) []vdiRow {
	list, err := s.Statuses(ctx)
	known := make(map[string]proto.VDIStatus)
	for _, v := range list.VDIs {
		known[v.VDI.String()] = v
	}
	all := []vdiRow{}
	for _, row := range rows {
		r := vdiRow{VDI: row}
		if err == nil {
			v, ok := known[row.ID]
			if !ok || v.Deadline == proto.AsCluster {
				v.Deadline = list.Deadline
			}
			r.ownership, r.Deadline = newOwnership(v), new(v.Deadline.Seconds())
		}
		all = append(all, r)
	}
	return all
}

// vdiList lists VDIs.
func vdiList(ctx context.Context, s *session) error {
	if !s.opts.raw && !s.opts.json {
		s.print("%s", listing.VDIs)
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
	rows := []listing.VDI{}
	for v := range vdis {
		if v.Err != nil {
			s.warn("Failed to read object %v %s", sheep.InodeObject(v.VDI), remote.Text(v.Err))
			s.warn("Failed to read inode header")
			continue
		}
		if name != "" && v.Header.Name != name {
			continue
		}
		if s.opts.hasOID {
			owner, err := s.ownerIn(ctx, v, s.opts.oid.Index())
			if err != nil {
				return err
			}
			if owner != s.opts.oid.VDI() {
				continue
			}
		}
		row := listing.NewVDI(v)
		if s.opts.json {
			rows = append(rows, row)
			continue
		}
		s.printVDI(row)
	}
	if s.opts.json {
		return s.writeJSON(s.vdiRows(ctx, rows))
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

// ownerIn returns who owns the object at index of a VDI that is listed, or zero.
func (s *session) ownerIn(ctx context.Context, v remote.Listed, index uint32) (sheep.VDIID, error) {
	if v.Header.Hyper() {
		return s.ownerOf(ctx, v.Header, index)
	}
	for _, o := range v.Objects {
		if o.Index == index {
			return o.VDI, nil
		}
	}
	return 0, nil
}

func (s *session) printVDI(v listing.VDI) {
	if !s.opts.raw {
		s.print("%s", v.Line(s.app.env.Location))
		return
	}
	flag := v.Flag()
	if flag == " " {
		flag = "="
	}
	s.print("%s %s %d %d %d %d %d %s %s %s %d\n", flag, escape(v.Name), v.SnapshotID,
		v.Size, v.Used, v.Shared, v.Created, v.ID, v.Redundancy, v.Tag, v.Shift)
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
