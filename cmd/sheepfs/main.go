// Sheepfs mounts a cluster of Sheepdog as a file tree; what is in it, package
// sheepfs tells.
//
// This directory turns the command line, that of a user or that of mount(8), into
// a config, and looks after the process: the daemon, its log, its signals. Called
// by the name mount.sheepfs it is the helper by which mount and /etc/fstab know
// the type sheepfs.
//
// A daemon tells the truth about its start: the process that was started by hand
// returns when the tree is mounted, with status 0, or when it is certain that it
// will not be, with the reason and another status. At the end, by umount or by
// SIGTERM, it makes durable what was written before it leaves.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"sheepdog/cmd/internal/logging"
	"sheepdog/sheepfs"
)

// progName is the name of this program in logs.
const progName = "sheepfs"

func main() {
	p := program{args: os.Args, stdout: os.Stdout, stderr: os.Stderr}
	os.Exit(p.main())
}

// A program is one run of sheepfs.
type program struct {
	args           []string // with the program's name
	stdout, stderr io.Writer
}

// main does everything and returns the exit status.
func (p *program) main() int {
	report, daemon, err := takeStage()
	if err != nil {
		fmt.Fprintf(p.stderr, "%s: %v\n", progName, err)
		return 1
	}
	cfg, err := parse(p.args)
	switch e, ok := errors.AsType[*misuse](err); {
	case ok && e.help:
		io.WriteString(p.stdout, e.text)
		return 0
	case err != nil:
		fmt.Fprintln(p.stderr, err)
		return 1
	case cfg.fake:
		return 0
	}
	switch {
	case cfg.remount:
		err = sheepfs.Remount(cfg.point, cfg.fs)
	case !cfg.foreground && !daemon:
		err = daemonise(p.args)
	default:
		err = serve(cfg, report)
	}
	if err != nil {
		fmt.Fprintf(p.stderr, "%s: %s\n", progName, oneLine(err))
		return cfg.failure
	}
	return 0
}

// errStopped is the cause of a context that ends because of a signal.
var errStopped = errors.New("stopped by a signal")

// serve mounts the tree and serves it until it is unmounted or a signal comes.
func serve(cfg config, report *reporter) error {
	log, err := openLog(cfg)
	if err != nil {
		report.failed(err)
		return err
	}
	defer log.sink.Close()
	slog.SetDefault(log.Logger) // for libraries
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	defer handleSignals(log, cancel)()
	if err := os.Chdir("/"); err != nil { // a process in its own mount deadlocks
		report.failed(err)
		return err
	}
	cfg.fs.Log = log.Logger
	tree, err := sheepfs.New(ctx, cfg.fs)
	if err == nil {
		if err = tree.Mount(cfg.point); err != nil {
			err = errors.Join(err, tree.Close())
		}
	}
	if err != nil {
		log.Error("cannot mount", "dir", cfg.point, "err", err)
		report.failed(err)
		return err
	}
	log.Info("mounted", "dir", cfg.point, "server", cfg.fs.Server)
	report.ready()
	return leave(ctx, cfg, tree, log.Logger)
}

// leave waits for the end of the mount, or ends it when ctx ends, and makes
// durable what was written.
func leave(ctx context.Context, cfg config, tree *sheepfs.FS, log *slog.Logger) error {
	gone := make(chan struct{})
	go func() {
		tree.Wait()
		close(gone)
	}()
	var err error
	select {
	case <-gone:
	case <-ctx.Done():
		err = tree.Unmount()
	}
	if e := tree.Close(); e != nil {
		err = errors.Join(err, e)
	}
	if err != nil {
		log.Error("unmounted, but not all is well", "dir", cfg.point, "err", err)
		return err
	}
	log.Info("unmounted", "dir", cfg.point)
	return nil
}

// handleSignals acts on signals: the first SIGTERM or SIGINT ends the mount in
// order, the second the process at once; SIGHUP rotates the log. The function
// that it returns stops that.
func handleSignals(log *openedLog, cancel context.CancelCauseFunc) (stop func()) {
	c := make(chan os.Signal, 8)
	done := make(chan struct{})
	signal.Ignore(syscall.SIGPIPE)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	go func() {
		defer close(done)
		stopping := false
		for sig := range c {
			switch {
			case sig == syscall.SIGHUP:
				if err := log.sink.Rotate(); err != nil {
					log.Error("the log could not be rotated", "err", err)
				}
			case stopping:
				log.Error("stopped at once by a second signal", "signal", sig.String())
				os.Exit(1)
			default:
				stopping = true
				log.Info("stopping", "signal", sig.String())
				cancel(errStopped)
			}
		}
	}()
	return func() {
		signal.Stop(c)
		close(c)
		<-done
	}
}

// An openedLog is the log of the daemon and what it is written to.
type openedLog struct {
	*slog.Logger
	sink logging.Sink
}

// openLog opens the log that cfg describes.
func openLog(cfg config) (*openedLog, error) {
	threshold := new(logging.Threshold)
	if err := threshold.Set(cfg.logs.severity); err != nil {
		return nil, err
	}
	opts := logging.Options{Format: cfg.logs.format, Threshold: threshold, Program: progName}
	l := new(openedLog)
	switch cfg.logs.destination {
	case toStdout:
		l.sink = logging.NewStream(os.Stderr)
	case toFile:
		f, err := logging.OpenFile(cfg.logs.dir, progName, nil)
		if err != nil {
			return nil, err
		}
		l.sink = f
	default:
		l.sink, _ = logging.NewSyslog(progName) // while there is no system log, records are lost
		opts.Stamped = true
	}
	l.Logger = slog.New(logging.NewHandler(l.sink, opts))
	return l, nil
}
