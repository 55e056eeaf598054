package command

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/listing"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// A lockRow is one lock of a listing; its JSON form is fixed.
type lockRow struct {
	Name       string   `json:"name"`
	SnapshotID uint32   `json:"snapshot_id"`
	Tag        string   `json:"tag"`
	ID         string   `json:"vdi_id"`
	Shared     bool     `json:"shared"`
	Owners     []string `json:"owners"` // host:port

	Holders []holderRow `json:"holders"` // the same, with what only our daemons know

	text string
	flag string
}

// A holderRow is who has a lock, or shares it.
type holderRow struct {
	Node   string     `json:"node"`            // host:port of the gateway
	Client string     `json:"client"`          // kind and address; empty if not known
	Since  *time.Time `json:"since,omitempty"` // RFC 3339
	Bound  bool       `json:"ends_with_client"`
}

// newHolder returns the row of one of the nodes that have a lock. Status may be nil.
func newHolder(n sheep.Node, status *proto.VDIStatus) holderRow {
	row := holderRow{Node: n.String()}
	if status == nil {
		return row
	}
	for _, h := range status.Holders {
		if h.Node != n.Addr {
			continue
		}
		if row.Bound = status.Bits&proto.VDIBound != 0; h.Client != (sheep.Client{}) {
			row.Client = h.Client.String()
		}
		if h.Since != 0 {
			row.Since = new(time.Unix(0, h.Since).UTC().Truncate(time.Second))
		}
	}
	return row
}

// locked reports whether somebody holds the lock.
func locked(state proto.VDIState) bool {
	return state.Lock.State == sheep.Exclusive || state.Lock.State == sheep.Shared
}

// holders returns the nodes that hold a lock.
func holders(l sheep.Lock) []sheep.Node {
	if l.State == sheep.Exclusive {
		return []sheep.Node{l.Owner}
	}
	var nodes []sheep.Node
	for _, p := range l.Participants {
		nodes = append(nodes, p.Node)
	}
	return nodes
}

// ownerText returns the words that tell who holds a lock.
func ownerText(l sheep.Lock) string {
	if l.State == sheep.Exclusive {
		return nodeText(l.Owner)
	}
	var words []string
	for _, p := range l.Participants {
		state := map[sheep.ShareState]string{
			sheep.ShareModified: "(modified)", sheep.ShareShared: "(shared)", sheep.ShareInvalidated: "(invalidated)",
		}[p.State]
		words = append(words, nodeText(p.Node)+state)
	}
	return join(words...)
}

func nodeText(n sheep.Node) string {
	family := "IPv6"
	if n.Addr.Addr().Is4() {
		family = "IPv4"
	}
	return fmt.Sprintf("%s ip:%v port:%d", family, n.Addr.Addr(), n.Addr.Port())
}

// vdiLockList lists the VDIs that are locked.
func vdiLockList(ctx context.Context, s *session) error {
	rows, err := s.locks(ctx)
	if err != nil {
		return err
	}
	if s.opts.json {
		return s.writeJSON(rows)
	}
	if s.opts.verbose {
		s.printHolders(rows)
		return nil
	}
	s.print("  Name         Id  VDI id  Tag            Owner node(s)\n")
	for _, r := range rows {
		s.print("%s %-8s  %5d  %6s  %-13s  %s\n", r.flag, r.Name, r.SnapshotID, r.ID, r.Tag, r.text)
	}
	return nil
}

// printHolders prints who has the locks, with what C Sheepdog does not know.
func (s *session) printHolders(rows []lockRow) {
	s.print("  Name         Id  VDI id  Tag            Node                  Since                Client\n")
	for _, r := range rows {
		for _, h := range r.Holders {
			since := "-"
			if h.Since != nil {
				since = h.Since.In(s.app.env.Location).Format(time.DateTime)
			}
			s.print("%s %-8s  %5d  %6s  %-13s  %-20s  %-19s  %s\n", r.flag, r.Name, r.SnapshotID, r.ID, r.Tag, h.Node, since, dash(h.Client))
		}
	}
}

// locks returns who has which VDI open.
func (s *session) locks(ctx context.Context) ([]lockRow, error) {
	states, err := s.States(ctx)
	if err != nil {
		return nil, failed(err, "Failed to get VDI state")
	}
	status := make(map[sheep.VDIID]*proto.VDIStatus)
	if s.opts.verbose || s.opts.json { // the others show what C Sheepdog knows
		list, err := s.Statuses(ctx)
		if err != nil && s.opts.verbose {
			return nil, requestFailed(err)
		}
		for i, v := range list.VDIs {
			status[v.VDI] = &list.VDIs[i]
		}
	}
	rows := []lockRow{}
	for _, state := range states {
		if !locked(state) {
			continue
		}
		h, err := s.Header(ctx, state.VDI)
		if err != nil {
			s.warn("Failed to read object %v %s", sheep.InodeObject(state.VDI), remote.Text(err))
			continue
		}
		v := listing.NewVDI(remote.Listed{VDI: state.VDI, Header: h})
		row := lockRow{
			Name: h.Name, SnapshotID: v.SnapshotID, Tag: h.Tag, ID: v.ID,
			Shared: state.Lock.State == sheep.Shared, Owners: []string{}, Holders: []holderRow{}, text: ownerText(state.Lock),
			flag: v.Flag(),
		}
		for _, n := range holders(state.Lock) {
			row.Owners = append(row.Owners, n.String())
			row.Holders = append(row.Holders, newHolder(n, status[state.VDI]))
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// vdiLockUnlock takes the lock of a VDI away from whoever holds it.
func vdiLockUnlock(ctx context.Context, s *session) error {
	id, err := s.Lookup(ctx, s.name(), s.opts.snapshot)
	if err != nil {
		return failed(err, "Failed to find VDI %s: %s", s.describe(0), remote.Text(err))
	}
	states, err := s.States(ctx)
	if err != nil {
		return failed(err, "Failed to get VDI state")
	}
	for _, state := range states {
		if state.VDI == id && locked(state) {
			return s.unlock(ctx, state)
		}
	}
	return fail(ExitFailure, "VDI %s is not locked", s.describe(id))
}

// unlock releases the lock. A shared one is released by each of those that share
// it, because a daemon only releases its own part.
func (s *session) unlock(ctx context.Context, state proto.VDIState) error {
	if state.Lock.State == sheep.Exclusive {
		if err := s.Release(ctx, state.VDI, proto.LockNormal, ""); err != nil {
			return failed(err, "Failed to unlock VDI %s: %s", s.describe(state.VDI), remote.Text(err))
		}
		return nil
	}
	var failure error
	for _, n := range holders(state.Lock) {
		if err := s.Release(ctx, state.VDI, proto.LockShared, remote.Address(n)); err != nil {
			failure = failed(err, "Failed to unlock VDI %s at %v: %s", s.describe(state.VDI), n, remote.Text(err))
		}
	}
	return failure
}

// describe names the VDI that the command is about, with its number if that is
// known.
func (s *session) describe(id sheep.VDIID) string {
	var words []string
	if v := s.opts.snapshot; v.ID != 0 {
		words = append(words, fmt.Sprintf("snapid=%d", v.ID))
	} else if v.Tag != "" {
		words = append(words, "tag="+v.Tag)
	}
	if id != 0 {
		words = append(words, fmt.Sprintf("vid=%x", uint32(id)))
	}
	if len(words) == 0 {
		return s.name()
	}
	return fmt.Sprintf("%s (%s)", s.name(), strings.Join(words, ", "))
}
