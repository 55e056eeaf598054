package clustertest

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

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
