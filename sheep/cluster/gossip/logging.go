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

// maxMessages bounds how many different complaints are remembered.
const maxMessages = 256

// A libraryLog logs what Raft and memberlist say, less loudly than they do.
type libraryLog struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[string]time.Time // guarded by mu
}

func newLibraryLog(log *slog.Logger) *libraryLog {
	return &libraryLog{log: log, last: map[string]time.Time{}}
}

// say logs what a library said. What troubles it is a warning here: the driver
// itself says what an operator has to act on.
func (c *libraryLog) say(trouble bool, msg string, args ...any) {
	level := slog.LevelDebug
	if trouble && c.fresh(msg) {
		level = slog.LevelWarn
	}
	c.log.Log(context.Background(), level, msg, args...)
}

func (c *libraryLog) fresh(msg string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.last[msg]) < quiet {
		return false
	}
	if len(c.last) >= maxMessages {
		clear(c.last)
	}
	c.last[msg] = now
	return true
}

// hclog returns a logger for Raft.
func (c *libraryLog) hclog() hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Debug, Output: io.Discard})
	l.RegisterSink(raftSink{c})
	return l
}

type raftSink struct{ c *libraryLog }

// Accept implements hclog.SinkAdapter.
func (s raftSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	s.c.say(level >= hclog.Error, "raft: "+msg, args...)
}

// standard returns a logger for memberlist.
func (c *libraryLog) standard() *log.Logger { return log.New(gossipLines{c}, "", 0) }

// gossipLines takes lines like "[WARN] memberlist: text".
type gossipLines struct{ c *libraryLog }

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
