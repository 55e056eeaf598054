package logging

import (
	"errors"
	"fmt"
	"log/slog"
)

// A Severity says how bad a record is, in the eight steps of syslog. Clients
// read and set it by number: never renumber.
type Severity int

// The severities.
const (
	Emerg   Severity = 0
	Alert   Severity = 1
	Crit    Severity = 2
	Err     Severity = 3
	Warning Severity = 4
	Notice  Severity = 5
	Info    Severity = 6
	Debug   Severity = 7
)

// ErrSeverity says that a number or word is no severity.
var ErrSeverity = errors.New("no such log level")

// severities describes each severity at its number: its name, its word in the
// log, where slog has it, and what it means.
var severities = [...]struct {
	name  string
	word  string
	level slog.Level
	about string
}{
	{"emerg", "EMERG", 20, "nothing works any more"},
	{"alert", "ALERT", 16, "somebody has to act now"},
	{"crit", "CRIT", 12, "an important part does not work"},
	{"err", "ERROR", slog.LevelError, "something could not be done"},
	{"warning", "WARN", slog.LevelWarn, "something looks wrong"},
	{"notice", "NOTICE", 2, "all is well, but worth knowing"},
	{"info", "INFO", slog.LevelInfo, "what an operator likes to follow"},
	{"debug", "DEBUG", slog.LevelDebug, "every step, for developers"},
}

// ParseSeverity returns the severity with the name.
func ParseSeverity(name string) (Severity, error) {
	for i, s := range severities {
		if s.name == name {
			return Severity(i), nil
		}
	}
	return 0, fmt.Errorf("%w: %q", ErrSeverity, name)
}

// SeverityOf returns the severity of records with the slog level: the most
// severe one that starts at or below it.
func SeverityOf(level slog.Level) Severity {
	for i, s := range severities {
		if level >= s.level {
			return Severity(i)
		}
	}
	return Debug
}

// Valid reports whether s is one of the eight.
func (s Severity) Valid() bool { return s >= Emerg && s <= Debug }

// Level returns where s is on the scale of slog.
func (s Severity) Level() slog.Level { return severities[s].level }

// About says in a few words what s means.
func (s Severity) About() string { return severities[s].about }

func (s Severity) String() string {
	if !s.Valid() {
		return fmt.Sprintf("severity %d", int(s))
	}
	return severities[s].name
}

func (s Severity) word() string { return severities[s].word }

// A Threshold is the severity from which records are kept. It may be read and
// changed at any time. The zero value keeps Info and worse.
type Threshold struct {
	level slog.LevelVar
}

// Severity returns the least severe severity that is kept.
func (t *Threshold) Severity() Severity { return SeverityOf(t.level.Level()) }

// Set keeps s and all that is worse.
func (t *Threshold) Set(s Severity) error {
	if !s.Valid() {
		return fmt.Errorf("%w: %d", ErrSeverity, int(s))
	}
	t.level.Set(s.Level())
	return nil
}

// Level returns the threshold as slog has it.
func (t *Threshold) Level() slog.Level { return t.level.Level() }
