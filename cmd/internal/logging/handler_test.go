package logging_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"sheepdog/cmd/internal/logging"
)

// moment is when the records of the tests are made.
var moment = time.Date(2026, time.November, 1, 3, 4, 5, 678901234, time.UTC)

// A writer makes records at a known time and place.
type writer struct{ h slog.Handler }

func (w *writer) log(t *testing.T, level slog.Level, msg string, args ...any) {
	t.Helper()
	var pcs [1]uintptr
	runtime.Callers(1, pcs[:])
	r := slog.NewRecord(moment, level, msg, pcs[0])
	r.Add(args...)
	if err := w.h.Handle(context.Background(), r); err != nil {
		t.Fatal(err)
	}
}

// masked hides line numbers, which change with this file.
func masked(s string) string {
	s = regexp.MustCompile(`log\(\d+\)`).ReplaceAllString(s, "log(N)")
	return regexp.MustCompile(`"line": \d+`).ReplaceAllString(s, `"line": N`)
}

func TestFormats(t *testing.T) {
	tests := []struct {
		name  string
		opts  logging.Options
		level slog.Level
		msg   string
		args  []any
		want  string
	}{
		{
			"server", logging.Options{}, slog.LevelInfo, "joined", []any{"epoch", 3},
			"Nov  1 03:04:05   INFO [main] logging_test.writer.log(N) joined epoch=3\n",
		},
		{
			"server, five letters", logging.Options{Format: logging.Server}, slog.LevelError, "lost", []any{"err", errors.New("no route")},
			"Nov  1 03:04:05  ERROR [main] logging_test.writer.log(N) lost err=\"no route\"\n",
		},
		{
			"server, the sink adds the time", logging.Options{Stamped: true}, slog.LevelWarn, "slow", nil,
			"  WARN [main] logging_test.writer.log(N) slow\n",
		},
		{
			"server, for a terminal", logging.Options{Colour: true}, slog.LevelError, "lost", nil,
			"Nov  1 03:04:05 \x1b[31m ERROR [main] logging_test.writer.log(N) lost\x1b[0m\n",
		},
		{
			"default", logging.Options{Format: logging.Default}, slog.LevelInfo, "joined", []any{"epoch", 3},
			"joined epoch=3\n",
		},
		{
			"json", logging.Options{Format: logging.JSON, Port: 7004}, slog.LevelInfo, "joined", []any{"epoch", 3},
			`{ "user_info": {"program_name": "sheep", "port": 7004},"body": {"second": 1793502245, "usecond": 678901, ` +
				`"worker_name": "main", "worker_idx": 0, "func": "logging_test.writer.log", "line": N, "msg": "joined epoch=3"} }` + "\n",
		},
		{
			"values of all sorts", logging.Options{Format: logging.Default}, slog.LevelInfo, "m",
			[]any{"s", "a b", "empty", "", "equals", "a=b", "addr", netip.MustParseAddrPort("[::1]:7000"), "d", 3 * time.Second, "t", moment, "nil", nil, slog.Group("g", "a", 1, "b", 2)},
			`m s="a b" empty="" equals="a=b" addr=[::1]:7000 d=3s t=2026-11-01T03:04:05.678901234Z nil=<nil> g.a=1 g.b=2` + "\n",
		},
		{
			"control characters are escaped", logging.Options{Format: logging.Default}, slog.LevelInfo, "a\nb\tc\x1b[31m\u2028\xff",
			[]any{"name", "x\nNov  1", "name", "\x00", "na\nme", "é"},
			`a\nb\tc\x1b[31m\u{2028}\xff name="x\nNov  1" name=\x00 na\nme=é` + "\n",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var out bytes.Buffer
			w := writer{logging.NewHandler(logging.NewStream(&out), test.opts)}
			w.log(t, test.level, test.msg, test.args...)
			if got := masked(out.String()); got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestEveryWordOfSeverity(t *testing.T) {
	var out bytes.Buffer
	w := writer{logging.NewHandler(logging.NewStream(&out), logging.Options{Stamped: true, Threshold: slog.LevelDebug})}
	for s := logging.Emerg; s.Valid(); s++ {
		w.log(t, s.Level(), s.String())
	}
	want := strings.ReplaceAll(` EMERG @ emerg
 ALERT @ alert
  CRIT @ crit
 ERROR @ err
  WARN @ warning
NOTICE @ notice
  INFO @ info
 DEBUG @ debug
`, "@", "[main] logging_test.writer.log(N)")
	if got := masked(out.String()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestJSONIsValidWhateverIsLogged(t *testing.T) {
	for _, msg := range []string{"plain", `a "quoted" \path`, "a\nb\x00\x1b\x7f", "not \xff UTF-8", "日本", "\u2028", "</script>"} {
		var out bytes.Buffer
		w := writer{logging.NewHandler(logging.NewStream(&out), logging.Options{Format: logging.JSON})}
		w.log(t, slog.LevelInfo, msg, "name", msg)
		var record struct {
			User struct {
				Program string `json:"program_name"`
				Port    int
			} `json:"user_info"`
			Body map[string]any
		}
		if err := json.Unmarshal(out.Bytes(), &record); err != nil {
			t.Errorf("message %q: %v in %s", msg, err, &out)
			continue
		}
		if record.User.Program != "sheep" || len(record.Body) != 7 {
			t.Errorf("message %q: got %+v", msg, record)
		}
		if strings.Count(out.String(), "\n") != 1 {
			t.Errorf("message %q: %q is more than a line", msg, &out)
		}
	}
}

func TestAttributesOfALogger(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(logging.NewHandler(logging.NewStream(&out), logging.Options{Format: logging.Default}))
	narrow := log.With("node", "127.0.0.1:7000").WithGroup("disk").With("name", "a b")
	narrow.Info("full", "free", 0)
	log.Info("other")
	want := "full node=127.0.0.1:7000 disk.name=\"a b\" disk.free=0\nother\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
}

func TestThresholdChangesWhileTheDaemonRuns(t *testing.T) {
	threshold := new(logging.Threshold)
	log := slog.New(logging.NewHandler(logging.NewStream(new(bytes.Buffer)), logging.Options{Threshold: threshold}))
	if got := threshold.Severity(); got != logging.Info {
		t.Errorf("the first threshold is %v, want info", got)
	}
	for s := logging.Emerg; s.Valid(); s++ {
		if err := threshold.Set(s); err != nil {
			t.Fatal(err)
		}
		if got := threshold.Severity(); got != s {
			t.Errorf("threshold %v, want %v", got, s)
		}
		for r := logging.Emerg; r.Valid(); r++ {
			if got, want := log.Enabled(t.Context(), r.Level()), r <= s; got != want {
				t.Errorf("threshold %v: %v is kept: %v, want %v", s, r, got, want)
			}
		}
	}
	for _, s := range []logging.Severity{-1, 8} {
		if err := threshold.Set(s); !errors.Is(err, logging.ErrSeverity) {
			t.Errorf("Set(%d): %v, want ErrSeverity", int(s), err)
		}
	}
}

func TestSeverities(t *testing.T) {
	for s := logging.Emerg; s.Valid(); s++ {
		if got, err := logging.ParseSeverity(s.String()); err != nil || got != s {
			t.Errorf("ParseSeverity(%q) = %v, %v", s.String(), got, err)
		}
		if got := logging.SeverityOf(s.Level()); got != s {
			t.Errorf("SeverityOf(%v.Level()) = %v", s, got)
		}
	}
	for _, name := range []string{"", "INFO", "error", "6", "info "} {
		if _, err := logging.ParseSeverity(name); !errors.Is(err, logging.ErrSeverity) {
			t.Errorf("ParseSeverity(%q): %v, want ErrSeverity", name, err)
		}
	}
	if got := logging.SeverityOf(slog.LevelDebug - 4); got != logging.Debug {
		t.Errorf("below debug: %v, want debug", got)
	}
	if got := logging.SeverityOf(slog.LevelError + 1); got != logging.Err {
		t.Errorf("just above error: %v, want err", got)
	}
}
