package main

import (
	"encoding/json"
	"fmt"
	"os"
	"syscall"
	"time"
)

// stageVar is the environment variable by which a sheep tells the process that
// it starts in its own place how far it has come.
const stageVar = "SHEEPDOG_STAGE"

// A stage says how far the start of sheep has come. Sheep starts itself again,
// with the same command line, to become a daemon and to rejoin the cluster.
// The zero value is that of a sheep that was started by somebody else.
type stage struct {
	Settled bool   // need not become a daemon (any more)
	Daemon  bool   // is one
	Dir     string // where relative paths start, if not in the working directory
	ReadyFD int    // where the parent waits to hear of the start, or 0
	PidFD   int    // the pid file, open and locked, or 0

	// Lives after the first one.
	Rejoins  int       // in a row, each soon after the other
	Rejoined time.Time // the latest
}

// takeStage returns the stage of this process, and removes it from the
// environment so that nobody inherits it.
func takeStage() (stage, error) {
	text, ok := os.LookupEnv(stageVar)
	if !ok {
		return stage{}, nil
	}
	if err := os.Unsetenv(stageVar); err != nil {
		return stage{}, err
	}
	var st stage
	if err := json.Unmarshal([]byte(text), &st); err != nil {
		return stage{}, fmt.Errorf("sheep: %s in the environment is not of this program: %w", stageVar, err)
	}
	for _, fd := range []int{st.ReadyFD, st.PidFD} {
		if fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
	return st, nil
}

// environment returns the environment for a process at the stage.
func (st stage) environment() []string {
	text, err := json.Marshal(st)
	if err != nil {
		panic(err) // numbers and a string
	}
	return append(os.Environ(), stageVar+"="+string(text))
}

// directory returns the directory at which relative paths of the command line
// start.
func (st stage) directory() (string, error) {
	if st.Dir != "" {
		return st.Dir, nil
	}
	return os.Getwd()
}

// The pause before a node rejoins: none at first, then longer and longer if it
// does not stay.
const (
	rejoinSoon     = time.Minute // a rejoin within this after the last one is in a row with it
	rejoinPause    = time.Second
	rejoinMaxPause = 32 * time.Second
)

// rejoin returns the stage of the next life of this node, and how long to wait
// before it begins.
func (st stage) rejoin(now time.Time) (stage, time.Duration) {
	next := stage{Settled: true, Daemon: st.Daemon, Dir: st.Dir, Rejoins: 1, Rejoined: now}
	since := now.Sub(st.Rejoined)
	if st.Rejoins == 0 || since < 0 || since > rejoinSoon {
		return next, 0
	}
	next.Rejoins = st.Rejoins + 1
	pause := rejoinMaxPause
	if shift := st.Rejoins - 1; shift < 5 {
		pause = rejoinPause << shift
	}
	next.Rejoined = now.Add(pause)
	return next, pause
}
