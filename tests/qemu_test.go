package tests_test

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"sheepdog/tests/harness"
)

// These tests need a QEMU of version 6.0 or older, built with its sheepdog
// driver, which no distribution ships any more.

// qemuIO runs commands of qemu-io on a disk and ends the test if one fails.
func qemuIO(t *testing.T, program, url string, commands ...string) {
	t.Helper()
	args := []string{"-f", "raw", "-t", "writeback"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := exec.Command(program, append(args, url)...).CombinedOutput()
	for _, sign := range []string{"failed", "error", "Pattern verification"} {
		if strings.Contains(string(out), sign) {
			err = fmt.Errorf("it says %q: %w", sign, io.ErrUnexpectedEOF)
		}
	}
	if err != nil {
		t.Fatalf("qemu-io %q: %v\n%s", commands, err, out)
	}
}

func urls(c *harness.Cluster, name string) map[string]string {
	n := c.Nodes[0]
	return map[string]string{
		"tcp":  fmt.Sprintf("sheepdog://%s/%s", n.Addr(), name),
		"unix": fmt.Sprintf("sheepdog+unix:///%s?socket=%s", name, strings.TrimPrefix(n.Sock(), "unix:")),
	}
}

func TestQEMUImg(t *testing.T) {
	qemu := harness.FromEnv(t, "QEMU_IMG_SHEEPDOG")
	seed := seed(t)
	first, second := fileSystem(t, seed, 64<<20), fileSystem(t, seed+1, 64<<20)
	for _, transport := range []string{"tcp", "unix"} {
		t.Run(transport, func(t *testing.T) {
			c := harness.Start(t, harness.Config{})
			c.Format(3)
			url, clone := urls(c, "vol")[transport], urls(c, "clone")[transport]
			base := urls(c, "vol")["tcp"] + "#one" // QEMU aborts when it opens a base over the socket
			img := func(args ...string) string { t.Helper(); return qemuImg(t, qemu, args...) }

			img("create", "-f", "raw", url, "64M")
			img("convert", "-n", "-f", "raw", "-O", "raw", first, url)
			img("compare", "-f", "raw", "-F", "raw", first, url)
			img("snapshot", "-c", "one", url)
			if got := img("snapshot", "-l", url); !strings.Contains(got, "one") {
				t.Errorf("qemu-img snapshot -l says\n%s", got)
			}
			img("convert", "-n", "-f", "raw", "-O", "raw", second, url)
			img("compare", "-f", "raw", "-F", "raw", second, url)
			img("compare", "-f", "raw", "-F", "raw", first, url+"#one")
			same(t, "the snapshot", first, c.DogAt(c.Nodes[1], nil, "vdi", "read", "-s", "one", "vol"))

			img("create", "-f", "sheepdog", "-b", base, "-F", "sheepdog", clone)
			img("compare", "-f", "raw", "-F", "raw", first, clone)
			img("convert", "-n", "-f", "raw", "-O", "raw", second, clone)
			img("compare", "-f", "raw", "-F", "raw", second, clone)
			img("compare", "-f", "raw", "-F", "raw", first, url+"#one")

			img("snapshot", "-a", "one", url)
			img("compare", "-f", "raw", "-F", "raw", first, url)
			img("resize", "-f", "raw", url, "128M")
			if got := img("info", url); !strings.Contains(got, "128 MiB") {
				t.Errorf("after a resize qemu-img info says\n%s", got)
			}
			for _, name := range []string{"vol", "clone"} {
				c.Check(name)
			}
		})
	}
}

func TestQEMUImgRedundancy(t *testing.T) {
	qemu := harness.FromEnv(t, "QEMU_IMG_SHEEPDOG")
	c := harness.Start(t, harness.Config{})
	c.Format(3)
	url := urls(c, "vol")["tcp"]
	qemuImg(t, qemu, "create", "-f", "raw", "-o", "redundancy=2", url, "64M")
	if got := strings.Fields(c.Dog("vdi", "list", "-r", "vol")); len(got) < 9 || got[8] != "2" && got[7] != "2" {
		t.Errorf("dog vdi list says %q, want 2 copies", got)
	}
}

func TestQEMUIO(t *testing.T) {
	img, qio := harness.FromEnv(t, "QEMU_IMG_SHEEPDOG"), harness.FromEnv(t, "QEMU_IO_SHEEPDOG")
	c := harness.Start(t, harness.Config{})
	c.Format(3)
	url := urls(c, "vol")["tcp"]
	qemuImg(t, img, "create", "-f", "raw", url, "64M")
	qemuIO(t, qio, url,
		"write -P 0xaa 1M 10M", "write -P 0xbb 3M 4k", "flush",
		"read -P 0xaa 1M 2M", "read -P 0xbb 3M 4k", "read -P 0 0 1M", "read -P 0xaa 3149824 1M")
	qemuIO(t, qio, url,
		"aio_write -P 1 20M 64k", "aio_write -P 2 20544k 64k", "aio_write -P 3 24M 3M", "aio_flush",
		"read -P 1 20M 64k", "read -P 2 20544k 64k", "read -P 3 24M 3M")
	qemuIO(t, qio, url, "discard 4M 4M", "read -P 0 4M 4M", "read -P 0xaa 8M 2M", "write -z 8M 1M", "read -P 0 8M 1M")
	qemuIO(t, qio, urls(c, "vol")["unix"], "read -P 0 4M 4M", "read -P 0xaa 1M 2M")

	c.Dog("vdi", "snapshot", "-s", "one", "vol")
	qemuIO(t, qio, url, "write -P 0xcc 1M 1M", "read -P 0xcc 1M 1M", "read -P 0xaa 2M 1M")
	qemuIO(t, qio, url+"#one", "read -P 0xaa 1M 1M")
	c.Nodes[2].Kill()
	qemuIO(t, qio, url, "read -P 0xcc 1M 1M", "write -P 0xdd 40M 1M", "read -P 0xdd 40M 1M")
	c.Nodes[2].Start()
	c.WaitRecovered()
	c.Check("vol")
}

// TestQEMUSavesAMachine saves and loads the state of a virtual machine.
func TestQEMUSavesAMachine(t *testing.T) {
	qemu := harness.FromEnv(t, "QEMU_SYSTEM_SHEEPDOG")
	c := harness.Start(t, harness.Config{})
	c.Format(3)
	c.Dog("vdi", "create", "vol", "64M")
	machine := func(commands ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), qemu, "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none", "-S",
			"-monitor", "stdio", "-drive", "file="+urls(c, "vol")["tcp"]+",format=raw,if=virtio")
		cmd.Stdin = strings.NewReader(strings.Join(append(commands, "quit", ""), "\n"))
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("qemu %q: %v\n%s", commands, err, out.String())
		}
		if strings.Contains(out.String(), "Error") {
			t.Fatalf("qemu %q:\n%s", commands, out.String())
		}
		return out.String()
	}
	machine("savevm asleep")
	if got := machine("info snapshots"); !strings.Contains(got, "asleep") {
		t.Errorf("info snapshots says\n%s", got)
	}
	machine("loadvm asleep", "info status")
}
