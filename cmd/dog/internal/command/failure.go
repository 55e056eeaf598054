package command

import (
	"errors"
	"fmt"

	"sheepdog/sheep"
	"sheepdog/sheep/remote"
)

// A failure ends a run: with an exit status, lines on standard error, and
// perhaps the usage of the command on standard output.
type failure struct {
	status int
	lines  []string
	usage  bool
}

func (f *failure) Error() string {
	if len(f.lines) == 0 {
		return fmt.Sprintf("exit status %d", f.status)
	}
	return f.lines[0]
}

// fail returns a failure with one line.
func fail(status int, format string, args ...any) *failure {
	return &failure{status: status, lines: []string{fmt.Sprintf(format, args...)}}
}

// quiet returns a failure whose cause has been told.
func quiet(status int) *failure { return &failure{status: status} }

// badUsage returns a failure with one line and the usage of the command.
func badUsage(format string, args ...any) *failure {
	return fail(ExitUsage, format, args...).withUsage()
}

// and adds a line.
func (f *failure) and(format string, args ...any) *failure {
	f.lines = append(f.lines, fmt.Sprintf(format, args...))
	return f
}

// withUsage has the usage printed, too.
func (f *failure) withUsage() *failure {
	f.usage = true
	return f
}

// unreachable reports whether err means that there was no answer.
func unreachable(err error) bool {
	if _, ok := errors.AsType[*remote.ResultError](err); ok {
		return false
	}
	if _, ok := errors.AsType[*remote.ConnectError](err); ok {
		return true
	}
	return errors.Is(err, sheep.ErrNetwork)
}

// failed returns a failure with one line that err caused. Its exit status is
// ExitSystem if nobody answered.
func failed(err error, format string, args ...any) *failure {
	status := ExitFailure
	if unreachable(err) {
		status = ExitSystem
	}
	return fail(status, format, args...)
}

// openFailed returns the failure of looking a VDI up.
func openFailed(name string, v remote.Version, err error) *failure {
	return failed(err, "Failed to open VDI %s (snapshot id: %d snapshot tag: %s): %s", name, v.ID, v.Tag, remote.Text(err))
}

// requestFailed returns the failure of a request to one node.
func requestFailed(err error) *failure {
	if unreachable(err) {
		return failed(err, "Failed to execute request")
	}
	return failed(err, "Failed to execute request: %s", remote.Text(err))
}

// interrupted returns the failure of a command that the user has ended.
func interrupted() *failure { return fail(ExitSystem, "Interrupted") }
