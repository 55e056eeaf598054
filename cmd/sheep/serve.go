package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/store/vfs"
)

// errStopped is the cause of a context that ends because of a signal.
var errStopped = errors.New("stopped by a signal")

// serve runs the node in this process until it is stopped, and returns the exit
// status.
func (p *program) serve(cfg config, st stage) int {
	report := newReporter(st)
	log, err := openLogs(cfg)
	if err != nil {
		return p.fail(cfg, report, err)
	}
	slog.SetDefault(log.Logger) // for libraries
	cfg.log, cfg.threshold = log.Logger, log.threshold
	status := p.serveLogged(cfg, st, log, report)
	log.close() // not deferred: after a panic the log is where it is described
	return status
}

// serveLogged does the work of serve once the log is open.
func (p *program) serveLogged(cfg config, st stage, log *openLog, report *reporter) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := handleSignals(log, cancel)
	defer signals.stop()

	pid, err := p.preparePid(cfg, st)
	if err != nil {
		log.Error(err.Error())
		return p.fail(cfg, report, err)
	}
	if st.Daemon {
		os.Chdir("/") // to pin no file system; staying is no reason to fail
	}
	for _, n := range cfg.notices {
		log.Log(ctx, n.level, n.text)
	}
	checkFiles(log.Logger)
	return p.live(ctx, cfg, st, life{log: log, report: report, pid: pid, signals: signals})
}

// preparePid takes the pid file, if there is to be one.
func (p *program) preparePid(cfg config, st stage) (*pidFile, error) {
	if cfg.pidFile == "" {
		return nil, nil
	}
	return openPidFile(cfg.pidFile, st.PidFD)
}

// A life is what a running node has beside its config.
type life struct {
	log     *openLog
	report  *reporter
	pid     *pidFile // nil if there is none
	signals *signals
}

// live runs the node and what comes after it. It returns the exit status.
func (p *program) live(ctx context.Context, cfg config, st stage, l life) int {
	var once sync.Once
	var joined atomic.Bool
	err := p.node(ctx, cfg, func() {
		once.Do(func() {
			l.log.Info(fmt.Sprintf("sheepdog daemon (version %s) started", sheep.Version()))
			l.report.ready()
			joined.Store(true)
		})
	})
	if errors.Is(err, errExpelled) && (joined.Load() || st.Rejoins > 0) {
		err = p.rejoin(ctx, st, l, err)
	}
	if removeErr := l.pid.remove(); removeErr != nil {
		l.log.Warn("the pid file stays behind", "err", removeErr)
	}
	if !joined.Load() && errors.Is(err, errStopped) {
		err = nil // told to stop while it started
	}
	if err == nil {
		l.log.Info("shutdown")
		return 0
	}
	text := explain(cfg, err)
	for line := range strings.SplitSeq(text, "\n") {
		l.log.Error(line)
	}
	if l.log.terminal {
		return 1 // whoever started sheep has read it
	}
	return p.fail(cfg, l.report, errors.New(text))
}

// fail tells the one who started sheep why it ends, and returns the status.
func (p *program) fail(cfg config, report *reporter, err error) int {
	if report.waiting() {
		report.failed(err.Error())
		return 1
	}
	p.complain(cfg, err.Error())
	return 1
}

// explain puts an error into the words that C Sheepdog's users know.
func explain(cfg config, err error) string {
	switch {
	case errors.Is(err, vfs.ErrLocked):
		return fmt.Sprintf("another sheep daemon is using %s\nlocking directory: %s failed", cfg.dir, cfg.dir)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("failed to bind server socket: %s (%v)\nfailed to create a listening port", reason(syscall.EADDRINUSE), err)
	}
	return err.Error()
}

// rejoin lets this process begin again as a new member, after a pause if that
// does not seem to help. It returns only if it cannot: with the error, or with
// nil if sheep was told to stop meanwhile.
func (p *program) rejoin(ctx context.Context, st stage, l life, expelled error) error {
	if st.Dir == "" {
		st.Dir, _ = os.Getwd() // without one, the command line has no relative paths
	}
	next, pause := st.rejoin(time.Now())
	l.log.Warn("this node was expelled from the cluster, and will rejoin it as a new member", "err", expelled, "pause", pause)
	select {
	case <-time.After(pause):
	case <-ctx.Done():
		return nil
	}
	exe, err := executable()
	if err != nil {
		return fmt.Errorf("rejoin: %w", err)
	}
	if next.PidFD, err = l.pid.keep(); err != nil {
		return fmt.Errorf("rejoin: keep the pid file: %w", err)
	}
	l.signals.stop()
	if ctx.Err() != nil {
		return nil // a signal came at the last moment
	}
	err = syscall.Exec(exe, p.args, next.environment())
	return fmt.Errorf("rejoin: start %s: %w", exe, err)
}
