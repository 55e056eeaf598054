package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// signals acts on what an operator tells a running sheep: the first SIGTERM or
// SIGINT ends the node in order, the second at once; SIGHUP rotates the log.
type signals struct {
	log    *openLog
	cancel context.CancelCauseFunc
	once   sync.Once
	done   chan struct{} // closed by stop
	wg     sync.WaitGroup

	stopping bool // of the goroutine
}

// handleSignals begins to act on signals, until stop.
func handleSignals(log *openLog, cancel context.CancelCauseFunc) *signals {
	s := &signals{log: log, cancel: cancel, done: make(chan struct{})}
	c := make(chan os.Signal, 8)
	signal.Ignore(syscall.SIGPIPE, syscall.SIGUSR1)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	s.wg.Go(func() { s.run(c) })
	return s
}

func (s *signals) run(c chan os.Signal) {
	for {
		select {
		case sig := <-c:
			s.act(sig)
		case <-s.done:
			signal.Ignore(syscall.SIGHUP) // its default is to end the process; an exec keeps it ignored
			signal.Stop(c)
			for {
				select {
				case sig := <-c:
					s.act(sig)
				default:
					return
				}
			}
		}
	}
}

func (s *signals) act(sig os.Signal) {
	switch {
	case sig == syscall.SIGHUP:
		if err := s.log.sink.Rotate(); err != nil {
			s.log.Error("the log could not be rotated", "err", err)
		}
	case s.stopping:
		s.log.Error("stopped at once by a second signal", "signal", sig.String())
		os.Exit(1)
	default:
		s.stopping = true
		s.log.Info("stopping", "signal", sig.String())
		s.cancel(errStopped)
	}
}

// stop ends the work of s. Signals that came before it have had their effect
// when it returns; later ones have that of the system.
func (s *signals) stop() {
	s.once.Do(func() { close(s.done) })
	s.wg.Wait()
}
