package tests_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/load"
	"sheepdog/tests/native"
)

// TestFiveHostsMakeACluster starts five machines of which four know the first,
// and nothing else is configured; startHosts bounds how long it takes until
// they are one cluster. Then it is formatted and its disks hold what is written.
func TestFiveHostsMakeACluster(t *testing.T) {
	seed := seed(t)
	h := startHosts(t, 5, 3)
	clients := newHostClients(t, h, seed, 16<<20)
	stop := make(chan struct{})
	for _, cl := range clients {
		cl.start(t.Context(), t, stop)
	}
	more := counter(clients)
	h.Until("500 writes of each client", func(context.Context) error {
		failed(t, clients)
		return more(500)
	})
	close(stop)
	finish(t, clients)
	verifyHosts(t, h, clients)
}

// A storm is a cluster of six machines, the last without a store of its own,
// under load from four clients, of which two share a disk.
type storm struct {
	*harness.Hosts
	clients []*client
	witness *witnesses
	stop    chan struct{}
}

// gatewayHost is the machine without a store.
const gatewayHost = 5

func newStorm(t *testing.T, seed uint64) *storm {
	t.Helper()
	args := gossipArgs()
	s := &storm{
		Hosts: startHostsWith(t, 6, 3, func(i int) []string {
			if i == gatewayHost {
				return append(args(i), "-g")
			}
			return args(i)
		}),
		stop: make(chan struct{}),
	}
	s.clients = newHostClients(t, s.Hosts, seed, 32<<20)
	s.witness = newWitnesses(t, s.Hosts, seed)
	return s
}

func (s *storm) start(t *testing.T) {
	t.Helper()
	for _, cl := range s.clients {
		cl.start(t.Context(), t, s.stop)
	}
	s.witness.start(t.Context(), s.stop)
}

// progress returns how many writes the clients have made.
func (s *storm) progress() string {
	c := s.witness.recorder.Counts()
	return fmt.Sprintf("(%d, %d, %d)", s.clients[0].load.Writes(), s.clients[1].load.Writes(), c.Writes)
}

// check ends the load and fails the test unless all that was promised was kept.
func (s *storm) check(t *testing.T) {
	t.Helper()
	t.Logf("whole again after %v", s.WaitRecovered().Round(time.Millisecond))
	close(s.stop)
	finish(t, s.clients)
	s.witness.finish(t)
	s.WaitRecovered()
	verifyHosts(t, s.Hosts, s.clients)
	s.witness.check(t, s.Hosts)
	for i := range s.Nodes {
		s.Check(i, sharedDisk)
	}
}

// TestStorm lets everything go wrong that can go wrong with machines and the
// network between them, at random, while clients write and read.
func TestStorm(t *testing.T) {
	d := stormLength(t)
	seed := seed(t)
	s := newStorm(t, seed)
	faults := schedule(s.Hosts, rand.New(rand.NewPCG(seed, 3)), d)
	s.start(t)
	begin := time.Now()
	for _, f := range faults {
		time.Sleep(time.Until(begin.Add(f.at))) // the moment of the fault
		s.autopsy(t)
		t.Logf("%6.2fs %s %s", time.Since(begin).Seconds(), s.progress(), f.what)
		f.do(t)
	}
	s.check(t)
	leaks(t, s)
}

// autopsy ends the test if a client has ended. Before that it brings all machines
// back, and tells whether what he complains about is still so.
func (s *storm) autopsy(t *testing.T) {
	t.Helper()
	for _, cl := range s.clients {
		select {
		case err := <-cl.done:
			t.Errorf("%s: %v", cl.name, err)
		default:
		}
	}
	if !t.Failed() {
		return
	}
	s.Heal()
	for i, n := range s.Nodes {
		s.SetWeather(i, harness.Weather{})
		if !n.Alive() {
			n.Start()
		} else if err := n.Signal(syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}
	t.Logf("whole again after %v", s.WaitRecovered().Round(time.Millisecond))
	verifyHosts(t, s.Hosts, s.clients)
	t.FailNow()
}

// stormLength returns how long to let it storm: SHEEP_TEST_STORM, or a minute.
func stormLength(t *testing.T) time.Duration {
	t.Helper()
	v := os.Getenv("SHEEP_TEST_STORM")
	switch {
	case v == "" && testing.Short():
		return 15 * time.Second
	case v == "":
		return time.Minute
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		t.Fatalf("SHEEP_TEST_STORM: %v", err)
	}
	return d
}

// newHostClients makes two disks for two kinds of client, as newClients does.
// Each prefers a machine, whose sheep it reaches whatever becomes of the network.
func newHostClients(t *testing.T, h *harness.Hosts, seed uint64, size int64) []*client {
	t.Helper()
	last := len(h.Nodes) - 1
	const patience = 2 * time.Minute // longer than it can storm without a break
	clients := []*client{
		{name: "through", cfg: native.Config{Servers: socks(h, last)}, load: load.New(load.Config{Seed: seed, Patience: patience}, size)},
		{name: "back", cfg: native.Config{Servers: socks(h, 1), WriteBack: true}, load: load.New(load.Config{Seed: seed + 1, FlushEvery: 64, Patience: patience}, size)},
	}
	for _, cl := range clients {
		h.Dog(0, nil, "vdi", "create", cl.name, strconv.FormatInt(size, 10))
		cl.cfg.Retries = func(server string, err error) { t.Logf("%s: lost %s: %v", cl.name, server, err) }
	}
	return clients
}

// socks returns the sockets of all sheep, beginning with that of host first.
func socks(h *harness.Hosts, first int) []string {
	var all []string
	for i := range h.Nodes {
		all = append(all, h.Nodes[(first+i)%len(h.Nodes)].Sock())
	}
	return all
}

// finish waits for the clients, which have been told to stop.
func finish(t *testing.T, clients []*client) {
	t.Helper()
	for _, cl := range clients {
		if err := <-cl.done; err != nil {
			t.Fatalf("%s: %v", cl.name, err)
		}
		t.Logf("%s: %s", cl.name, cl.load.Stats())
		if cl.load.Writes() == 0 {
			t.Errorf("%s wrote nothing", cl.name)
		}
	}
}

// verifyHosts reads the disks of clients through every sheep, and lets dog
// compare all copies.
func verifyHosts(t *testing.T, h *harness.Hosts, clients []*client) {
	t.Helper()
	for _, cl := range clients {
		for _, n := range h.Nodes {
			dev, err := native.Open(t.Context(), native.Config{Servers: []string{n.Sock()}}, cl.name)
			if err != nil {
				t.Fatal(err)
			}
			if err := cl.load.Verify(t.Context(), dev, false); err != nil {
				t.Errorf("%s, read through node %d:\n%v", cl.name, n.ID, err)
			}
			dev.Close()
		}
		h.Check(0, cl.name)
	}
}
