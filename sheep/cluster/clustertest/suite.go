package clustertest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// A Suite is a driver to be tested.
type Suite struct {
	// Place returns what Main's function is given by the members of one new
	// cluster.
	Place func(t *testing.T) string

	Lease time.Duration // of the drivers that Main's function returns
	Expel time.Duration // after which they have expelled a member that does not run

	// Steady is how many of the first members must live for the others to go on:
	// a majority of those that vote. 0 means that any one member is enough.
	Steady int
}

// Drivers tests whether a driver keeps the contract of cluster.Driver while its
// members, each a process of its own, are killed, stopped and started. The test
// binary must call Main.
func Drivers(t *testing.T, s Suite) {
	tests := []struct {
		name string
		run  func(*testing.T, *group)
	}{
		{"a member is told its own join and messages", testAlone},
		{"concurrent proposals come in one order", testOrder},
		{"a joiner is given the state", testJoiner},
		{"sync reads what others have logged", testSync},
		{"leaving is told to the others and succeeds", testLeave},
		{"the others are told when a member is killed", testKill},
		{"a member killed in the middle of writing hurts nobody", testKillWriting},
		{"the log goes on when all members have died", testAllDie},
		{"a stopped member is expelled and blocks nobody", testStop},
		{"a member that wakes in time may go on", testWake},
		{"members that come and go agree", testStorm},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := &group{t: t, suite: s, place: s.Place(t)}
			test.run(t, g)
			g.agree()
		})
	}
}

// A group is the processes of one cluster, dead ones included.
type group struct {
	t     *testing.T
	suite Suite
	place string
	all   []*process
}

func (g *group) start() *process {
	g.t.Helper()
	inc := sheep.Incarnation(rand.Uint64() | 1)
	p := start(g.t, inc, g.place)
	g.all = append(g.all, p)
	return p
}

// join starts a member and waits until it is one.
func (g *group) join() *process {
	g.t.Helper()
	p := g.start()
	p.findJoin(p.inc)
	return p
}

// agree checks that all processes were told the same, as far as they lived.
func (g *group) agree() {
	g.t.Helper()
	chains := map[uint64]string{}
	left := map[sheep.Incarnation]uint64{}
	for _, p := range g.all {
		p.mu.Lock()
		for _, f := range p.faults {
			g.t.Errorf("member %v: %s", p.inc, f)
		}
		for _, e := range p.entries {
			if chain, ok := chains[e.index]; ok && chain != e.chain {
				g.t.Fatalf("member %v was told another history up to entry %d than others", p.inc, e.index)
			}
			chains[e.index] = e.chain
			switch at, gone := left[e.member]; {
			case e.kind == cluster.EntryLeave && (!gone || at == e.index):
				left[e.member] = e.index
			case gone && e.index > at:
				g.t.Errorf("entry %d (kind %d) comes after the leave of its member %v in %d", e.index, e.kind, e.member, at)
			}
		}
		p.mu.Unlock()
	}
}

func testAlone(t *testing.T, g *group) {
	p := g.join()
	p.must("lease")
	p.must("propose first")
	p.must("propose second")
	if a, b := p.findMessage("first"), p.findMessage("second"); a.index >= b.index {
		t.Errorf("messages have the indexes %d and %d", a.index, b.index)
	}
}

func testOrder(t *testing.T, g *group) {
	const workers, messages = 4, 200
	members := []*process{g.join(), g.join(), g.join()}
	for i, p := range members {
		p.ask(fmt.Sprintf("burst m%d %d %d 300", i, workers, messages))
	}
	for _, p := range members {
		if got := p.answer("burst"); got != "<nil>" {
			t.Fatalf("burst: %s", got)
		}
	}
	for _, p := range members {
		p.must("sync")
		got := map[string]int{}
		for _, e := range p.told() {
			if e.kind == cluster.EntryMessage {
				got[e.data]++
			}
		}
		if want := workers * messages * len(members); len(got) != want {
			t.Errorf("member %v was told %d messages, %d were logged", p.inc, len(got), want)
		}
	}
}

func testJoiner(t *testing.T, g *group) {
	a := g.join()
	for i := range 5 {
		a.must(fmt.Sprintf("burst early%d 2 200 200", i))
	}
	b := g.join()
	a.must("propose late")
	if x, y := a.findMessage("late"), b.findMessage("late"); x != y {
		t.Errorf("the members were told %+v and %+v", x, y)
	}
}

func testSync(t *testing.T, g *group) {
	a, b := g.join(), g.join()
	for i := range 50 {
		text := fmt.Sprintf("message-%d", i)
		a.must("propose " + text)
		b.must("sync")
		told := b.told()
		if len(told) == 0 || told[len(told)-1].data != text {
			t.Fatalf("after sync the last entry is not %q but %+v", text, told[len(told)-1])
		}
	}
}

