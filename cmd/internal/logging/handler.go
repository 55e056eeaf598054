// Package logging writes the log of the daemon in the forms that C Sheepdog's
// users and their scripts know.
//
// It is a slog.Handler with three line formats and three destinations: a file
// that is rotated, the system's log, and the standard error output. The eight
// severities of syslog are spread over slog's scale, and the threshold can be
// changed while the daemon runs.
//
// One record is one line, whatever is in it: control characters of messages and
// values are escaped, so that the name of a disk cannot forge a record. A
// record that cannot be written is lost; logging never fails the caller.
package logging

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Format is a layout of lines.
type Format string

// The formats: the message alone, a line with time and place, and JSON.
const (
	Default Format = "default"
	Server  Format = "server"
	JSON    Format = "json"
)

// Formats returns all formats.
func Formats() []Format { return []Format{Default, Server, JSON} }

// A Sink takes finished lines, each with its newline. Emit may be called
// concurrently and must not keep line.
type Sink interface {
	Emit(s Severity, line []byte) error
	// Rotate starts a new file, if the sink has files.
	Rotate() error
	Close() error
}

// Options say how a Handler writes.
type Options struct {
	Format    Format       // Server if empty
	Threshold slog.Leveler // the least that is kept, asked for each record; Info if nil
	Program   string       // for JSON; sheep if empty
	Port      uint16       // of the daemon, for JSON
	Colour    bool         // for terminals; Server only
	Stamped   bool         // the sink adds the time itself; Server only
}

// A Handler formats records and gives them to a sink.
type Handler struct {
	sink   Sink
	opts   Options
	attrs  string // of With, formatted, each with a blank before it
	prefix string // of WithGroup, each with a dot behind it
}

var _ slog.Handler = (*Handler)(nil)

// NewHandler returns a handler that writes to sink.
func NewHandler(sink Sink, opts Options) *Handler {
	if opts.Format == "" {
		opts.Format = Server
	}
	if opts.Program == "" {
		opts.Program = "sheep"
	}
	if opts.Threshold == nil {
		opts.Threshold = Info.Level()
	}
	return &Handler{sink: sink, opts: opts}
}

// Enabled reports whether records of the level are kept at the moment.
func (h *Handler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.opts.Threshold.Level()
}

// Handle writes one record.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	msg := h.message(r)
	place := placeOf(r.PC)
	b := (*buf)[:0]
	switch h.opts.Format {
	case JSON:
		b = appendJSON(b, r.Time, h.opts, place, msg)
	case Server:
		b = h.appendServer(b, r, place, msg)
	default:
		b = append(b, msg...)
	}
	b = append(b, '\n')
	*buf = b
	return h.sink.Emit(SeverityOf(r.Level), b)
}

// WithAttrs returns a handler that adds attrs to every record.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	var b []byte
	for _, a := range attrs {
		b = appendAttr(b, h.prefix, a)
	}
	with.attrs += string(b)
	return &with
}

// WithGroup returns a handler that puts name before the keys of what is added.
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.prefix += name + "."
	return &with
}

// buffers holds lines under construction, *[]byte.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// message returns the message and all attributes in one line.
func (h *Handler) message(r slog.Record) string {
	b := appendClean(nil, r.Message)
	b = append(b, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		b = appendAttr(b, h.prefix, a)
		return true
	})
	return string(b)
}

// appendServer appends a line like
//
//	Nov  1 03:23:44  ERROR [main] store.Open(112) message
func (h *Handler) appendServer(b []byte, r slog.Record, p place, msg string) []byte {
	if !h.opts.Stamped && !r.Time.IsZero() {
		b = r.Time.AppendFormat(b, time.Stamp)
		b = append(b, ' ')
	}
	s, on, off := SeverityOf(r.Level), "", ""
	if h.opts.Colour {
		on, off = colour(s), "\x1b[0m"
	}
	b = append(b, on...)
	b = fmt.Appendf(b, "%6s [main] %s(%d) ", s.word(), p.function, p.line)
	b = append(b, msg...)
	return append(b, off...)
}

// colour returns what makes a terminal write in the colour of s.
func colour(s Severity) string {
	switch {
	case s <= Err:
		return "\x1b[31m"
	case s == Warning:
		return "\x1b[33m"
	case s == Notice:
		return "\x1b[36m"
	case s == Debug:
		return "\x1b[2m"
	}
	return ""
}

// appendJSON appends one object with the keys that C Sheepdog's users parse.
func appendJSON(b []byte, t time.Time, opts Options, p place, msg string) []byte {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	b = fmt.Appendf(b, `{ "user_info": {"program_name": "%s", "port": %d},`, opts.Program, opts.Port)
	b = fmt.Appendf(b, `"body": {"second": %d, "usecond": %d, "worker_name": "main", "worker_idx": 0, `, t.Unix(), t.Nanosecond()/1000)
	b = append(b, `"func": `...)
	b = appendString(b, p.function)
	b = fmt.Appendf(b, `, "line": %d, "msg": `, p.line)
	b = appendString(b, msg)
	return append(b, "} }"...)
}

// appendString appends s as a JSON string. What is not UTF-8 is replaced.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < 0x20 || r == 0x7f:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// appendAttr appends " key=value" for a and, if it is a group, for all in it.
func appendAttr(b []byte, prefix string, a slog.Attr) []byte {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return b
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range v.Group() {
			b = appendAttr(b, prefix, member)
		}
		return b
	}
	b = append(b, ' ')
	b = appendClean(b, prefix+a.Key)
	b = append(b, '=')
	s := v.String()
	if v.Kind() == slog.KindTime {
		s = v.Time().Format(time.RFC3339Nano)
	}
	if s == "" || strings.ContainsAny(s, ` ="`) {
		return strconv.AppendQuote(b, s)
	}
	return appendClean(b, s)
}

// appendClean appends s with what would not show as one line escaped.
func appendClean(b []byte, s string) []byte {
	for i, w := 0, 0; i < len(s); i += w {
		var r rune
		r, w = utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && w == 1:
			b = fmt.Appendf(b, `\x%02x`, s[i])
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\t':
			b = append(b, `\t`...)
		case unicode.IsPrint(r):
			b = utf8.AppendRune(b, r)
		case r < 0x80:
			b = fmt.Appendf(b, `\x%02x`, r)
		default:
			b = fmt.Appendf(b, `\u{%x}`, r)
		}
	}
	return b
}

// A place is where a record was made.
type place struct {
	function string
	line     int
}

// placeOf returns the place of a program counter: the function with its package
// and type, but without the path, the marks of pointers, and what the compiler
// calls the functions within it.
func placeOf(pc uintptr) place {
	if pc == 0 {
		return place{function: "sheep"}
	}
	frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	name := frame.Function[strings.LastIndexByte(frame.Function, '/')+1:]
	name = strings.NewReplacer("(*", "", ")", "", "(", "").Replace(name)
	name, _, _ = strings.Cut(name, "-range")
	name, _, _ = strings.Cut(name, ".func")
	return place{function: name, line: frame.Line}
}
