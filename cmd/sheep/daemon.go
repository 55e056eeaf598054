package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"sheepdog/cmd/internal/logging"
)

// started is what a daemon tells its parent when it is ready. Everything else
// is why it is not.
const started = "ready"

// maxReport bounds what the parent reads of a report.
const maxReport = 64 << 10

// daemonise starts the daemon and waits until it is ready, or until it is known
// that it will never be.
//
// The daemon is this program again with the same command line, in a session of
// its own: a Go program cannot fork. Tools that look for sheep in the process
// table see one command line all the time.
func (p *program) daemonise(cfg config, st stage) int {
	r, w, err := os.Pipe()
	if err != nil {
		p.complain(cfg, fmt.Sprintf("become a daemon: %v", err))
		return 1
	}
	defer r.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT) // before there is a daemon that could be forgotten
	cmd, err := p.startDaemon(st, w)
	w.Close()
	if err != nil {
		p.complain(cfg, fmt.Sprintf("become a daemon: %v", err))
		return 1
	}
	defer passSignals(stop, cmd.Process)()

	report, err := io.ReadAll(io.LimitReader(r, maxReport))
	if string(report) == started {
		return 0
	}
	if err == nil && len(report) > 0 {
		cmd.Wait() // its report is what counts; it is about to end
		p.complain(cfg, string(report))
		return 1
	}
	err = errors.Join(err, cmd.Wait())
	if err == nil {
		p.complain(cfg, "sheep was stopped before it was ready")
		return 1
	}
	p.complain(cfg, fmt.Sprintf("sheep died while it started (%v); look into %s", err, logPlace(cfg)))
	return 1
}

// startDaemon starts this program as a daemon that reports to w.
func (p *program) startDaemon(st stage, w *os.File) (*exec.Cmd, error) {
	exe, err := executable()
	if err != nil {
		return nil, err
	}
	st.Settled, st.Daemon, st.ReadyFD = true, true, 3 // the first of ExtraFiles
	if st.Dir == "" {
		st.Dir, _ = os.Getwd() // without one, the command line has no relative paths or was refused
	}
	cmd := &exec.Cmd{
		Path:        exe,
		Args:        p.args,
		Env:         st.environment(),
		ExtraFiles:  []*os.File{w},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	return cmd, cmd.Start() // nil for the standard files means /dev/null
}

// executable returns the path of this program. The path itself is better than
// /proc/self/exe, which would become the name of the process.
func executable() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "/proc/self/exe", nil // it was replaced or removed: go on with what runs
	}
	return path, nil
}

// passSignals lets the daemon end when its parent is told to end. The function
// that it returns stops that.
func passSignals(stop <-chan os.Signal, daemon *os.Process) func() {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				daemon.Signal(syscall.SIGTERM) // fails if it has ended, which is as well
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// logPlace says where the log of cfg is.
func logPlace(cfg config) string {
	switch cfg.logs.destination {
	case toSyslog:
		return "the system log"
	case toStdout:
		return "the output above"
	}
	return filepath.Join(cfg.logs.dir, logging.FileName(progName))
}

// A reporter tells the parent of a daemon how the start went. Its methods do
// nothing if there is no parent, or after the first call.
type reporter struct {
	f *os.File // nil when nobody waits
}

func newReporter(st stage) *reporter {
	if st.ReadyFD == 0 {
		return &reporter{}
	}
	return &reporter{f: os.NewFile(uintptr(st.ReadyFD), "parent")}
}

// waiting reports whether a parent waits.
func (r *reporter) waiting() bool { return r.f != nil }

func (r *reporter) ready() { r.say(started) }

func (r *reporter) failed(text string) { r.say(text) }

// say sends a report. A parent that has died does not matter.
func (r *reporter) say(text string) {
	if r.f == nil {
		return
	}
	io.WriteString(r.f, text)
	r.f.Close()
	r.f = nil
}
