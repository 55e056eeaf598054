package logging

import (
	"fmt"
	"io"
	"log/syslog"
	"sync"
	"time"
)

// A Stream writes the log to an open file, as it does for a daemon in the
// foreground.
type Stream struct {
	mu sync.Mutex
	w  io.Writer // guarded by mu
}

var _ Sink = (*Stream)(nil)

// NewStream returns a sink that writes each line to w with one call.
func NewStream(w io.Writer) *Stream { return &Stream{w: w} }

// Emit writes a line.
func (s *Stream) Emit(_ Severity, line []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.w.Write(line)
	return err
}

// Rotate does nothing.
func (s *Stream) Rotate() error { return nil }

// Close does nothing: the file belongs to whoever opened it.
func (s *Stream) Close() error { return nil }

// redial is how long a Syslog does without the system's log before it looks for
// it again.
const redial = 5 * time.Second

// A Syslog sends the log to the system's log. Records made while there is none
// are lost.
type Syslog struct {
	dial func() (*syslog.Writer, error)

	mu   sync.Mutex
	w    *syslog.Writer // guarded by mu; nil while there is no system log
	last time.Time      // guarded by mu; of the last attempt to reach it
}

var _ Sink = (*Syslog)(nil)

// NewSyslog returns a sink for the log of this machine, in which the records are
// from program. The error says that
// it cannot be reached now; the sink is good all the same and looks for it again.
func NewSyslog(program string) (*Syslog, error) {
	s := &Syslog{dial: func() (*syslog.Writer, error) { return syslog.New(syslog.LOG_DAEMON, program) }}
	return s, s.connect()
}

// connect looks for the system's log. It is called under mu, or before the
// sink is shared.
func (s *Syslog) connect() error {
	s.last = time.Now()
	w, err := s.dial()
	if err != nil {
		return fmt.Errorf("reach the system log: %w", err)
	}
	s.w = w
	return nil
}

// Emit sends a line.
func (s *Syslog) Emit(sev Severity, line []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		if time.Since(s.last) < redial {
			return nil
		}
		if err := s.connect(); err != nil {
			return err
		}
	}
	return send(s.w, sev, string(line))
}

// send calls the method of w for the severity.
func send(w *syslog.Writer, sev Severity, line string) error {
	switch sev {
	case Emerg:
		return w.Emerg(line)
	case Alert:
		return w.Alert(line)
	case Crit:
		return w.Crit(line)
	case Err:
		return w.Err(line)
	case Warning:
		return w.Warning(line)
	case Notice:
		return w.Notice(line)
	case Info:
		return w.Info(line)
	}
	return w.Debug(line)
}

// Rotate does nothing: the system's log is not ours.
func (s *Syslog) Rotate() error { return nil }

// Close ends the connection.
func (s *Syslog) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w == nil {
		return nil
	}
	err := s.w.Close()
	s.w = nil
	return err
}
