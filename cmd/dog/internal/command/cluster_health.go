package command

import (
	"context"
	"fmt"
	"time"

	"sheepdog/sheep/health"
)

// healthPatience bounds how long nodes are waited for that do not answer.
const healthPatience = 10 * time.Second

// A healthReport is the JSON form of cluster health.
type healthReport struct {
	Health  string   `json:"health"`
	Reasons []string `json:"reasons"`

	VDIs       []vdiHealthRow `json:"vdis"`       // with objects that are not as they should be
	Unreadable []string       `json:"unreadable"` // objects
	Plans      uint64         `json:"plans"`      // cluster operations that are open
}

// A vdiHealthRow counts the objects of a VDI that are not as they should be.
type vdiHealthRow struct {
	ID         string `json:"vdi_id"` // hexadecimal
	Name       string `json:"name"`
	Degraded   uint64 `json:"degraded"`
	Unrepaired uint64 `json:"unrepaired"`
	Unreadable uint64 `json:"unreadable"`
}

func newHealthReport(r health.Report) healthReport {
	report := healthReport{
		Health: r.Level.String(), Reasons: append([]string{}, r.Reasons...),
		VDIs: []vdiHealthRow{}, Unreadable: []string{}, Plans: r.Plans,
	}
	for _, v := range r.VDIs {
		report.VDIs = append(report.VDIs, vdiHealthRow{v.ID.String(), v.Name, v.Degraded, v.Unrepaired, v.Unreadable})
	}
	for _, id := range r.Unreadable {
		report.Unreadable = append(report.Unreadable, id.String())
	}
	return report
}

// clusterHealth says in one word how the cluster is, then why. The exit status
// is for monitors: 0 if all is well, ExitFailure if it serves all the same, and
// ExitSystem if it does not.
func clusterHealth(ctx context.Context, s *session) error {
	ctx, cancel := context.WithTimeoutCause(ctx, healthPatience, fmt.Errorf("no answer in %v", healthPatience))
	defer cancel()
	r := health.Diagnose(ctx, s.Cluster)
	if s.opts.json {
		if err := s.writeJSON(newHealthReport(r)); err != nil {
			return err
		}
	} else {
		s.print("%v\n", r.Level)
		for _, reason := range r.Reasons {
			s.print("%s\n", reason)
		}
	}
	switch {
	case r.Level == health.OK:
		return nil
	case r.Level < health.Stopped:
		return quiet(ExitFailure)
	}
	return quiet(ExitSystem)
}