func testLeave(t *testing.T, g *group) {
	a, b := g.join(), g.join()
	b.must("propose farewell")
	if got := b.leave(); got != "<nil>" {
		t.Errorf("Run returned %s", got)
	}
	if msg, leave := a.findMessage("farewell"), a.findLeave(b.inc); msg.index > leave.index {
		t.Errorf("the message has index %d, the leave %d", msg.index, leave.index)
	}
	a.must("lease")
}

func testKill(t *testing.T, g *group) {
	a, b, c := g.join(), g.join(), g.join()
	begin := time.Now()
	b.kill()
	x, y := a.findLeave(b.inc), c.findLeave(b.inc)
	if x != y {
		t.Errorf("the members were told %+v and %+v", x, y)
	}
	if took := time.Since(begin); took > g.suite.Expel {
		t.Errorf("the death was told after %v", took)
	}
	a.must("propose on")
	c.findMessage("on")
}

func testKillWriting(t *testing.T, g *group) {
	a := g.join()
	for i := range 8 {
		b := g.join()
		b.ask(fmt.Sprintf("burst doomed%d 4 100000 100000", i))
		b.find("own message", func(e entry) bool { return e.kind == cluster.EntryMessage && e.member == b.inc })
		b.kill()
		a.findLeave(b.inc)
		a.must(fmt.Sprintf("propose survived%d", i))
		a.findMessage(fmt.Sprintf("survived%d", i))
	}
}

func testAllDie(t *testing.T, g *group) {
	a, b := g.join(), g.join()
	a.must("propose before")
	last := b.findMessage("before").index
	a.kill()
	b.kill()
	c := g.join()
	if got := c.findJoin(c.inc).index; got <= last {
		t.Errorf("index %d comes after %d", got, last)
	}
	c.must("propose after")
	c.findMessage("after")
}

func testStop(t *testing.T, g *group) {
	a, b, c := g.join(), g.join(), g.join()
	b.ask("burst stopped 4 100000 1000")
	b.find("own message", func(e entry) bool { return e.kind == cluster.EntryMessage && e.member == b.inc })
	b.signal(syscall.SIGSTOP)
	a.must("propose meanwhile")
	c.findMessage("meanwhile")
	a.findLeave(b.inc)
	d := g.join()
	b.signal(syscall.SIGCONT)
	if got := b.call("lease"); got == "<nil>" {
		t.Error("the expelled member has a lease")
	}
	if got := b.end(); !strings.Contains(got, "expelled") {
		t.Errorf("Run returned %s", got)
	}
	d.must("propose later")
	a.findMessage("later")
}

func testWake(t *testing.T, g *group) {
	a, b := g.join(), g.join()
	b.signal(syscall.SIGSTOP)
	time.Sleep(g.suite.Lease + (g.suite.Expel-g.suite.Lease)/4) // the state is the passing of this time
	b.signal(syscall.SIGCONT)
	b.must("propose awake")
	a.findMessage("awake")
	deadline := time.Now().Add(patience)
	for b.call("lease") != "<nil>" {
		if time.Now().After(deadline) {
			t.Fatal("the member has no lease again")
		}
		time.Sleep(g.suite.Lease / 100)
	}
}

// testStorm starts, kills and stops members while others propose.
func testStorm(t *testing.T, g *group) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	witness := g.join()
	for range g.suite.Steady - 1 {
		g.join()
	}
	var live []*process
	for i := range 40 {
		switch n := rng.IntN(10); {
		case n < 5 || len(live) == 0:
			p := g.start()
			if rng.IntN(2) == 0 {
				p.findJoin(p.inc)
				p.ask(fmt.Sprintf("burst storm%d 2 1000 500", i))
			}
			live = append(live, p)
		case n < 8:
			k := rng.IntN(len(live))
			live[k].kill()
			live = append(live[:k], live[k+1:]...)
		case n == 8:
			k := rng.IntN(len(live))
			live[k].signal(syscall.SIGSTOP)
			witness.must(fmt.Sprintf("propose stopped%d", i))
			live[k].signal(syscall.SIGCONT)
		default:
			witness.must(fmt.Sprintf("propose storm%d", i))
			witness.findMessage(fmt.Sprintf("storm%d", i))
		}
	}
	witness.must("propose calm")
	calm := witness.findMessage("calm")
	for _, p := range live {
		p.findJoin(p.inc)
		if got := p.findMessage("calm"); got != calm {
			t.Errorf("member %v was told %+v, not %+v", p.inc, got, calm)
		}
	}
}
