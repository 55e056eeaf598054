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
}

// clusterHealth says in one word how the cluster is, then why. The exit status
// is for monitors: 0 if all is well, ExitFailure if it serves all the same, and
// ExitSystem if it does not.
func clusterHealth(ctx context.Context, s *session) error {
	ctx, cancel := context.WithTimeoutCause(ctx, healthPatience, fmt.Errorf("no answer in %v", healthPatience))
	defer cancel()
	r := health.Diagnose(ctx, s.Cluster)
	if s.opts.json {
		if err := s.writeJSON(healthReport{r.Level.String(), append([]string{}, r.Reasons...)}); err != nil {
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
