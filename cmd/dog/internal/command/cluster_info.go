package command

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sheepdog/sheep"
	"sheepdog/sheep/listing"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// A clusterReport is the JSON form of cluster info.
type clusterReport struct {
	Status     string     `json:"status"` // running, or why it does not
	Running    bool       `json:"running"`
	Recovery   bool       `json:"auto_recovery"`
	Formatted  bool       `json:"formatted"`
	Created    int64      `json:"created,omitempty"` // seconds since 1970
	Store      string     `json:"store,omitempty"`
	Redundancy string     `json:"redundancy,omitempty"`
	AutoVNodes bool       `json:"auto_vnodes"`
	Epochs     []epochRow `json:"epochs"` // newest first
	Scrub      []scrubRow `json:"scrub,omitempty"`

	Absent []absentRow `json:"waits_for,omitempty"` // nodes whose copies are not made anew yet
}

// A scrubRow is what the background scrub of a node has found.
type scrubRow struct {
	Node string `json:"node"` // host:port
	listing.Scrub
}

type absentRow struct {
	Node       string  `json:"node"`
	Since      int64   `json:"since"`        // seconds since 1970
	Left       float64 `json:"left_seconds"` // -1 is for ever
	Maintained bool    `json:"maintained"`
}

type epochRow struct {
	Epoch uint32    `json:"epoch"`
	Time  int64     `json:"time"`
	Nodes []nodeRow `json:"nodes"`
}

// clusterInfo shows the state and the history of the cluster.
func clusterInfo(ctx context.Context, s *session) error {
	epochs, state, err := s.Epochs(ctx, s.epoch, len(s.nodes.Nodes))
	if err != nil {
		return failed(err, "Failed to get the cluster's information: %s", remote.Text(err))
	}
	var newest proto.EpochRecord
	if len(epochs) > 0 {
		newest = epochs[0]
	}
	if s.opts.json {
		report := s.clusterReport(epochs, newest, state)
		report.Scrub = s.scrubs(ctx)
		if h, err := s.Healing(ctx, ""); err == nil {
			report.Absent = absentRows(h)
		}
		return s.writeJSON(report)
	}
	if !s.opts.raw {
		s.print("Cluster status: ")
	}
	s.print("%s\n", listing.Status(newest, state))
	s.printSettings(newest, state)
	if newest.Ctime == 0 {
		return nil
	}
	if !s.opts.raw {
		s.print("%s\n%s", listing.Created(newest, s.app.env.Location), listing.Epochs)
	}
	for i, e := range epochs {
		var before *proto.EpochRecord
		if i+1 < len(epochs) {
			before = &epochs[i+1]
		}
		s.printEpoch(e, before)
	}
	if h, err := s.Healing(ctx, ""); err == nil && len(h.Absent) > 0 && !s.opts.raw {
		s.print("\n%s", absenceLines(h))
	}
	return nil
}

func absentRows(h proto.Healing) []absentRow {
	var rows []absentRow
	for _, a := range h.Absent {
		r := absentRow{Node: a.Node.String(), Since: a.Since, Left: a.Left.Seconds(), Maintained: a.Maintained}
		if a.Left == proto.Forever {
			r.Left = -1
		}
		rows = append(rows, r)
	}
	return rows
}

// printSettings prints what the cluster was formatted with, if that is wanted,
// else an empty line.
func (s *session) printSettings(newest proto.EpochRecord, state error) {
	if !s.opts.verbose {
		s.print("\n")
		return
	}
	label := func(text string) string {
		if s.opts.raw {
			return ""
		}
		return text
	}
	strategy, mode := "fixed", "node"
	if newest.Flags&proto.ClusterAutoVNodes != 0 {
		strategy = "auto"
	}
	if newest.Flags&proto.ClusterDiskMode != 0 {
		mode = "disk"
	}
	if state != nil {
		s.print("%s%s\n", label("Cluster store: "), remote.Text(state))
	} else {
		s.print("%s%s with %s redundancy policy\n", label("Cluster store: "), newest.Store, policyText(newest.Copies, newest.CopyPolicy))
		s.print("%s%s\n", label("Cluster vnodes strategy: "), strategy)
	}
	s.print("%s%s\n", label("Cluster vnode mode: "), mode)
}

// policyText returns a redundancy as it is shown.
func policyText(copies, copyPolicy uint8) string {
	p, err := sheep.PolicyFromWire(copies, copyPolicy)
	if err != nil {
		return fmt.Sprint(copies)
	}
	return p.String()
}

// printEpoch prints the nodes of an epoch, or what changed since the one before.
func (s *session) printEpoch(e proto.EpochRecord, before *proto.EpochRecord) {
	var words []string
	switch {
	case !s.opts.diff:
		words = listing.EpochNodes(e)
	case before == nil && e.Epoch == 1:
		words = []string{"formated"}
	case before != nil:
		words = changes(before.Nodes, e.Nodes)
	}
	if s.opts.raw {
		s.print("%d %d [%s]\n", e.Time.Unix(), e.Epoch, strings.Join(words, ", "))
		return
	}
	s.print("%s", listing.Epoch(e, words, s.app.env.Location))
}

// changes returns which nodes came and went.
func changes(before, after []sheep.Node) []string {
	var words []string
	has := func(nodes []sheep.Node, n sheep.Node) bool {
		return slices.ContainsFunc(nodes, func(o sheep.Node) bool { return o.Addr == n.Addr })
	}
	for _, n := range after {
		if !has(before, n) {
			words = append(words, "+"+n.String())
		}
	}
	for _, n := range before {
		if !has(after, n) {
			words = append(words, "-"+n.String())
		}
	}
	return words
}

func (s *session) clusterReport(epochs []proto.EpochRecord, newest proto.EpochRecord, state error) clusterReport {
	r := clusterReport{
		Status: "running", Running: state == nil, Recovery: !newest.RecoveryDisabled,
		Formatted: newest.Ctime != 0, Epochs: []epochRow{},
	}
	if state != nil {
		r.Status = remote.Text(state)
	}
	if r.Formatted {
		r.Created = s.time(newest.Ctime).Unix()
		r.Store, r.Redundancy = newest.Store, policyText(newest.Copies, newest.CopyPolicy)
		r.AutoVNodes = newest.Flags&proto.ClusterAutoVNodes != 0
	}
	for _, e := range epochs {
		r.Epochs = append(r.Epochs, epochRow{Epoch: uint32(e.Epoch), Time: e.Time.Unix(), Nodes: rowsOf(e.Nodes)})
	}
	return r
}

// scrubs returns what the background scrubs of all nodes have found that say so.
func (s *session) scrubs(ctx context.Context) (rows []scrubRow) {
	ask := func(n sheep.Node) *scrubRow {
		report, err := s.Scrub(ctx, remote.Address(n))
		if err != nil {
			return nil
		}
		return &scrubRow{n.String(), listing.NewScrub(report)}
	}
	for row := range remote.Ordered(slices.Values(s.nodes.Nodes), queryWidth, ask) {
		if row != nil {
			rows = append(rows, *row)
		}
	}
	return rows
}
