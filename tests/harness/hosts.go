package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sheepdog/tests/native"
)

// Hosts are machines with one sheep each, played by network namespaces that a
// switch joins. Nothing of them has a name outside: their network lives and
// dies with processes of this one, and several suites do not meet.
type Hosts struct {
	Nodes []*Node
	Dir   string // private, removed in the end

	t       TB
	hub     space
	hosts   []space
	dogs    []string // programs that run dog on a host
	at      []string // the switch that each host is plugged into
	wires   []*wire  // nil where the weather is fair
	bridges int
}

// space is a network namespace, held by a process that waits for its end.
type space struct{ pid int }

// hostPort is where every sheep of Hosts listens: each has a machine of its own.
const hostPort = 7000

// HostAddr returns the address of host i.
func HostAddr(i int) string { return fmt.Sprintf("10.11.12.%d", i+1) }

// NewHosts makes hosts that can all reach each other. Their sheep, which are not
// started, have the arguments that args returns for them. The test is skipped
// if it may not make namespaces.
func NewHosts(t TB, count int, args func(i int) []string) *Hosts {
	t.Helper()
	Need(t, "ip", "nsenter", "unshare")
	if os.Geteuid() != 0 {
		t.Skipf("only root makes network namespaces")
	}
	p := Build(t)
	dir, err := os.MkdirTemp("", "hosts")
	if err != nil {
		t.Fatal(err)
	}
	h := &Hosts{Dir: dir, t: t}
	t.Cleanup(h.cleanup)
	h.hub = h.space()
	h.hub.run(t, "ip", "link", "set", "lo", "up")
	h.bridge()
	for i := range count {
		s := h.space()
		h.hosts, h.at, h.wires = append(h.hosts, s), append(h.at, "br0"), append(h.wires, nil)
		h.connect(i)
		name := fmt.Sprintf("n%d", i)
		n := &Node{
			ID: i, Port: Port{Number: hostPort}, Dir: filepath.Join(dir, name),
			t: t, sheep: h.wrap(s, p.Sheep, name+"-sheep"), host: HostAddr(i), log: filepath.Join(dir, name+".log"),
		}
		n.Args = append([]string{"-b", "0.0.0.0", "-y", HostAddr(i)}, args(i)...)
		n.cluster = "local" // what args say comes later
		h.Nodes = append(h.Nodes, n)
		h.dogs = append(h.dogs, h.wrap(s, p.Dog, name+"-dog"))
	}
	return h
}

func (h *Hosts) cleanup() {
	for _, w := range h.wires {
		if w != nil {
			w.close()
		}
	}
	for _, n := range h.Nodes {
		n.Kill()
		for _, cry := range []string{"WARNING: DATA RACE", "\npanic: ", "\nfatal error: "} {
			if _, after, found := strings.Cut(n.Log(), cry); found {
				h.t.Errorf("node %d:%s%s", n.ID, cry, after[:min(len(after), 4000)])
			}
		}
		if h.t.Failed() {
			h.t.Logf("the end of node %d's log:\n%s", n.ID, tail(n.Log(), 60))
		}
	}
	if h.t.Failed() && os.Getenv("SHEEP_TEST_KEEP") == "1" {
		h.t.Logf("keeping %s", h.Dir)
		return
	}
	if err := os.RemoveAll(h.Dir); err != nil {
		h.t.Error(err)
	}
}

// space makes a network namespace.
func (h *Hosts) space() space {
	h.t.Helper()
	cmd := exec.Command("unshare", "--net", "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := Spawn(cmd); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	fmt.Fprintln(in) // what comes back was said inside of the namespace
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		h.t.Skipf("this machine lets the test make no network namespace")
	}
	return space{cmd.Process.Pid}
}

