package command

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// A slowRow is a request that has been in flight for long; its JSON form is
// fixed.
type slowRow struct {
	nodeRow
	Age     float64  `json:"age_seconds"`
	Op      string   `json:"op"`
	Object  string   `json:"object"`
	VDI     string   `json:"vdi_id"`
	Name    string   `json:"name"`
	State   string   `json:"state"`     // what it waits for
	Waits   []string `json:"waits_for"` // host:port of who has not answered
	Epoch   uint32   `json:"epoch"`     // 0 if that does not matter
	Client  string   `json:"client"`
	GivenUp bool     `json:"given_up"` // its client does not wait any more
	Reason  string   `json:"reason"`
}

// slowPatience is how long a node is waited for: it may be the one that hangs.
const slowPatience = 3 * time.Second

// nodeSlow shows the requests of clients that have been in flight for more than a
// second on all nodes, or on one.
func nodeSlow(ctx context.Context, s *session) error {
	type answer struct {
		node nodeRow
		list proto.SlowList
		err  error
	}
	nodes := s.nodeRows()
	if len(s.args) > 0 {
		one, err := s.findNode(s.args[0])
		if err != nil {
			return err
		}
		nodes = slices.DeleteFunc(nodes, func(n nodeRow) bool { return s.nodes.Nodes[n.ID].Addr != one.Addr })
		if len(nodes) == 0 {
			return fail(ExitUsage, "No node of the cluster is at %v", one)
		}
	}
	rows := []slowRow{}
	status := ExitSuccess
	for a := range remote.Ordered(slices.Values(nodes), queryWidth, func(n nodeRow) answer {
		ctx, cancel := context.WithTimeoutCause(ctx, slowPatience, fmt.Errorf("no answer in %v", slowPatience))
		defer cancel()
		list, err := s.Slow(ctx, remote.Address(s.nodes.Nodes[n.ID]))
		return answer{n, list, err}
	}) {
		if a.err != nil {
			f := failed(a.err, "Failed to get the slow requests of node %d: %s", a.node.ID, remote.Text(a.err))
			s.warn("%v", f)
			status = f.status
			continue
		}
		for _, r := range a.list.Requests {
			rows = append(rows, newSlowRow(a.node, r))
		}
		if more := int(a.list.Total) - len(a.list.Requests); more > 0 {
			s.warn("node %d has %d more", a.node.ID, more)
		}
	}
	slices.SortStableFunc(rows, func(a, b slowRow) int { return cmp.Compare(b.Age, a.Age) })
	if err := s.showSlow(rows, status == ExitSuccess); err != nil {
		return err
	}
	if status != ExitSuccess {
		return quiet(status)
	}
	return nil
}

func newSlowRow(n nodeRow, r proto.SlowRequest) slowRow {
	row := slowRow{
		nodeRow: n, Age: r.Age.Round(time.Millisecond).Seconds(), Op: r.Op, Object: r.ID.String(), VDI: r.ID.VDI().String(),
		Name: r.Name, State: r.State, Waits: []string{}, Epoch: uint32(r.Epoch), Client: r.Client, GivenUp: r.GivenUp,
		Reason: strings.ReplaceAll(r.Reason, "\n", "; "),
	}
	for _, addr := range r.Nodes {
		row.Waits = append(row.Waits, sheep.FormatAddr(addr))
	}
	return row
}

// showSlow prints rows. Without any it says so, if all nodes were asked.
func (s *session) showSlow(rows []slowRow, all bool) error {
	switch {
	case s.opts.json:
		return s.writeJSON(rows)
	case s.opts.raw:
		for _, r := range rows {
			s.print("%d %.3f %s %s %s %s %s %d %s %s\n", r.ID, r.Age, r.Op, r.Object, escape(dash(r.Name)), r.state(),
				dash(strings.Join(r.Waits, ",")), r.Epoch, escape(r.Client), r.Reason)
		}
		return nil
	case len(rows) == 0 && all:
		s.print("No request has been in flight for more than %v.\n", proto.SlowAge)
		return nil
	case len(rows) == 0:
		return nil
	}
	s.print("  Id      Age  Op       Object            VDI              Epoch  Waits for                         Client\n")
	for _, r := range rows {
		waits := strings.TrimSpace(r.state() + " " + strings.Join(r.Waits, " "))
		s.print("%4d %8s  %-7s  %s  %-15s  %5s  %-32s  %s\n", r.ID, fmt.Sprintf("%.1fs", r.Age), r.Op, r.Object, dash(r.Name),
			dash(strings.TrimPrefix(fmt.Sprint(r.Epoch), "0")), waits, r.Client)
		if r.Reason != "" {
			s.print("                         %s\n", r.Reason)
		}
	}
	return nil
}

// state returns what the request waits for, marked if its client does not wait.
func (r slowRow) state() string {
	if r.GivenUp {
		return r.State + "(given-up)"
	}
	return r.State
}

// dash returns s, or a dash where a column would be empty.
func dash(s string) string { return cmp.Or(s, "-") }
