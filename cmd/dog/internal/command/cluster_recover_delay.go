package command

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sheepdog/sheep/proto"
)

// maxDuration bounds durations on the command line.
const maxDuration = 365 * 24 * time.Hour

// clusterRecoverDelay shows or sets how long the copies of a node that has left
// are waited for before others make them anew.
func clusterRecoverDelay(ctx context.Context, s *session) error {
	if len(s.args) > 0 {
		d, err := parseDelay(s.args[0])
		if err != nil {
			return err
		}
		if err := s.SetHealDelay(ctx, d); err != nil {
			return s.recoverResult(err)
		}
	}
	h, err := s.Healing(ctx, "")
	if err != nil {
		return s.recoverResult(err)
	}
	s.print("Cluster recovery delay: %s\n", delayText(h.Delay))
	s.print("%s", absenceLines(h))
	return nil
}

func delayText(d time.Duration) string {
	if d == 0 {
		return "off"
	}
	return shortDuration(d)
}

func parseDelay(arg string) (time.Duration, error) {
	if arg == "off" || arg == "0" {
		return 0, nil
	}
	return parseDuration(arg)
}

// parseDuration parses a number of seconds, or numbers with the units d, h, m
// and s.
func parseDuration(arg string) (time.Duration, error) {
	invalid := fail(ExitUsage, "Invalid duration '%s': say 90s, 10m, 1h30m or 2d", arg)
	text, days := arg, int64(0)
	if before, after, ok := strings.Cut(arg, "d"); ok {
		n, err := strconv.ParseInt(before, 10, 32)
		if err != nil {
			return 0, invalid
		}
		text, days = after, n
	}
	var rest time.Duration
	if n, err := strconv.ParseInt(text, 10, 32); err == nil && days == 0 {
		rest = time.Duration(n) * time.Second
	} else if text != "" || days == 0 {
		if rest, err = time.ParseDuration(text); err != nil {
			return 0, invalid
		}
	}
	d := time.Duration(days)*24*time.Hour + rest
	if days < 0 || days > 365 || rest < 0 || d <= 0 || d > maxDuration {
		return 0, invalid
	}
	return d, nil
}

// shortDuration returns a duration as people write it.
func shortDuration(d time.Duration) string {
	if d == proto.Forever {
		return "ever"
	}
	d = d.Round(time.Second)
	var b strings.Builder
	if days := d / (24 * time.Hour); days > 0 {
		fmt.Fprintf(&b, "%dd", days)
		d %= 24 * time.Hour
	}
	if d == 0 {
		if b.Len() == 0 {
			return "0s"
		}
		return b.String()
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return b.String() + text
}

// absenceLines returns a line for each node that is waited for.
func absenceLines(h proto.Healing) string {
	var b strings.Builder
	for _, a := range h.Absent {
		why := "is absent"
		if a.Maintained {
			why = "is being maintained"
		}
		if a.Left == proto.Forever {
			fmt.Fprintf(&b, "Node %v %s: healing waits until it is back\n", a.Node, why)
		} else {
			fmt.Fprintf(&b, "Node %v %s: healing waits another %s for it\n", a.Node, why, shortDuration(a.Left))
		}
	}
	return b.String()
}