func (s space) run(t TB, args ...string) {
	t.Helper()
	cmd := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(s.pid), "-n", "--"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// wrap returns a program that runs another one in a namespace, by means of
// further programs.
func (h *Hosts) wrap(s space, program, name string, means ...string) string {
	h.t.Helper()
	path := filepath.Join(h.Dir, name)
	script := fmt.Sprintf("#!/bin/sh\nexec nsenter -t %d -n -- %s %s \"$@\"\n", s.pid, strings.Join(means, " "), program)
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// SetClocks has the clocks that count from the start of the machine of host i,
// CLOCK_MONOTONIC and CLOCK_BOOTTIME, go wrong by so much when its sheep starts
// the next time, as if the machine had started at another time. It reports
// whether this kernel can do that. No kernel gives a process a CLOCK_REALTIME of
// its own.
func (h *Hosts) SetClocks(i int, wrong time.Duration) bool {
	h.t.Helper()
	offset := fmt.Sprint(int(wrong.Seconds()))
	means := []string{"unshare", "--time", "--monotonic", offset, "--boottime", offset, "--"}
	before, after := uptime(nil), uptime(means)
	if off := after - before - wrong; off < -time.Minute || off > time.Minute {
		return false
	}
	h.Nodes[i].sheep = h.wrap(h.hosts[i], Build(h.t).Sheep, fmt.Sprintf("n%d-sheep", i), means...)
	return true
}

// uptime returns for how long the machine has run, as a program sees it that is
// run by some means; 0 if that does not work.
func uptime(means []string) time.Duration {
	args := append(means[:len(means):len(means)], "cat", "/proc/uptime")
	out, err := exec.Command(args[0], args[1:]...).Output()
	if err != nil {
		return 0
	}
	s, _ := strconv.ParseFloat(strings.Fields(string(out))[0], 64) // 0 if it is no number
	return time.Duration(s * float64(time.Second))
}

// bridge adds a switch and returns its name.
func (h *Hosts) bridge() string {
	h.t.Helper()
	name := fmt.Sprintf("br%d", h.bridges)
	h.bridges++
	h.hub.run(h.t, "ip", "link", "add", name, "type", "bridge")
	h.hub.run(h.t, "ip", "link", "set", name, "up")
	return name
}

// connect gives host i a network card and plugs it into the first switch.
func (h *Hosts) connect(i int) {
	h.t.Helper()
	s, plug := h.hosts[i], plugOf(i)
	h.hub.run(h.t, "ip", "link", "add", plug, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(s.pid))
	h.hub.run(h.t, "ip", "link", "set", plug, "master", "br0", "up")
	s.run(h.t, "ip", "link", "set", "lo", "up")
	s.run(h.t, "ip", "addr", "add", HostAddr(i)+"/24", "dev", "eth0")
	s.run(h.t, "ip", "link", "set", "eth0", "up")
}

func plugOf(i int) string { return fmt.Sprintf("port%d", i) }

// Part plugs hosts into a switch of their own: they reach each other and nobody
// else.
func (h *Hosts) Part(hosts ...int) {
	h.t.Helper()
	br := h.bridge()
	for _, i := range hosts {
		h.plug(i, br)
	}
}

// Heal plugs all hosts into one switch again.
func (h *Hosts) Heal() {
	h.t.Helper()
	for i, at := range h.at {
		if at != "br0" {
			h.plug(i, "br0")
		}
	}
}

// plug plugs host i, or the wire that it hangs on, into a switch.
func (h *Hosts) plug(i int, br string) {
	h.t.Helper()
	card := plugOf(i)
	if h.wires[i] != nil {
		card = fmt.Sprintf("far%d", i)
	}
	h.hub.run(h.t, "ip", "link", "set", card, "master", br)
	h.at[i] = br
}

// Run runs dog on host i. A dog that waits for long is killed, with status -1.
func (h *Hosts) Run(i int, stdin []byte, args ...string) Run {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), dogPatience)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, h.dogs[i], args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		h.t.Fatalf("dog %s: %v", strings.Join(args, " "), err)
	}
	return Run{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// dogPatience bounds one run of dog: longer than a death takes to be acted upon.
const dogPatience = 40 * time.Second

// Dog runs dog on host i with some standard input and returns its output. The
// test ends if dog fails.
func (h *Hosts) Dog(i int, stdin []byte, args ...string) string {
	h.t.Helper()
	r := h.Run(i, stdin, args...)
	if r.Code != 0 {
		h.t.Fatalf("dog %s on host %d: status %d\n%s%s", strings.Join(args, " "), i, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Stat asks the sheep of host i how the cluster is. It works also while the
// host is cut off.
func (h *Hosts) Stat(ctx context.Context, i int) (native.Status, error) {
	return native.Ask(ctx, h.Nodes[i].Sock(), native.Stat)
}

// WaitMembers waits until the sheep of some hosts list exactly those of others,
// and agree on the epoch, and returns how long that took.
func (h *Hosts) WaitMembers(on []int, members []int) time.Duration {
	h.t.Helper()
	want := map[string]bool{}
	for _, i := range members {
		want[fmt.Sprintf("%s:%d", HostAddr(i), hostPort)] = true
	}
	return h.Until(fmt.Sprintf("the members %v on the hosts %v", members, on), func(ctx context.Context) error {
		epoch := uint32(0)
		for k, i := range on {
			s, err := h.Stat(ctx, i)
			if err == nil {
				err = sameNodes(s.Nodes, want)
			}
			if err == nil && k > 0 && s.Epoch != epoch {
				err = errors.New("another epoch")
			}
			if err != nil {
				return fmt.Errorf("node %d: %w", i, err)
			}
			epoch = s.Epoch
		}
		return nil
	})
}

// Until asks again and again until fn returns nil, and returns how long that
// took.
func (h *Hosts) Until(what string, fn func(context.Context) error) time.Duration {
	h.t.Helper()
	begin := time.Now()
	for {
		err := fn(h.t.Context())
		if err == nil {
			return time.Since(begin)
		}
		if time.Since(begin) > patience {
			h.t.Fatalf("waited %v for %s: %v", patience, what, err)
		}
		time.Sleep(20 * time.Millisecond) // between two questions to the daemons
	}
}

// Up returns the hosts whose sheep run.
func (h *Hosts) Up() []int {
	var up []int
	for i, n := range h.Nodes {
		if n.Alive() {
			up = append(up, i)
		}
	}
	return up
}

// Kill ends the sheep of all hosts at once.
func (h *Hosts) Kill() {
	for _, i := range h.Up() {
		KillGroup(h.Nodes[i].cmd)
	}
	for _, n := range h.Nodes {
		n.Kill()
	}
}

// WaitRecovered waits until the sheep that run are one cluster that serves, and
// none of them is in recovery. It returns how long that took.
func (h *Hosts) WaitRecovered() time.Duration {
	h.t.Helper()
	up := h.Up()
	return h.WaitMembers(up, up) + h.Until("the end of recovery", func(ctx context.Context) error {
		for _, i := range up {
			s, err := h.Stat(ctx, i)
			if err == nil && s.Result != native.Success {
				err = s.Result
			}
			var busy bool
			if err == nil {
				busy, err = native.Ask(ctx, h.Nodes[i].Sock(), native.Recovering)
			}
			if err == nil && busy {
				err = errors.New("recovering")
			}
			if err != nil {
				return fmt.Errorf("node %d: %w", i, err)
			}
		}
		return nil
	})
}

// Check lets dog on host i compare the copies of a disk and fails the test if it
// found anything to repair or to complain about.
func (h *Hosts) Check(i int, name string) {
	h.t.Helper()
	checked(h.t, name, h.Run(i, nil, "vdi", "check", name))
}
