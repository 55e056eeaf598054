package command

import (
	"context"
	"io"
	"log/slog"
	"log/syslog"
	"os"

	"sheepdog/nbd/attach"
)

// nbdMonitor keeps a device alive until it is detached.
func nbdMonitor(ctx context.Context, s *session) error {
	d, err := s.attached(s.name())
	if err != nil {
		return err
	}
	return s.monitor(ctx, d, s.arg(1), func() {
		s.print("Watching %s\n", d.Path)
		s.out.Flush() // whoever started this process waits for the line
	})
}

// monitor replaces the connections of d that die, until it is detached.
func (s *session) monitor(ctx context.Context, d attach.Device, export string, ready func()) error {
	log, done, err := s.monitorLog()
	if err != nil {
		return fail(ExitSystem, "Failed: %v", err)
	}
	defer done()
	o := s.opts.nbd
	err = s.app.env.Host.Monitor(ctx, d.Index, attach.MonitorConfig{
		Addrs: o.addrs, Export: export, Connections: o.connections, Log: log, Ready: ready,
	})
	if err != nil && ctx.Err() != nil {
		return err // the user has ended it
	}
	if err != nil {
		log.Error("nothing watches the device any more", "err", err)
		return nbdFailed(err)
	}
	return nil
}

// monitorLog returns the log of a monitor: the file of the options, standard
// error of a monitor in the foreground, else the system's log.
func (s *session) monitorLog() (log *slog.Logger, done func() error, err error) {
	switch {
	case s.opts.nbd.log != "":
		f, err := os.OpenFile(s.opts.nbd.log, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
		if err != nil {
			return nil, nil, err
		}
		return slog.New(slog.NewTextHandler(f, nil)), f.Close, nil
	case s.opts.nbd.foreground:
		return slog.New(slog.NewTextHandler(s.app.env.Stderr, nil)), func() error { return nil }, nil
	}
	w, err := syslog.New(syslog.LOG_INFO|syslog.LOG_DAEMON, "sheepdog-nbd")
	if err != nil { // a machine without one is no reason not to attach disks
		return slog.New(slog.NewTextHandler(io.Discard, nil)), func() error { return nil }, nil
	}
	undated := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{} // the system's log has it
		}
		return a
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: undated})), w.Close, nil
}
