package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

// stageVar is the environment variable by which the daemon learns that it is one:
// the number of the file on which its parent waits.
const stageVar = "SHEEPFS_READY_FD"

// started is what a daemon tells its parent when the tree is mounted. Everything
// else is why it is not.
const started = "mounted"

// maxReport bounds what the parent reads of a report.
const maxReport = 64 << 10

// takeStage reports whether this process is the daemon, and removes the sign of
// it from the environment.
func takeStage() (*reporter, bool, error) {
	text, ok := os.LookupEnv(stageVar)
	if !ok {
		return &reporter{}, false, nil
	}
	fd, err := strconv.ParseUint(text, 10, 16)
	if err == nil {
		err = os.Unsetenv(stageVar)
	}
	if err != nil {
		return nil, false, fmt.Errorf("%s in the environment is not of this program: %w", stageVar, err)
	}
	syscall.CloseOnExec(int(fd))
	return &reporter{f: os.NewFile(uintptr(fd), "parent")}, true, nil
}

// daemonise starts this program again as a daemon, in a session of its own, and
// waits until the tree is mounted or it is known that it will not be.
func daemonise(args []string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT) // before there is a daemon that could be forgotten
	cmd := &exec.Cmd{
		Path:        "/proc/self/exe",
		Args:        args,
		Env:         append(os.Environ(), stageVar+"=3"), // the first of ExtraFiles
		ExtraFiles:  []*os.File{w},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	err = cmd.Start() // nil for the standard files means /dev/null
	w.Close()
	if err != nil {
		return fmt.Errorf("become a daemon: %w", err)
	}
	go func() {
		for range stop {
			cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended, which is as well
		}
	}()
	report, err := io.ReadAll(io.LimitReader(r, maxReport))
	switch {
	case string(report) == started:
		return nil
	case err == nil && len(report) > 0:
		cmd.Wait() // its report is what counts; it is about to end
		return errors.New(string(report))
	}
	return fmt.Errorf("the daemon died while it started: %w", errors.Join(err, cmd.Wait()))
}

// A reporter tells the parent of a daemon how the start went. Its methods do
// nothing if there is no parent, or after the first call.
type reporter struct {
	f *os.File // nil when nobody waits
}

func (r *reporter) ready() { r.say(started) }

func (r *reporter) failed(err error) { r.say(oneLine(err)) }

// say sends a report. A parent that has died does not matter.
func (r *reporter) say(text string) {
	if r.f == nil {
		return
	}
	io.WriteString(r.f, text)
	r.f.Close()
	r.f = nil
}

// oneLine returns what err says in one line.
func oneLine(err error) string {
	return strings.ReplaceAll(strings.Trim(err.Error(), "\n"), "\n", "; ")
}
