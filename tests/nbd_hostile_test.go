package tests_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/nbdclient"
)

// nbdsh runs a script of libnbd's shell, connected to the export.
func nbdsh(t *testing.T, uri, script string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), harness.Need(t, "nbdsh")[0], "-c", script)
	cmd.Env = append(os.Environ(), "PATH=/usr/bin:/bin", "URI="+uri) // the interpreter that has libnbd's module
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("nbdsh: %v\n%s", err, out)
	}
	return string(out)
}

// TestNBDRefusals sends what libnbd would never send, and gets the error that
// the protocol has for it over a connection that goes on.
func TestNBDRefusals(t *testing.T) {
	c := nbdCluster(t, 1, 1)
	c.Dog("vdi", "create", "vol", "64M")
	c.Dog("vdi", "snapshot", "-s", "one", "vol")
	const prelude = `
import os, errno
h.set_strict_mode(0)
h.add_meta_context("base:allocation")
h.set_request_structured_replies(True)
h.connect_uri(os.environ["URI"])
M = 1 << 20
size = h.get_size()
def fails(want, call, *args):
    try:
        call(*args)
    except nbd.Error as e:
        assert e.errnum == want, (call, args, e.errnum, want, str(e))
    else:
        raise AssertionError("accepted: %r %r" % (call, args))
def alive():
    assert len(h.pread(512, 0)) == 512
`
	disk := prelude + `
fails(errno.EINVAL, h.pread, 512, size)
fails(errno.EINVAL, h.pread, 1024, size - 512)
fails(errno.EINVAL, h.pread, 512, 1 << 63)
fails(errno.ENOSPC, h.pwrite, bytes(512), size)
fails(errno.ENOSPC, h.pwrite, bytes(1 * M), size - 512)
fails(errno.EINVAL, h.trim, 4096, size)
fails(errno.ENOSPC, h.zero, 4096, size)
fails(errno.EINVAL, h.block_status, 4096, size, lambda *a: 0)
alive()
h.pwrite(b"x" * 7, 13)
assert h.pread(9, 12) == b"\0" + b"x" * 7 + b"\0"
fails(errno.EINVAL, h.pread, 512, 0, 1 << 12)
fails(errno.EINVAL, h.pwrite, bytes(512), 0, 1 << 12)
fails(errno.EINVAL, h.pwrite, bytes(512), 0, nbd.CMD_FLAG_DF)
fails(errno.EINVAL, h.flush, nbd.CMD_FLAG_REQ_ONE)
alive()
for f in (lambda: h.pread(0, 0), lambda: h.pwrite(b"", 0), lambda: h.trim(0, 0), lambda: h.zero(0, 0)):
    try:
        f()
    except nbd.Error as e:
        assert e.errnum == errno.EINVAL, e
alive()
h.shutdown()
`
	nbdsh(t, nbdURI(c.Nodes[0], "vol"), disk)
	nbdsh(t, nbdURI(c.Nodes[0], "vol@one"), prelude+`
assert h.is_read_only()
fails(errno.EPERM, h.pwrite, bytes(512), 0)
fails(errno.EPERM, h.trim, 4096, 0)
fails(errno.EPERM, h.zero, 4096, 0)
alive()
h.flush()
`)
}

// rawNBD connects to node n as a stranger does.
func rawNBD(t *testing.T, n *harness.Node) net.Conn {
	t.Helper()
	nc, err := net.Dial("unix", nbdSocket(n))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}

func nbdOption(option, length uint32, data string) []byte {
	b := append([]byte(nil), "IHAVEOPT"...)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, length)
	return append(b, data...)
}

