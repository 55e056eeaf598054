package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"sheepdog/cmd/internal/logging"
)

// An openLog is the log of the daemon and what it is written to.
type openLog struct {
	*slog.Logger
	threshold *logging.Threshold
	sink      logging.Sink
	terminal  bool // whoever started sheep sees the log
}

// openLogs opens the log that cfg describes and lets the Go runtime write there
// if the program crashes.
func openLogs(cfg config) (*openLog, error) {
	l := &openLog{threshold: new(logging.Threshold)}
	if err := l.threshold.Set(cfg.logs.severity); err != nil {
		return nil, err
	}
	opts := logging.Options{Format: cfg.logs.format, Threshold: l.threshold, Port: cfg.port}
	var late error
	switch cfg.logs.destination {
	case toStdout:
		l.sink, l.terminal = logging.NewStream(os.Stderr), true
		opts.Colour = isTerminal(os.Stderr)
	case toSyslog:
		var sink *logging.Syslog
		sink, late = logging.NewSyslog(progName)
		l.sink, opts.Stamped = sink, true
		// The system's log takes records only; a crash is described in the file.
		if f, err := os.OpenFile(filepath.Join(cfg.logs.dir, logging.FileName(progName)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err == nil {
			catchCrash(f)
			f.Close()
		}
	default:
		file, err := logging.OpenFile(cfg.logs.dir, progName, catchCrash)
		if err != nil {
			return nil, err
		}
		l.sink = file
	}
	l.Logger = slog.New(logging.NewHandler(l.sink, opts))
	if late != nil {
		fmt.Fprintf(os.Stderr, "sheep: %v; records are lost until it is back\n", late)
	}
	return l, nil
}

// openStream returns a logger for the time before the log is open.
func openStream(w io.Writer, cfg config) *slog.Logger {
	f, ok := w.(*os.File)
	return slog.New(logging.NewHandler(logging.NewStream(w), logging.Options{
		Format: cfg.logs.format,
		Port:   cfg.port,
		Colour: ok && isTerminal(f),
	}))
}

// catchCrash makes f the place where the Go runtime describes a crash, besides
// the standard error output, which a daemon does not have. Without it the
// crash is merely not described, so an error does not matter.
func catchCrash(f *os.File) { _ = debug.SetCrashOutput(f, debug.CrashOptions{}) }

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// minFiles is the number of open files below which a node with many disks and
// clients may be in trouble.
const minFiles = 16384

// checkFiles warns of a low limit of open files. The Go runtime has raised the
// soft limit to the hard one.
func checkFiles(log *slog.Logger) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < minFiles {
		log.Warn("few files may be open at the same time, please raise the limit (ulimit -n)", "limit", limit.Cur, "recommended", minFiles)
	}
}

// close closes the log for good.
func (l *openLog) close() error {
	return errors.Join(debug.SetCrashOutput(nil, debug.CrashOptions{}), l.sink.Close())
}
