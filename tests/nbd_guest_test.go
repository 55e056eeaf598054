package tests_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"sheepdog/tests/harness"
)

// These tests boot a Linux kernel in an emulator and let it use disks: with its
// own NBD client, or as disks of the emulated machine. See guest/README.md.

// A guest is a machine to boot.
type guest struct {
	t *testing.T
}

// newGuest builds the image that guests boot from, unless that was done before.
func newGuest(t *testing.T) guest {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the guest is made of packages for amd64")
	}
	harness.Need(t, "qemu-system-x86_64", "apt-get", "dpkg-deb", "python3")
	g := guest{t}
	if out, err := g.command("build-initramfs.sh").CombinedOutput(); err != nil {
		t.Fatalf("build the guest: %v\n%s", err, out)
	}
	return g
}

func (g guest) command(script string, args ...string) *exec.Cmd {
	root, err := harness.Root()
	if err != nil {
		g.t.Fatal(err)
	}
	return exec.CommandContext(g.t.Context(), filepath.Join(root, "tests/guest", script), args...)
}

// boot starts a guest and returns what its console shows from then on, and a
// function that waits until the guest has switched itself off. The test ends if
// that takes too long or the guest is not content.
func (g guest) boot(args ...string) (console func() string, wait func() string) {
	g.t.Helper()
	log := filepath.Join(g.t.TempDir(), "console")
	cmd := g.command("run-guest.sh", append([]string{"--log", log, "--timeout", "150"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // lets the script end the emulator
	started := time.Now()
	if err := harness.Spawn(cmd); err != nil {
		g.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	g.t.Cleanup(func() { harness.KillGroup(cmd) })
	console = func() string {
		b, _ := os.ReadFile(log) // there is none before the guest has started
		return strings.ReplaceAll(string(b), "\r", "")
	}
	wait = func() string {
		g.t.Helper()
		if err := <-done; err != nil {
			g.t.Fatalf("guest %q: %v\n%s", args, err, out.String())
		}
		g.t.Logf("guest %q: %v\n%s", args, time.Since(started).Round(time.Second), out.String())
		return out.String()
	}
	return console, wait
}

// run boots a guest and returns its console when it has switched itself off.
func (g guest) run(args ...string) string {
	g.t.Helper()
	_, wait := g.boot(args...)
	return wait()
}

// guestCluster starts three sheep that export the disk vol at ports of
// 127.0.0.1, which guests reach.
func guestCluster(t *testing.T) (*harness.Cluster, []string) {
	t.Helper()
	c := harness.New(t, harness.Config{})
	var ports []string
	for _, n := range c.Nodes {
		p := harness.FreePort(t)
		n.Args = append(n.Args[:len(n.Args):len(n.Args)], "--nbd", p.String())
		ports = append(ports, strconv.Itoa(p.Number))
	}
	for _, n := range c.Nodes {
		n.Start()
		c.WaitJoined()
	}
	c.Format(3)
	c.Dog("vdi", "create", "vol", "512M")
	return c, ports
}

// TestKernelClient lets Linux's own NBD client work with a file system over four
// connections, attach it again, and read what it wrote.
func TestKernelClient(t *testing.T) {
	g := newGuest(t)
	c, ports := guestCluster(t)
	got := g.run("--nbd", ports[0], "--export", "vol", "--conns", "4", "--fs", "ext4,xfs")
	limits := regexp.MustCompile(`536870912 bytes, block 4096, cache 'write back', fua 1, discard max [1-9]`)
	if !limits.MatchString(got) {
		t.Errorf("the kernel does not see a disk of 512 MiB with a write-back cache and discard:\n%s", got)
	}
	c.Check("vol")
}

// TestGuestLossOfPower kills the guest and all sheep while the guest writes
// files, each synced before the next. All that were must be there when it boots
// again. The NBD client is the kernel's, or QEMU of which the guest knows nothing.
func TestGuestLossOfPower(t *testing.T) {
	for _, test := range []struct {
		name, fs string
		disk     func(port string) []string
		sees     string
	}{
		{"kernel", "ext4", func(port string) []string { return []string{"--nbd", port, "--export", "vol", "--conns", "4"} },
			`536870912 bytes, block 4096, cache 'write back', fua 1, discard max [1-9]`},
		{"QEMU", "xfs", func(port string) []string {
			return []string{"--drive", "file=nbd://127.0.0.1:" + port + "/vol,format=raw,cache=none,discard=unmap"}
		}, `536870912 bytes, cache 'write back', discard max [1-9]`},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGuest(t)
			c, ports := guestCluster(t)
			args := append(test.disk(ports[0]), "--fs", test.fs, "--kb", "64")
			got := g.run(append(args, "--stage", "ack", "--files", "500", "--kill-after", "40")...)
			c.Kill()
			n := regexp.MustCompile(`ACKED=(\d+)`).FindStringSubmatch(got)
			if n == nil || !regexp.MustCompile(test.sees).MatchString(got) {
				t.Fatalf("the guest acknowledged nothing, or does not see a disk with a write-back cache and discard:\n%s", got)
			}
			c.StartAll()
			g.run(append(args, "--stage", "acked", "--acked", n[1])...)
			c.Check("vol")
		})
	}
}

// TestDogAttach runs dog in the guest. While a file system on the device that it
// attached is written to, the sheep that it is connected to is killed, and later
// the one that it is connected to then; the file system notices nothing.
func TestDogAttach(t *testing.T) {
	g := newGuest(t)
	c, ports := guestCluster(t)
	c.Dog("vdi", "create", "other", "8M")
	const files = 80
	console, wait := g.boot("--net", "--stage", "extra", "--extra", staticDog(t), "--extra", g.script("dog.sh"),
		"--export", "vol", "--conns", "4", "--fs", "ext4", "--files", strconv.Itoa(files), "--kb", "64",
		"--arg", "ports="+strings.Join(ports, ","))
	seen := func(what string, ok func(console string) bool) {
		t.Helper()
		c.Until(what, func(context.Context) error {
			got := console()
			if strings.Contains(got, "GUEST-RESULT: FAIL") {
				t.Fatalf("the guest failed:\n%s", got)
			}
			if !ok(got) {
				return fmt.Errorf("the console shows\n%s", got)
			}
			return nil
		})
	}
	acknowledged := func(n int) {
		t.Helper()
		seen(fmt.Sprintf("%d files", n), func(got string) bool { return strings.Count(got, "GUEST-ACK") >= n })
	}
	for i, node := range c.Nodes[:2] {
		acknowledged(10 + 20*i)
		node.Kill()
		acknowledged(20 + 20*i) // over another node
		node.Start()
		c.WaitRecovered()
	}
	seen("the device without a monitor", func(got string) bool { return strings.Contains(got, "GUEST-ALONE") })
	c.Nodes[0].Kill()
	c.Nodes[0].Start()
	got := wait()
	c.WaitRecovered()
	if !strings.Contains(got, "536870912 bytes, cache 'write back', fua 1, discard max") {
		t.Errorf("the kernel does not see a disk of 512 MiB with a write-back cache and discard:\n%s", got)
	}
	c.Check("vol")
}

// script returns the path of a copy of a script under the name that guests
// start it by.
func (g guest) script(name string) string {
	g.t.Helper()
	root, err := harness.Root()
	if err != nil {
		g.t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "tests/guest", name))
	if err != nil {
		g.t.Fatal(err)
	}
	path := filepath.Join(g.t.TempDir(), "run.sh")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		g.t.Fatal(err)
	}
	return path
}

// staticDog returns a dog that needs no libraries, which the guest does not have.
func staticDog(t *testing.T) string {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dog")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/dog")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build dog: %v\n%s", err, out)
	}
	return path
}
