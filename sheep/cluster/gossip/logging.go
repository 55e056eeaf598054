package gossip

import (
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// quiet is for how long a complaint of a library that was logged as a warning
// is logged for those who debug only. A dead node is complained of each second.
const quiet = time.Minute

// maxComplaints bounds how many different complaints are remembered.
const maxComplaints = 256

// complaints decide how loud the words of the libraries are.
type complaints struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[string]time.Time // guarded by mu
}

func newComplaints(log *slog.Logger) *complaints {
	return &complaints{log: log, last: map[string]time.Time{}}
}

// say logs what a library said. What troubles it is a warning here: the driver
// itself says what an operator has to act on.
func (c *complaints) say(trouble bool, msg string, args ...any) {
	level := slog.LevelDebug
	if trouble && c.fresh(msg) {
		level = slog.LevelWarn
	}
	c.log.Log(context.Background(), level, msg, args...)
}

func (c *complaints) fresh(msg string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.last[msg]) < quiet {
		return false
	}
	if len(c.last) >= maxComplaints {
		clear(c.last)
	}
	c.last[msg] = now
	return true
}

// hclog returns a logger for Raft.
func (c *complaints) hclog() hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Debug, Output: io.Discard})
	l.RegisterSink(raftSink{c})
	return l
}

type raftSink struct{ c *complaints }

// Accept implements hclog.SinkAdapter.
func (s raftSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	s.c.say(level >= hclog.Error, "raft: "+msg, args...)
}

// standard returns a logger for memberlist.
func (c *complaints) standard() *log.Logger { return log.New(gossipLines{c}, "", 0) }

// gossipLines takes lines like "[WARN] memberlist: text".
type gossipLines struct{ c *complaints }

// Write implements io.Writer.
func (w gossipLines) Write(p []byte) (int, error) {
	line := bytes.TrimSpace(p)
	trouble := bytes.HasPrefix(line, []byte("[ERR]"))
	if i := bytes.Index(line, []byte("] ")); i > 0 && line[0] == '[' {
		line = line[i+2:]
	}
	w.c.say(trouble, string(line))
	return len(p), nil
}
