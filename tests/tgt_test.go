package tests_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sheepdog/tests/harness"
)

// A target is an iSCSI target of tgt, a client of the native protocol that
// others wrote.
type target struct {
	t       *testing.T
	control string // number of tgtd's control socket, as -C takes it
	env     []string
	port    harness.Port
	tgtadm  string
	luns    int
}

// startTarget runs a tgtd of its own.
func startTarget(t *testing.T) *target {
	t.Helper()
	programs := harness.Need(t, "tgtd", "tgtadm", "qemu-img")
	dir, err := os.MkdirTemp("", "tgt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	tg := &target{t: t, port: harness.FreePort(t), tgtadm: programs[1]}
	tg.control = strconv.Itoa(tg.port.Number)
	tg.env = append(os.Environ(), "TGT_IPC_SOCKET="+filepath.Join(dir, "control"))
	cmd := exec.Command(programs[0], "-f", "-C", tg.control, "--iscsi", "portal="+tg.port.String())
	cmd.Env = tg.env
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := harness.Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		harness.KillGroup(cmd)
		cmd.Wait()
		if t.Failed() {
			t.Logf("tgtd:\n%s", log.String())
		}
	})
	deadline := time.Now().Add(patience)
	for {
		_, err := tg.try("--mode", "system", "--op", "show")
		if err == nil {
			return tg
		}
		if time.Now().After(deadline) {
			t.Fatalf("tgtd does not come up: %v\n%s", err, log.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (tg *target) try(args ...string) (string, error) {
	cmd := exec.Command(tg.tgtadm, append([]string{"-C", tg.control, "--lld", "iscsi"}, args...)...)
	cmd.Env = tg.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("tgtadm %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (tg *target) adm(args ...string) {
	tg.t.Helper()
	if _, err := tg.try(args...); err != nil {
		tg.t.Fatal(err)
	}
}

// export makes a target for a disk, store being "tcp:host:port:vdi" or
// "unix:path:vdi", and returns the URL for QEMU.
func (tg *target) export(store string) string {
	tg.t.Helper()
	tg.luns++
	tid, iqn := strconv.Itoa(tg.luns), fmt.Sprintf("iqn.2026-01.test:disk%d", tg.luns)
	tg.adm("--mode", "target", "--op", "new", "--tid", tid, "-T", iqn)
	tg.adm("--mode", "logicalunit", "--op", "new", "--tid", tid, "--lun", "1", "--bstype", "sheepdog", "--backing-store", store)
	tg.adm("--mode", "target", "--op", "bind", "--tid", tid, "-I", "ALL")
	return fmt.Sprintf("iscsi://%s/%s/1", tg.port, iqn)
}

// qemuImg runs qemu-img and ends the test if it fails.
func qemuImg(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		if bytes.Contains(out, []byte("Unknown protocol 'iscsi'")) || bytes.Contains(out, []byte("Unknown driver 'iscsi'")) {
			t.Skip("qemu-img has no iSCSI driver (qemu-block-extra)")
		}
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// fileSystem makes an image with a real file system full of files.
func fileSystem(t *testing.T, seed uint64, size int64) string {
	t.Helper()
	mkfs := harness.Need(t, "mkfs.ext4")[0]
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(seed, 5))
	for i := range 40 {
		name := filepath.Join(dir, "tree", fmt.Sprint(i%7), fmt.Sprintf("file%d", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, random(rng, 1000+rng.IntN(1<<20)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	image := filepath.Join(dir, "image")
	cmd := exec.Command(mkfs, "-q", "-F", "-d", filepath.Join(dir, "tree"), image, fmt.Sprintf("%dk", size>>10))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	return image
}

// TestISCSI puts a file system on a disk through tgt, over both transports,
// snapshots it, puts another one there, and finds both unharmed.
func TestISCSI(t *testing.T) {
	const size = 64 << 20
	seed := seed(t)
	first, second := fileSystem(t, seed, size), fileSystem(t, seed+1, size)
	for _, transport := range []string{"tcp", "unix"} {
		t.Run(transport, func(t *testing.T) {
			tg := startTarget(t)
			qemu := harness.Need(t, "qemu-img")[0]
			c := harness.Start(t, harness.Config{ShortPorts: true})
			c.Format(2)
			c.Dog("vdi", "create", "vol", strconv.Itoa(size))
			store := "tcp:" + c.Nodes[0].Addr() + ":vol"
			if transport == "unix" {
				store = c.Nodes[0].Sock() + ":vol"
			}
			url := tg.export(store)

			qemuImg(t, qemu, "convert", "-n", "-f", "raw", "-O", "raw", first, url)
			qemuImg(t, qemu, "compare", "-f", "raw", "-F", "raw", first, url)
			c.Dog("vdi", "snapshot", "-s", "one", "vol")
			qemuImg(t, qemu, "convert", "-n", "-f", "raw", "-O", "raw", second, url)
			qemuImg(t, qemu, "compare", "-f", "raw", "-F", "raw", second, url)

			same(t, "the snapshot", first, c.DogAt(c.Nodes[1], nil, "vdi", "read", "-s", "one", "vol"))
			same(t, "the disk", second, c.DogAt(c.Nodes[1], nil, "vdi", "read", "vol"))
			c.Check("vol")

			c.Nodes[2].Kill()
			qemuImg(t, qemu, "compare", "-f", "raw", "-F", "raw", second, url)
			same(t, "the snapshot with a node less", first, c.DogAt(c.Nodes[1], nil, "vdi", "read", "-s", "one", "vol"))
		})
	}
}

// TestISCSIWithLocks opens a disk in a cluster that keeps locks.
func TestISCSIWithLocks(t *testing.T) {
	tg := startTarget(t)
	qemu := harness.Need(t, "qemu-img")[0]
	c := harness.Start(t, harness.Config{ShortPorts: true})
	c.Format(2, "-l")
	c.Dog("vdi", "create", "vol", "64M")
	url := tg.export("tcp:" + c.Nodes[0].Addr() + ":vol")
	if got := c.Dog("vdi", "lock", "list"); !strings.Contains(got, "vol") {
		t.Errorf("dog vdi lock list says\n%s", got)
	}
	image := fileSystem(t, seed(t), 64<<20)
	qemuImg(t, qemu, "convert", "-n", "-f", "raw", "-O", "raw", image, url)
	qemuImg(t, qemu, "compare", "-f", "raw", "-F", "raw", image, url)
	tg.adm("--mode", "target", "--op", "delete", "--force", "--tid", "1")
	if got := c.Dog("vdi", "lock", "list"); strings.Contains(got, "vol") {
		t.Errorf("after the target has gone dog vdi lock list says\n%s", got)
	}
}

// same fails the test unless got is what the file image holds.
func same(t *testing.T, what, image, got string) {
	t.Helper()
	want, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := firstDifference(want, []byte(got)); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func firstDifference(want, got []byte) error {
	if bytes.Equal(want, got) {
		return nil
	}
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			return fmt.Errorf("differs at byte %d: %#02x, want %#02x", i, got[i], want[i])
		}
	}
	return fmt.Errorf("has %d bytes, want %d", len(got), len(want))
}
