package command

import (
	"context"
	"fmt"
	"slices"

	"sheepdog/nbd/attach"
)

// An nbdRow is one disk of a listing; its JSON form is fixed.
type nbdRow struct {
	Name        string  `json:"name"`
	Size        *uint64 `json:"size"` // null if the server does not tell
	ReadOnly    bool    `json:"read_only"`
	Exported    bool    `json:"exported"` // by the server that was asked
	Description string  `json:"description"`
	Device      *string `json:"device"` // null if it is not attached here
	URI         *string `json:"uri"`    // likewise: what the device is attached to
}

// nbdList lists the exports of a server and the devices of this machine.
func nbdList(ctx context.Context, s *session) error {
	addrs, err := s.nbdServers()
	if err != nil {
		return err
	}
	devices, err := s.app.env.Host.List()
	if err != nil {
		return nbdFailed(err)
	}
	list, unreachable := firstExports(ctx, addrs)
	rows := nbdRows(list, devices, addrs)
	if s.opts.json {
		err = s.writeJSON(rows)
	} else {
		s.printNBD(rows)
	}
	if unreachable != nil {
		return nbdFailed(unreachable)
	}
	return err
}

// firstExports returns the list of the first server that answers.
func firstExports(ctx context.Context, addrs []attach.Address) (list []attach.Export, err error) {
	for _, a := range addrs {
		if list, err = attach.Exports(ctx, a); err == nil {
			return list, nil
		}
	}
	return nil, err
}

// nbdRows returns the exports, each with the devices that are attached to it,
// followed by the devices of other servers.
func nbdRows(list []attach.Export, devices []attach.Device, addrs []attach.Address) []nbdRow {
	ours := make(map[string][]attach.Device) // by the name of the export
	var others []attach.Device
	exported := make(map[string]bool)
	for _, e := range list {
		exported[e.Name] = true
	}
	for _, d := range devices {
		at, export, err := attach.ParseURI(d.URI)
		if err == nil && exported[export] && contains(addrs, at) {
			ours[export] = append(ours[export], d)
		} else {
			others = append(others, d)
		}
	}
	rows := []nbdRow{}
	for _, e := range list {
		r := nbdRow{Name: e.Name, Description: e.Description, Exported: true}
		if e.Err == nil {
			r.Size, r.ReadOnly = &e.Info.Size, e.Info.Flags&attach.ReadOnly != 0
		}
		if len(ours[e.Name]) == 0 {
			rows = append(rows, r)
		}
		for _, d := range ours[e.Name] {
			rows = append(rows, r.on(d))
		}
	}
	for _, d := range others {
		r := nbdRow{Size: &d.Size}
		_, r.Name, _ = attach.ParseURI(d.URI) // another program's device has none
		rows = append(rows, r.on(d))
	}
	return rows
}

// on returns the row with the device that the disk is attached to.
func (r nbdRow) on(d attach.Device) nbdRow {
	r.Device, r.URI, r.ReadOnly = &d.Path, &d.URI, r.ReadOnly || d.ReadOnly
	return r
}

func contains(addrs []attach.Address, a attach.Address) bool {
	return slices.Contains(addrs, a)
}

func (s *session) printNBD(rows []nbdRow) {
	if !s.opts.raw {
		s.print("  Name                     Size  Device        Description\n")
	}
	for _, r := range rows {
		size, device, about := "-", "-", r.Description
		if r.Size != nil {
			size = s.size(*r.Size)
		}
		if r.Device != nil {
			device = *r.Device
		}
		if r.URI != nil && !r.Exported {
			about = *r.URI
		}
		name, flag := r.Name, " "
		if r.ReadOnly {
			flag = "r"
		}
		if s.opts.raw {
			s.print("%s %s %s %s\n", flagText(r.ReadOnly), fmt.Sprintf("%q", name), size, device)
			continue
		}
		s.print("%s %-20s  %7s  %-12s  %s\n", flag, printable(name), size, device, printable(about))
	}
}

// flagText is the flag of read-only disks in raw listings.
func flagText(readOnly bool) string {
	if readOnly {
		return "r"
	}
	return "-"
}

// printable keeps what a server says from steering a terminal.
func printable(s string) string {
	if q := fmt.Sprintf("%q", s); q != `"`+s+`"` {
		return q
	}
	return s
}
