package tests_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sheepdog/tests/harness"
)

// tool runs a program that must be installed and succeed, and returns its output.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), harness.Need(t, name)[0], args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestNBDInfo looks at the exports as nbdinfo and qemu-img show them.
func TestNBDInfo(t *testing.T) {
	harness.Need(t, "nbdinfo", "qemu-img", "qemu-io")
	c := nbdCluster(t, 3, 2)
	n := c.Nodes[0]
	c.Dog("vdi", "create", "alice", "64M")
	c.Dog("vdi", "create", "bob", "1G")
	tool(t, "qemu-io", "-f", "raw", "-c", "write -P 7 4M 4M", "-c", "write -P 8 20M 64k", nbdURI(n, "alice"))
	c.Dog("vdi", "snapshot", "-s", "one", "alice")
	c.Dog("vdi", "snapshot", "alice")
	tool(t, "qemu-io", "-f", "raw", "-c", "write -P 9 5M 64k", nbdURI(n, "alice"))

	list := tool(t, "nbdinfo", "--list", nbdURI(c.Nodes[1], ""))
	for _, want := range []string{`export="alice":`, `export="alice@one":`, `export="alice:2":`, `export="bob":`, "is_read_only: true"} {
		if !strings.Contains(list, want) {
			t.Errorf("nbdinfo --list lacks %s:\n%s", want, list)
		}
	}
	var info struct {
		Exports []struct {
			Size      int64 `json:"export-size"`
			ReadOnly  bool  `json:"is_read_only"`
			MultiConn bool  `json:"can_multi_conn"`
			FUA       bool  `json:"can_fua"`
			Flush     bool  `json:"can_flush"`
			Trim      bool  `json:"can_trim"`
			Zero      bool  `json:"can_zero"`
			FastZero  bool  `json:"can_fast_zero"`
			DF        bool  `json:"can_df"`
			Contexts  []string
		}
	}
	if err := json.Unmarshal([]byte(tool(t, "nbdinfo", "--json", nbdURI(n, "bob"))), &info); err != nil {
		t.Fatal(err)
	}
	e := info.Exports[0]
	if e.Size != 1<<30 || e.ReadOnly || !e.MultiConn || !e.FUA || !e.Flush || !e.Trim || !e.Zero || !e.DF {
		t.Errorf("nbdinfo --json: %+v", e)
	}
	extents := func(context string) string {
		return strings.Join(strings.Fields(tool(t, "nbdinfo", "--map="+context, nbdURI(n, "alice"))), " ")
	}
	mb := func(n int) string { return strconv.Itoa(n << 20) }
	want := strings.Join([]string{
		"0", mb(4), "3 hole,zero", mb(4), mb(4), "0 data", mb(8), mb(12), "3 hole,zero",
		mb(20), mb(4), "0 data", mb(24), mb(40), "3 hole,zero"}, " ")
	if got := extents("base:allocation"); got != want {
		t.Errorf("base:allocation:\n%s\nwant\n%s", got, want)
	}
	// Object 1 was copied when it was written again, object 5 was not.
	if got := extents("sheepdog:shared"); got != strings.Join([]string{"0", mb(20), "0", mb(20), mb(4), "1", mb(24), mb(40), "0"}, " ") {
		t.Errorf("sheepdog:shared:\n%s", got)
	}
	var image struct {
		Size int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal([]byte(tool(t, "qemu-img", "info", "--output=json", "-f", "raw", nbdURI(n, "alice@one"))), &image); err != nil || image.Size != 64<<20 {
		t.Errorf("qemu-img info: %+v, %v", image, err)
	}
	out, err := exec.Command("nbdinfo", nbdURI(n, "carol")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "carol") {
		t.Errorf("a disk that does not exist: %v\n%s", err, out)
	}
}

// TestNBDImages moves real images in and out with qemu-img and nbdcopy.
func TestNBDImages(t *testing.T) {
	harness.Need(t, "qemu-img", "nbdcopy", "nbdinfo")
	const size = 96 << 20
	seed := seed(t)
	image := fileSystem(t, seed, size)
	c := nbdCluster(t, 3, 3)
	for _, name := range []string{"a", "b"} {
		c.Dog("vdi", "create", name, strconv.Itoa(size))
	}
	a, b := nbdURI(c.Nodes[0], "a"), nbdURI(c.Nodes[1], "b")
	tool(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, a)
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, a)
	same(t, "what dog reads", image, c.DogAt(c.Nodes[2], nil, "vdi", "read", "a"))
	tool(t, "nbdcopy", "--connections=4", a, b)
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, b)

	out := filepath.Join(t.TempDir(), "out")
	tool(t, "nbdcopy", "--connections=4", b, out)
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, out)
	tool(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", b, out)
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, out)

	holes := strings.Count(tool(t, "qemu-img", "map", "--output=json", "-f", "raw", b), `"zero": true`)
	if holes == 0 {
		t.Error("the copy has no holes")
	}
	// A qcow2 image lives on a disk too.
	tool(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, a)
	tool(t, "qemu-img", "bench", "-f", "raw", "-t", "none", "-w", "-c", "2000", "-d", "32", "-s", "4096", "--flush-interval", "64", nbdURI(c.Nodes[0], "b"))
	tool(t, "qemu-img", "bench", "-f", "raw", "-c", "2000", "-d", "32", nbdURI(c.Nodes[0], "b"))
	c.Check("a")
	c.Check("b")
}

