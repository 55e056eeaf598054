package tests_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"sheepdog/tests/harness"
)

// A fault is something that goes wrong at some time of a storm, or the end of it.
type fault struct {
	at   time.Duration // since the begin
	what string
	do   func(t *testing.T)
}

// A plan is a storm in the making. The seed of its random numbers decides all of
// it, before it begins.
type plan struct {
	h      *harness.Hosts
	rng    *rand.Rand
	faults []fault
}

// schedule returns the faults of a storm of length d, in order. Those of
// machines come one after the other, and beside them those of the network. In
// the end everything works again.
func schedule(h *harness.Hosts, rng *rand.Rand, d time.Duration) []fault {
	p := &plan{h: h, rng: rng}
	for _, next := range []func(begin, hold time.Duration){p.machine, p.network} {
		for at := p.between(500, 2000); at < d; {
			hold := min(p.hold(), d-at)
			next(at, hold)
			at += hold + p.between(500, 5000)
		}
	}
	slices.SortStableFunc(p.faults, func(a, b fault) int { return cmp.Compare(a.at, b.at) })
	return p.faults
}

// between returns a time between two, in milliseconds.
func (p *plan) between(low, high int) time.Duration {
	return time.Duration(low+p.rng.IntN(high-low)) * time.Millisecond
}

// hold returns how long a fault lasts: less than a lease of a member, or up to
// twice the time after which it is expelled.
func (p *plan) hold() time.Duration {
	if p.rng.IntN(3) > 0 {
		return p.between(50, 3000)
	}
	return p.between(3000, 12000)
}

func (p *plan) add(at time.Duration, what string, do func(t *testing.T)) {
	p.faults = append(p.faults, fault{at, what, do})
}

// some returns between one and most hosts.
func (p *plan) some(most int) []int {
	return p.rng.Perm(len(p.h.Nodes))[:1+p.rng.IntN(most)]
}

// machine has machines fail at some time, and come back after another.
func (p *plan) machine(at, hold time.Duration) {
	switch k := p.rng.IntN(10); {
	case k < 5:
		p.kill(at, hold, p.some(2))
	case k < 6: // the majority, or all
		p.kill(at, hold, p.some(len(p.h.Nodes)))
	case k < 8:
		p.pause(at, hold, p.some(1)[0])
	default:
		p.end(at, hold, p.some(1)[0])
	}
}

// kill kills sheep, and starts them again in another order, some of them on
// machines whose clocks began at another time.
func (p *plan) kill(at, hold time.Duration, hosts []int) {
	p.add(at, fmt.Sprintf("kill %v", hosts), func(t *testing.T) {
		for _, i := range hosts {
			mustRun(t, p.h.Nodes[i])
			p.h.Nodes[i].Kill()
		}
	})
	for k, o := range p.rng.Perm(len(hosts)) {
		i, what, wrong := hosts[o], "", time.Duration(0)
		if p.rng.IntN(3) == 0 {
			wrong = p.between(0, 1_000_000_000)
			what = fmt.Sprintf(", its clocks %v ahead", wrong.Round(time.Second))
		}
		p.add(at+hold+time.Duration(k)*p.between(0, 80), fmt.Sprintf("start %d%s", i, what), func(t *testing.T) {
			if wrong > 0 && !p.h.SetClocks(i, wrong) {
				t.Log("this kernel gives no process a clock of its own")
			}
			p.h.Nodes[i].Start()
		})
	}
}

// pause stops a machine, for which all clocks jump then.
func (p *plan) pause(at, hold time.Duration, i int) {
	signal := func(s syscall.Signal) func(*testing.T) {
		return func(t *testing.T) {
			mustRun(t, p.h.Nodes[i])
			if err := p.h.Nodes[i].Signal(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.add(at, fmt.Sprintf("pause %d", i), signal(syscall.SIGSTOP))
	p.add(at+hold, fmt.Sprintf("continue %d", i), signal(syscall.SIGCONT))
}

// end asks a sheep to end. If it takes its time it is killed.
func (p *plan) end(at, hold time.Duration, i int) {
	n := p.h.Nodes[i]
	p.add(at, fmt.Sprintf("end %d", i), func(t *testing.T) {
		mustRun(t, n)
		if err := n.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	})
	p.add(at+hold, fmt.Sprintf("start %d", i), func(*testing.T) {
		n.Kill()
		n.Start()
	})
}

func mustRun(t *testing.T, n *harness.Node) {
	t.Helper()
	if !n.Alive() {
		t.Fatalf("node %d has ended by itself", n.ID)
	}
}

// network has something happen to the network at some time, until another.
func (p *plan) network(at, hold time.Duration) {
	n := len(p.h.Nodes)
	switch k := p.rng.IntN(10); {
	case k < 2:
		p.part(at, hold, p.some(2))
	case k < 3:
		p.part(at, hold, p.some(n-1))
	case k < 4:
		p.part(at, hold, []int{gatewayHost})
	case k < 5:
		p.weather(at, hold, p.some(2), harness.Weather{Deaf: true})
	case k < 6:
		p.weather(at, hold, p.some(2), harness.Weather{Mute: true})
	case k < 8:
		two := p.rng.Perm(n)[:2]
		p.weather(at, hold, two[:1], harness.Weather{Strangers: two[1:]})
	default:
		p.weather(at, hold, p.some(n), harness.Weather{
			Delay: p.between(0, 40), Jitter: p.between(1, 40), Loss: p.rng.Float64() * 0.1,
		})
	}
}

func (p *plan) part(at, hold time.Duration, hosts []int) {
	p.add(at, fmt.Sprintf("cut %v off", hosts), func(*testing.T) { p.h.Part(hosts...) })
	p.add(at+hold, fmt.Sprintf("join %v", hosts), func(*testing.T) { p.h.Heal() })
}

func (p *plan) weather(at, hold time.Duration, hosts []int, w harness.Weather) {
	set := func(w harness.Weather) func(*testing.T) {
		return func(*testing.T) {
			for _, i := range hosts {
				p.h.SetWeather(i, w)
			}
		}
	}
	p.add(at, fmt.Sprintf("wires of %v: %v", hosts, w), set(w))
	p.add(at+hold, fmt.Sprintf("wires of %v: good", hosts), set(harness.Weather{}))
}