// TestNBDAbuse has strangers do their worst while an honest client works. It
// does not notice, and the daemon does not grow.
func TestNBDAbuse(t *testing.T) {
	c := nbdCluster(t, 1, 1, "--nbd-max-connections", "64", "--nbd-max-inflight", "128M")
	n := c.Nodes[0]
	c.Dog("vdi", "create", "vol", "64M")
	honest := dialNBD(t, n, "vol")
	works := func(what string) {
		t.Helper()
		p := []byte(what)
		if err := honest.WriteAt(t.Context(), p, 4096); err != nil {
			t.Fatalf("after %s: %v", what, err)
		}
		got := make([]byte, len(p))
		if err := honest.ReadAt(t.Context(), got, 4096); err != nil || string(got) != what {
			t.Fatalf("after %s: read %q, %v", what, got, err)
		}
	}
	works("nothing")
	before := n.Memory()

	for range 10_000 {
		nc, err := net.Dial("unix", nbdSocket(n))
		for errors.Is(err, syscall.EAGAIN) { // too many wait to be accepted
			runtime.Gosched()
			nc, err = net.Dial("unix", nbdSocket(n))
		}
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if _, err := nc.Write([]byte{0, 0}); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
	}
	works("10000 half-open handshakes")
	for _, option := range []uint32{1, 2, 3, 5, 6, 7, 8, 9, 10, 99} {
		nc := rawNBD(t, n)
		nc.Write(binary.BigEndian.AppendUint32(nil, 3))
		nc.Write(nbdOption(option, 1<<30, strings.Repeat("x", 4096)))
		if option == 1 { // it has no error reply
			ended(t, nc, "an export name of 1 GiB")
		}
	}
	works("options of 1 GiB")
	garbage := rawNBD(t, n)
	garbage.Write(binary.BigEndian.AppendUint32(nil, 3))
	garbage.Write(nbdOption(1, 3, "vol"))
	garbage.Write([]byte(strings.Repeat("garbage", 10)))
	ended(t, garbage, "garbage after the handshake")
	works("garbage")

	for range 50 { // requests and gone
		dev, err := nbdclient.Dial(t.Context(), "unix:"+nbdSocket(n), "vol")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 8 {
			go dev.ReadAt(t.Context(), make([]byte, 4<<20), int64(i)<<22)
		}
		dev.Drop()
	}
	works("requests that nobody waits for")
	for range 60 { // clients that announce much and send nothing
		nc := rawNBD(t, n)
		nc.Write(binary.BigEndian.AppendUint32(nil, 3))
		nc.Write(nbdOption(1, 3, "vol"))
		b := binary.BigEndian.AppendUint32(nil, 0x25609513)
		b = append(b, 0, 0, 0, 1)
		b = append(b, make([]byte, 16)...)
		nc.Write(binary.BigEndian.AppendUint32(b, 32<<20))
	}
	works("writes that were only announced")
	if after := n.Memory(); after > before+128<<20 {
		t.Errorf("the daemon grew from %d to %d MiB", before>>20, after>>20)
	}
}

// ended waits until the other side has closed the connection.
func ended(t *testing.T, nc net.Conn, what string) {
	t.Helper()
	nc.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection goes on after %s", what)
	}
}

// TestNBDInfoThenGo asks about one export and opens another.
func TestNBDInfoThenGo(t *testing.T) {
	c := nbdCluster(t, 1, 1)
	c.Dog("vdi", "create", "a", "16M")
	c.Dog("vdi", "create", "b", "32M")
	out := nbdsh(t, "", `
h.set_opt_mode(True)
h.connect_unix("`+nbdSocket(c.Nodes[0])+`")
h.set_export_name("a"); h.opt_info(); print(h.get_size())
h.set_export_name("no"); 
try: h.opt_go()
except nbd.Error as e: print("refused")
h.set_export_name("b"); h.opt_go(); print(h.get_size())
`)
	if want := fmt.Sprintf("%d\nrefused\n%d\n", 16<<20, 32<<20); out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// TestNBDStop stops the sheep in the midst of writes: what is in flight is
// answered, and what was answered is there afterwards.
func TestNBDStop(t *testing.T) {
	c := nbdCluster(t, 3, 3)
	c.Dog("vdi", "create", "vol", strconv.Itoa(64<<20))
	var load laneLoad
	dev := dialNBD(t, c.Nodes[0], "vol")
	errs := make(chan error, lanes)
	for lane := range lanes {
		go func() { errs <- load.run(t.Context(), nil, lane, dev) }()
	}
	waitWrites(t, c, &load, 200)
	c.Nodes[0].Stop()
	for range lanes {
		if err := <-errs; err == nil {
			t.Error("a writer ended without an error")
		}
	}
	acked := load.vector()
	c.Nodes[1].Kill() // what only was in memory is lost
	c.Nodes[2].Kill()
	for _, n := range c.Nodes {
		n.Start()
	}
	c.WaitRecovered()
	after := acked
	for i := range after {
		after[i]++
	}
	if err := checkPrefix(t.Context(), dialNBD(t, c.Nodes[0], "vol"), acked, after); err != nil {
		t.Error(err)
	}
}