// TestNBDCacheModes writes, discards, zeroes and flushes in each cache mode of QEMU.
func TestNBDCacheModes(t *testing.T) {
	harness.Need(t, "qemu-io")
	c := nbdCluster(t, 3, 2)
	c.Dog("vdi", "create", "vol", "64M")
	for i, mode := range []string{"writeback", "none", "writethrough", "directsync"} {
		p := 10 * (i + 1)
		args := []string{"-f", "raw", "-t", mode, "-d", "unmap"}
		for _, command := range []string{
			"write -P %d 0 9M", "write -P %d 1000448 512", "write -f -P %d 10M 1M", "read -P %[1]d 0 1000448", "read -P %[1]d 10M 1M",
			"write -z 1M 1M", "read -P 0 1M 1M", "write -z -u 4M 4M", "read -P 0 4M 4M", "write -zf 8M 4096", "read -P 0 8M 4096",
			"discard 3M 512k", "discard 0 512k", "flush", "read -P %[1]d 512k 400k", "aio_write -P %d 12M 2M", "aio_write -P %d 14M 2M", "aio_flush",
			"read -P %[1]d 12M 4M", "discard 0 64M", "read -P 0 0 64M",
		} {
			if strings.Contains(command, "%") {
				command = fmt.Sprintf(command, p)
			}
			args = append(args, "-c", command)
		}
		out := tool(t, "qemu-io", append(args, nbdURI(c.Nodes[i%3], "vol"))...)
		if strings.Contains(out, "failed") || strings.Contains(out, "rror") {
			t.Errorf("cache=%s:\n%s", mode, out)
		}
	}
	if used := c.Dog("vdi", "list", "-r", "vol"); strings.Fields(used)[4] != "0" {
		t.Errorf("a disk that was discarded has data: %s", used)
	}
	c.Check("vol")
}

// fioNBD runs fio's NBD engine and verifies what it wrote.
func fioNBD(t *testing.T, uri string, d time.Duration) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), harness.Need(t, "fio")[0], "--name=verify", "--ioengine=nbd", "--uri="+uri,
		"--rw=randwrite", "--bs=4k", "--size=256M", "--iodepth=32", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1",
		"--fsync=64", "--time_based", fmt.Sprintf("--runtime=%.0f", d.Seconds()), "--verify_state_save=0")
	cmd.Dir = dir
	return cmd
}

// TestNBDFio lets fio write at random and verify, while the sheep of another
// node is killed and comes back.
func TestNBDFio(t *testing.T) {
	harness.Need(t, "fio")
	d := 60 * time.Second
	if testing.Short() {
		d = 10 * time.Second
	}
	c := nbdCluster(t, 3, 3)
	c.Dog("vdi", "create", "vol", "256M")
	cmd := fioNBD(t, nbdURI(c.Nodes[0], "vol"), d)
	out := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = out, out
	if err := harness.Spawn(cmd); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	kills := 0
	for tick := time.NewTicker(3 * time.Second); ; kills++ {
		select {
		case err := <-done:
			tick.Stop()
			if err != nil || !strings.Contains(out.String(), "err= 0") {
				t.Errorf("fio, %d sheep killed: %v\n%s", kills, err, out)
			}
			t.Logf("%d sheep killed", kills)
			c.WaitRecovered()
			c.Check("vol")
			return
		case <-tick.C:
			victim := c.Nodes[1+kills%2]
			victim.Kill()
			c.WaitRunning()
			victim.Start()
			c.WaitRecovered()
		}
	}
}

// TestNBDKit puts nbdkit between the client and sheep.
func TestNBDKit(t *testing.T) {
	harness.Need(t, "nbdkit", "qemu-img", "nbdcopy")
	const size = 32 << 20
	image := fileSystem(t, seed(t), size)
	c := nbdCluster(t, 3, 2)
	c.Dog("vdi", "create", "vol", strconv.Itoa(size))
	log := filepath.Join(t.TempDir(), "log")
	for _, run := range []string{
		"qemu-img convert -n -f raw -O raw " + image + " $uri && qemu-img compare -f raw -F raw " + image + " $uri",
		"nbdcopy " + image + " $uri && nbdcopy $uri - | cmp - " + image,
	} {
		tool(t, "nbdkit", "-U", "-", "--filter=log", "nbd", "uri="+nbdURI(c.Nodes[1], "vol"), "logfile="+log, "--run", run)
	}
	// With checkwrite every write must be what the disk has already.
	tool(t, "nbdkit", "-U", "-", "--filter=log", "--filter=checkwrite", "nbd", "uri="+nbdURI(c.Nodes[0], "vol"), "logfile="+log,
		"--run", "nbdcopy "+image+" $uri")
	if b, err := os.ReadFile(log); err != nil || !strings.Contains(string(b), "Write") {
		t.Errorf("nbdkit logged no write: %v", err)
	}
	c.Check("vol")
}
