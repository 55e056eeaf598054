package harness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Node is one sheep, running or not.
type Node struct {
	ID   int
	Port Port
	Dir  string   // store directory
	Args []string // further arguments; may be changed before the next Start

	// Doomed says that the process may end by itself at any time.
	Doomed bool

	t       TB
	sheep   string
	cluster string // argument of -c
	host    string // where the other nodes find it
	log     string
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the process has ended
}

// Addr returns the address of the node, "127.0.0.1:port".
func (n *Node) Addr() string { return n.Port.String() }

// told returns the address by which the other nodes know this one.
func (n *Node) told() string { return fmt.Sprintf("%s:%d", n.host, n.Port.Number) }

// Sock returns the node's UNIX socket in the form that native.Dial takes.
func (n *Node) Sock() string { return "unix:" + filepath.Join(n.Dir, "sock") }

// Start starts the daemon and does not wait until it is ready.
func (n *Node) Start() {
	n.t.Helper()
	if n.Alive() {
		n.t.Fatalf("node %d runs already", n.ID)
	}
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	args := []string{
		"-f", "-b", "127.0.0.1", "-y", n.host, "-p", strconv.Itoa(n.Port.Number),
		"-z", strconv.Itoa(n.ID), "-c", n.cluster, "-l", "level=" + logLevel() + ",dst=stdout",
	}
	cmd := exec.Command(n.sheep, append(append(args, n.Args...), n.Dir)...)
	cmd.Stdout, cmd.Stderr = log, log
	fmt.Fprintf(log, "--- %s starting %q\n", time.Now().Format("15:04:05.000"), cmd.Args)
	if err := Spawn(cmd); err != nil {
		n.t.Fatal(err)
	}
	n.cmd, n.exited = cmd, make(chan struct{})
	go func(exited chan struct{}) {
		cmd.Wait() // its result is in ProcessState
		close(exited)
	}(n.exited)
}

func logLevel() string {
	if l := os.Getenv("SHEEP_TEST_LEVEL"); l != "" {
		return l
	}
	return "info"
}

// Alive reports whether the process runs.
func (n *Node) Alive() bool {
	if n.exited == nil {
		return false
	}
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// Pid returns the number of the running process.
func (n *Node) Pid() int { return n.cmd.Process.Pid }

// Kill ends the process with SIGKILL and waits until it is gone.
func (n *Node) Kill() {
	if n.Alive() {
		KillGroup(n.cmd)
		<-n.exited
	}
}

// Signal sends a signal to the process. After SIGSTOP it returns when all its threads
// have stopped, which on a busy machine may serve some requests until then.
func (n *Node) Signal(s syscall.Signal) error {
	err := n.cmd.Process.Signal(s)
	if s != syscall.SIGSTOP || err != nil {
		return err
	}
	for {
		if err = unix.Waitid(unix.P_PID, n.cmd.Process.Pid, nil, unix.WSTOPPED, nil); err != unix.EINTR {
			return err
		}
	}
}

// Stop asks the process to end and waits for it. It fails the test if the
// process ends in any way but with status 0.
func (n *Node) Stop() {
	n.t.Helper()
	if err := n.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatalf("stop node %d: %v", n.ID, err)
	}
	if code, err := n.Wait(30 * time.Second); err != nil || code != 0 {
		n.t.Fatalf("node %d ended with status %d after SIGTERM, want 0 (%v)", n.ID, code, err)
	}
}

// Wait waits until the process ends by itself and returns its exit status, -1
// if it was killed.
func (n *Node) Wait(patience time.Duration) (int, error) {
	select {
	case <-n.exited:
		return n.cmd.ProcessState.ExitCode(), nil
	case <-time.After(patience):
		return 0, errors.New("the process does not end")
	}
}

// Log returns all that the node has logged.
func (n *Node) Log() string {
	b, err := os.ReadFile(n.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Memory returns the size of the process in memory, in bytes.
func (n *Node) Memory() int64 {
	n.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.Pid()))
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kb, err := strconv.ParseInt(string(bytes.Fields(v)[0]), 10, 64)
			if err != nil {
				n.t.Fatal(err)
			}
			return kb << 10
		}
	}
	n.t.Fatalf("node %d: no VmRSS", n.ID)
	return 0
}
