package tests_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/native"
)

// TestClientsGetAnErrorAtTheirDeadline stops a node that holds copies. Clients of
// every kind are told at the deadline of their disk; one whose disk has none waits
// until the cluster goes on, and so do the writes that were given up.
func TestClientsGetAnErrorAtTheirDeadline(t *testing.T) {
	c := nbdCluster(t, 3, 3)
	front, victim := c.Nodes[0], c.Nodes[2]
	victim.Doomed = true
	writers := make(map[string]func() error)
	for _, name := range []string{"one", "two", "three", "patient"} {
		c.Dog("vdi", "create", "-P", name, "8M")
	}
	block := bytes.Repeat([]byte("new."), 1024)
	for _, name := range []string{"one", "patient"} {
		dev := dialNBD(t, front, name)
		writers[name] = func() error { return dev.WriteAt(t.Context(), block, 4096) }
	}
	conn, err := native.Dial(t.Context(), front.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	vid, err := native.LookUp(t.Context(), conn, "two")
	if err != nil {
		t.Fatal(err)
	}
	writers["two"] = func() error {
		resp, err := conn.Do(t.Context(), &native.Request{
			Op: native.OpWrite, Flags: native.FlagWrite, Body: native.ObjectBody(native.DataID(vid, 0), 0, 3, 4096), Data: block,
		})
		if err != nil {
			return err
		}
		return resp.Err()
	}
	m := mountSheepfs(t, c, front)
	f, err := os.OpenFile(m.path("volume/three"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	writers["three"] = func() error {
		_, err := f.WriteAt(block, 4096)
		return err
	}
	for name, write := range writers { // so that all have an owner
		if err := write(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	const deadline = 2 * time.Second
	c.Dog("cluster", "deadline", "2")
	c.Dog("vdi", "deadline", "patient", "forever")
	errs := stopAndWrite(t, victim, writers)
	for name, want := range map[string]error{"one": syscall.EIO, "two": native.IOError, "three": syscall.EIO} {
		if got := errs[name]; got == nil || !errors.Is(got.err, want) || got.took < deadline || got.took > 3*deadline {
			t.Errorf("the client of %s got %+v, want %v after %v", name, got, want, deadline)
		}
	}
	if got := errs["patient"]; got.err != nil || got.took < 3*deadline {
		t.Errorf("the client that waits for ever got %+v", got)
	}
	for _, line := range []string{victim.Addr(), "vdi=" + fmt.Sprintf("%x", vid), "state=peer", "given up at its deadline"} {
		if !strings.Contains(front.Log(), line) {
			t.Errorf("the log does not have %q", line)
		}
	}
	if err := victim.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.WaitJoined()
	c.WaitRecovered()
	for name, write := range writers {
		if err := write(); err != nil {
			t.Errorf("%s, when all nodes are back: %v", name, err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	for name := range writers {
		if got := c.Dog("vdi", "read", name, "4096", "4096"); got != string(block) {
			t.Errorf("%s has not what was written last", name)
		}
		c.Check(name)
	}
}

// An outcome is what a client got, and when.
type outcome struct {
	err  error
	took time.Duration
}

// stopAndWrite stops a node and has all writers write.
func stopAndWrite(t *testing.T, victim *harness.Node, writers map[string]func() error) map[string]*outcome {
	t.Helper()
	if err := victim.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	type named struct {
		name string
		outcome
	}
	done := make(chan named, len(writers))
	for name, write := range writers {
		go func() {
			begin := time.Now()
			err := write()
			done <- named{name, outcome{err, time.Since(begin)}}
		}()
	}
	got := make(map[string]*outcome)
	for range writers {
		n := <-done
		got[n.name] = &n.outcome
	}
	return got
}

// An insistent disk tries again what was given up, as a guest does that is told to.
// What it is answered then must hold, whatever becomes of the attempts before.
type insistent struct {
	*native.Disk
	refused atomic.Int64
}

func (d *insistent) again(fn func() error) error {
	for {
		err := fn()
		if !errors.Is(err, native.IOError) {
			return err
		}
		d.refused.Add(1)
	}
}

func (d *insistent) ReadAt(ctx context.Context, p []byte, off int64) error {
	return d.again(func() error { return d.Disk.ReadAt(ctx, p, off) })
}

func (d *insistent) WriteAt(ctx context.Context, p []byte, off int64) error {
	return d.again(func() error { return d.Disk.WriteAt(ctx, p, off) })
}

func (d *insistent) Flush(ctx context.Context) error {
	return d.again(func() error { return d.Disk.Flush(ctx) })
}

// TestWhatWasGivenUpHarmsNothing stops a node again and again, for longer than its
// clients wait, at last until the others go on without it.
func TestWhatWasGivenUpHarmsNothing(t *testing.T) {
	c := harness.Start(t, harness.Config{Nodes: 3})
	c.Format(3)
	clients := newClients(t, c, seed(t), 32<<20)
	c.Dog("cluster", "deadline", "1")
	stop := make(chan struct{})
	var disks []*insistent
	for _, cl := range clients { // not through the node that will suffer
		cl.cfg.Servers = c.Addrs(0)[:2]
		dev, err := native.Open(t.Context(), cl.cfg, cl.name)
		if err != nil {
			t.Fatal(err)
		}
		disk := &insistent{Disk: dev}
		disks = append(disks, disk)
		cl.done = make(chan error, 1)
		go func() {
			defer dev.Close()
			cl.done <- cl.load.Run(t.Context(), stop, disk)
		}()
	}
	victim := c.Nodes[2]
	victim.Doomed = true
	signal := func(s syscall.Signal) {
		t.Helper()
		if err := victim.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	writes := func() {
		t.Helper()
		more := counter(clients)
		c.Until("some writes", func(context.Context) error {
			failed(t, clients)
			return more(100)
		})
	}
	for range 3 {
		writes()
		signal(syscall.SIGSTOP)
		time.Sleep(3 * time.Second) // how long it is stopped
		signal(syscall.SIGCONT)
	}
	writes()
	signal(syscall.SIGSTOP)
	untilListed(c, 2)
	writes()
	signal(syscall.SIGCONT)
	c.WaitJoined()
	c.WaitRecovered()
	close(stop)
	for i, cl := range clients {
		if err := <-cl.done; err != nil {
			t.Fatalf("%s: %v", cl.name, err)
		}
		n := disks[i].refused.Load()
		t.Logf("%s: %s, %d requests were given up", cl.name, cl.load.Stats(), n)
		if n == 0 {
			t.Errorf("%s: nothing was given up", cl.name)
		}
	}
	for _, cl := range clients {
		cl.verify(t, c, false)
	}
}

// TestAReadOfWhatIsAwayEndsAtItsDeadline has the nodes with the last copies be away:
// what they alone have cannot be read, and the reader is told so in time.
func TestAReadOfWhatIsAwayEndsAtItsDeadline(t *testing.T) {
	c := harness.Start(t, harness.Config{Nodes: 3})
	c.Format(2)
	c.Dog("vdi", "create", "-P", "disk", "64M")
	stale, newest := c.Nodes[0], c.Nodes[1:]
	vid, err := native.Ask(t.Context(), stale.Addr(), func(ctx context.Context, conn *native.Conn) (uint32, error) {
		return native.LookUp(ctx, conn, "disk")
	})
	if err != nil {
		t.Fatal(err)
	}
	stale.Kill()
	c.WaitRecovered()
	newer := bytes.Repeat([]byte("newer..."), 8<<20)
	c.DogAt(newest[0], newer, "vdi", "write", "disk")
	c.Dog("cluster", "recover", "disable") // that it learns nothing while it can
	stale.Start()
	c.WaitJoined()
	c.Dog("cluster", "deadline", "3")
	for _, n := range newest {
		n.Kill()
	}
	c.WaitJoined() // it knows that they are gone
	conn, err := native.Dial(t.Context(), stale.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	begin := time.Now()
	resp, err := conn.Do(t.Context(), &native.Request{
		Op: native.OpRead, Body: native.ObjectBody(native.InodeID(vid), 0, 2, 0), Into: make([]byte, 4096),
	})
	if took := time.Since(begin); err != nil || resp.Result != native.IOError || took < 3*time.Second || took > 10*time.Second {
		t.Errorf("got %+v, %v after %v; want %v", resp, err, took, native.IOError)
	}
	if !strings.Contains(stale.Log(), "state=recovery") {
		t.Error("the log does not say what the request waited for")
	}
	for _, n := range newest {
		n.Start()
	}
	c.WaitJoined()
	c.Dog("cluster", "recover", "enable")
	c.WaitRecovered()
	if got := c.DogAt(stale, nil, "vdi", "read", "disk"); got != string(newer) {
		t.Error("the disk has not what was written last")
	}
	c.Check("disk")
}

// TestWithoutAMajorityClientsAreToldInTime has two of three machines die.
func TestWithoutAMajorityClientsAreToldInTime(t *testing.T) {
	h := startHosts(t, 3, 3)
	h.Dog(0, nil, "vdi", "create", "disk", "32M")
	h.Dog(0, noise(4<<20), "vdi", "write", "disk", "0", "4M")
	h.Dog(0, nil, "cluster", "deadline", "2")
	dev, err := native.Open(t.Context(), native.Config{Servers: []string{h.Nodes[0].Sock()}}, "disk")
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	for _, i := range []int{1, 2} {
		h.Nodes[i].Doomed = true
		h.Nodes[i].Kill()
	}
	block := noise(4096)
	begin := time.Now()
	err = dev.WriteAt(t.Context(), block, 0)
	if took := time.Since(begin); !errors.Is(err, native.IOError) || took < 2*time.Second || took > 8*time.Second {
		t.Errorf("got %v after %v, want %v", err, took, native.IOError)
	}
	for _, i := range []int{1, 2} {
		h.Nodes[i].Start()
	}
	all := hostsUpTo(3)
	h.WaitMembers(all, all)
	h.WaitRecovered()
	h.Dog(1, block, "vdi", "write", "disk", "0", "4096")
	if got := h.Dog(2, nil, "vdi", "read", "disk", "0", "4096"); got != string(block) {
		t.Error("the disk has not what was written last")
	}
	h.Dog(0, nil, "vdi", "check", "disk")
}
