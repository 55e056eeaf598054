package command

import (
	"context"
	"fmt"
	"slices"
)

// logLevels returns the names of the levels, by number.
func logLevels() []string {
	return []string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}
}

// nodeLogLevel shows or sets how much the node logs, or lists the levels.
func nodeLogLevel(ctx context.Context, s *session) error {
	switch action := s.args[0]; {
	case action == "get" && len(s.args) == 1:
		level, err := s.LogLevel(ctx)
		if err != nil {
			return requestFailed(err)
		}
		name := "unknown"
		if names := logLevels(); level >= 0 && level < len(names) {
			name = names[level]
		}
		s.print("%s (%d)\n", name, level)
	case action == "list" && len(s.args) == 1:
		for _, line := range levelList() {
			s.print("%s\n", line)
		}
	case action == "set" && len(s.args) == 2:
		level := slices.Index(logLevels(), s.args[1])
		if level < 0 {
			f := fail(ExitUsage, "invalid loglevel: %s", s.args[1]).and("available loglevels:")
			f.lines = append(f.lines, levelList()...)
			return f
		}
		if err := s.SetLogLevel(ctx, level); err != nil {
			return requestFailed(err)
		}
	case action == "set" && len(s.args) == 1:
		return badUsage("Please specify the log level")
	default:
		return badUsage("Invalid command '%s'", join(append([]string{"node log level"}, s.args...)...))
	}
	return nil
}

func levelList() []string {
	var lines []string
	for i, name := range logLevels() {
		lines = append(lines, fmt.Sprintf("%s\t(%d)", name, i))
	}
	return lines
}
