package clustertest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// An entry is what a process said of one entry.
type entry struct {
	index  uint64
	kind   cluster.EntryKind
	member sheep.Incarnation
	chain  string
	data   string
}

// A process is a member in a process of its own, seen from the test.
type process struct {
	t   *testing.T
	inc sheep.Incarnation
	cmd *exec.Cmd
	in  *os.File

	mu      sync.Mutex
	start   string            // guarded by mu; the chain it was restored to
	entries []entry           // guarded by mu
	faults  []string          // guarded by mu
	answers map[string]string // guarded by mu; by command, until asked for
	ended   bool              // guarded by mu; Run has returned
	why     string            // guarded by mu; what Run returned
	news    chan struct{}     // guarded by mu; closed at the next line
}

func start(t *testing.T, inc sheep.Incarnation, place string) *process {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, inc: inc, in: w, answers: map[string]string{}, news: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%v %s", memberEnv, inc, place))
	p.cmd.Stdin, p.cmd.Stderr = r, os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 4<<20)
		for lines.Scan() {
			p.heard(lines.Text())
		}
	}()
	t.Cleanup(func() {
		p.in.Close()
		p.cmd.Process.Kill()
		<-read
		p.cmd.Wait()
	})
	return p
}

// heard notes a line that the process said.
func (p *process) heard(line string) {
	verb, rest, _ := strings.Cut(line, " ")
	f := strings.SplitN(rest, " ", 5)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch verb {
	case "restore":
		p.start = f[1]
	case "entry":
		index, _ := strconv.ParseUint(f[0], 10, 64)
		kind, _ := strconv.ParseUint(f[1], 10, 8)
		inc, _ := strconv.ParseUint(f[2], 16, 64)
		p.entries = append(p.entries, entry{index, cluster.EntryKind(kind), sheep.Incarnation(inc), f[3], f[4]})
	case "done":
		what, answer, _ := strings.Cut(rest, " ")
		p.answers[what] = answer
	case "ended":
		p.ended, p.why = true, rest
	case "fault":
		p.faults = append(p.faults, rest)
	}
	close(p.news)
	p.news = make(chan struct{})
}

// patience is how long a test waits for what must happen.
const patience = time.Minute

// wait waits until ok returns true; p.mu is held while it runs.
func (p *process) wait(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		done, news := ok(), p.news
		p.mu.Unlock()
		if done {
			return
		}
		select {
		case <-news:
		case <-deadline:
			p.mu.Lock()
			defer p.mu.Unlock()
			p.t.Fatalf("member %v: no %s within %v; it was told %d entries; ended: %t %s",
				p.inc, what, patience, len(p.entries), p.ended, p.why)
		}
	}
}

// ask gives the process a command and does not wait for the answer.
func (p *process) ask(command string) {
	p.t.Helper()
	if _, err := p.in.WriteString(command + "\n"); err != nil {
		p.t.Fatalf("member %v: %s: %v", p.inc, command, err)
	}
}

// answer waits for the answer of a command.
func (p *process) answer(command string) string {
	p.t.Helper()
	var answer string
	p.wait("answer to "+command, func() bool {
		a, ok := p.answers[command]
		answer = a
		delete(p.answers, command)
		return ok
	})
	return answer
}

func (p *process) call(command string) string {
	p.t.Helper()
	p.ask(command)
	verb, _, _ := strings.Cut(command, " ")
	return p.answer(verb)
}

// must calls a command that has to succeed.
func (p *process) must(command string) {
	p.t.Helper()
	if got := p.call(command); got != "<nil>" {
		p.t.Fatalf("member %v: %s: %s", p.inc, command, got)
	}
}

// find waits for an entry.
func (p *process) find(what string, match func(entry) bool) entry {
	p.t.Helper()
	var found entry
	p.wait(what, func() bool {
		for _, e := range p.entries {
			if match(e) {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

func (p *process) findJoin(inc sheep.Incarnation) entry {
	p.t.Helper()
	return p.find("join of "+inc.String(), func(e entry) bool { return e.kind == cluster.EntryJoin && e.member == inc })
}

func (p *process) findLeave(inc sheep.Incarnation) entry {
	p.t.Helper()
	return p.find("leave of "+inc.String(), func(e entry) bool { return e.kind == cluster.EntryLeave && e.member == inc })
}

func (p *process) findMessage(text string) entry {
	p.t.Helper()
	return p.find("message "+text, func(e entry) bool { return e.kind == cluster.EntryMessage && e.data == text })
}

// kill kills the process and waits until it is dead.
func (p *process) kill() {
	p.t.Helper()
	p.cmd.Process.Kill()
	p.cmd.Process.Wait()
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("member %v: %v: %v", p.inc, sig, err)
	}
}

// leave has the process leave and returns what Run returned.
func (p *process) leave() string {
	p.t.Helper()
	p.ask("leave")
	return p.end()
}

// end waits until Run has returned, and returns what it said.
func (p *process) end() string {
	p.t.Helper()
	p.wait("end", func() bool { return p.ended })
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.why
}

// told returns all entries that the process was told so far.
func (p *process) told() []entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.entries[:len(p.entries):len(p.entries)]
}
