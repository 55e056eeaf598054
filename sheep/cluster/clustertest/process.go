package clustertest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
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

// memberEnv makes a test binary a member: its value is the argument for Main's
// function, after the incarnation and a space.
const memberEnv = "SHEEP_CLUSTERTEST_MEMBER"

// Main runs the tests, or if Drivers has started this process as a member, that
// member: driver returns its driver, on what Suite.Place names. Call it from
// TestMain and exit with what it returns.
func Main(m *testing.M, driver func(place string) cluster.Driver) int {
	value, ok := os.LookupEnv(memberEnv)
	if !ok {
		return m.Run()
	}
	inc, place, _ := strings.Cut(value, " ")
	n, err := strconv.ParseUint(inc, 16, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	serve(sheep.Incarnation(n), driver(place))
	return 0
}

// A recorder is a machine whose state is a hash of all it was told.
type recorder struct {
	say   func(format string, args ...any)
	index uint64
	chain [sha256.Size]byte
}

func (r *recorder) Restore(index uint64, snapshot []byte) error {
	r.index, r.chain = index, [sha256.Size]byte{}
	if len(snapshot) != 0 && copy(r.chain[:], snapshot) != len(snapshot) {
		return fmt.Errorf("snapshot of %d bytes", len(snapshot))
	}
	r.say("restore %d %x", index, r.chain)
	return nil
}

func (r *recorder) Apply(e cluster.Entry) {
	if e.Index <= r.index {
		r.say("fault index %d after %d", e.Index, r.index)
	}
	b := binary.LittleEndian.AppendUint64(r.chain[:], e.Index)
	b = append(b, byte(e.Kind))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Member))
	r.index, r.chain = e.Index, sha256.Sum256(append(b, e.Data...))
	data := ""
	if e.Kind == cluster.EntryMessage {
		data = string(e.Data)
	}
	r.say("entry %d %d %v %x %s", e.Index, e.Kind, e.Member, r.chain, data)
}

func (r *recorder) Snapshot() []byte { return r.chain[:] }

// serve runs a member that takes commands from standard input, a line each,
// and tells on standard output what happens.
func serve(inc sheep.Incarnation, d cluster.Driver) {
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, format+"\n", args...)
		out.Flush()
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			command(ctx, cancel, d, say, strings.Fields(in.Text()))
		}
		os.Exit(3) // the test has died
	}()
	self := cluster.Self{Incarnation: inc, Hello: []byte("hello of " + inc.String())}
	err := d.Run(ctx, self, &recorder{say: say})
	say("ended %v", err)
}

// command executes one command and says what came of it.
func command(ctx context.Context, leave context.CancelFunc, d cluster.Driver, say func(string, ...any), f []string) {
	switch f[0] {
	case "propose":
		say("done propose %v", d.Propose(ctx, []byte(f[1])))
	case "burst": // burst NAME GOROUTINES MESSAGES SIZE
		go func() { say("done burst %v", burst(ctx, d, f[1], number(f[2]), number(f[3]), number(f[4]))) }()
	case "sync":
		say("done sync %v", d.Sync(ctx))
	case "lease":
		say("done lease %v", d.Lease())
	case "leave":
		leave()
	}
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err) // the test sent it
	}
	return n
}

// burst proposes from several goroutines at once.
func burst(ctx context.Context, d cluster.Driver, name string, workers, messages, size int) error {
	errs := make(chan error, workers)
	for w := range workers {
		go func() {
			var err error
			for i := 0; i < messages && err == nil; i++ {
				text := fmt.Sprintf("%s-%d-%d-", name, w, i)
				err = d.Propose(ctx, []byte(text+strings.Repeat("x", max(0, size-len(text)))))
			}
			errs <- err
		}()
	}
	var first error
	for range workers {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

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
	exited  bool              // guarded by mu
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
const patience = 20 * time.Second

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
			p.t.Fatalf("member %v: no %s within %v", p.inc, what, patience)
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
