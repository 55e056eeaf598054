package command_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sheepdog/cmd/dog/internal/command"
	"sheepdog/cmd/dog/internal/fakesheep"
	"sheepdog/sheep/proto"
)

// TestWriteThenRead writes parts of VDIs, with snapshots in between, and
// compares what is read with a copy in memory.
func TestWriteThenRead(t *testing.T) {
	const vdiSize = 20 << 20
	for _, shift := range []string{"20", "22", "24"} {
		t.Run("block size shift "+shift, func(t *testing.T) {
			c := fakesheep.Formatted(3, 2, 0)
			mustRun(t, c, "", "vdi", "create", "-z", shift, "test", fmt.Sprint(vdiSize))
			want := make([]byte, vdiSize)
			seed := rand.Uint64()
			random := rand.New(rand.NewPCG(seed, 0))
			content := rand.NewChaCha8([32]byte{byte(seed)})
			for i := range 6 {
				off := random.IntN(vdiSize)
				data := make([]byte, random.IntN(vdiSize-off)+1)
				content.Read(data) // never fails
				copy(want[off:], data)
				mustRun(t, c, string(data), "vdi", "write", "test", fmt.Sprint(off), fmt.Sprint(len(data)))
				if i == 2 {
					mustRun(t, c, "", "vdi", "snapshot", "test")
				}
				off = random.IntN(vdiSize)
				n := random.IntN(vdiSize - off)
				got := mustRun(t, c, "", "vdi", "read", "test", fmt.Sprint(off), fmt.Sprint(n))
				if got != string(want[off:off+n]) {
					t.Fatalf("seed %d: the %d bytes at %d differ after write %d", seed, n, off, i)
				}
			}
			if got := mustRun(t, c, "", "vdi", "read", "test"); sha256.Sum256([]byte(got)) != sha256.Sum256(want) {
				t.Errorf("seed %d: the VDI differs at the end", seed)
			}
		})
	}
}

func TestWriteShortInput(t *testing.T) {
	fill := strings.Repeat("x", 10<<20)
	for _, test := range []struct {
		name  string
		input string
		args  []string
		want  func([]byte) // changes what was in the VDI before
	}{
		{"without a length only what was read is written", "ab", nil, func(b []byte) { copy(b, "ab") }},
		{"without a length no input writes nothing", "", nil, func([]byte) {}},
		{"with a length the rest of it becomes zero", "ab", []string{"0", "512"}, func(b []byte) {
			clear(b[:512])
			copy(b, "ab")
		}},
		{"with a length no input writes zeroes", "", []string{"100", "10"}, func(b []byte) { clear(b[100:110]) }},
		{"zeroes end with the object", "ab", []string{"4194300", "5M"}, func(b []byte) {
			clear(b[4194300:4194304])
			copy(b[4194300:], "ab")
		}},
		{"input beyond the length is left alone", "abcdef", []string{"0", "3"}, func(b []byte) { copy(b, "abc") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := fakesheep.Formatted(3, 2, 0)
			mustRun(t, c, "", "vdi", "create", "test", "10M")
			mustRun(t, c, fill, "vdi", "write", "test")
			want := []byte(fill)
			test.want(want)
			mustRun(t, c, test.input, append([]string{"vdi", "write", "test"}, test.args...)...)
			if got := mustRun(t, c, "", "vdi", "read", "test"); got != string(want) {
				t.Error("the VDI has other content")
			}
		})
	}
}

func TestWriteBeyondTheEndIsTold(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	mustRun(t, c, "", "vdi", "create", "test", "1M")
	wantResult(t, run(t, c, strings.Repeat("x", 1<<20+1), "vdi", "write", "test"),
		result{stderr: "The input goes on beyond the end of the VDI: the rest was not written\n"})
	wantResult(t, run(t, c, "", "vdi", "write", "test", "1M", "1"),
		result{stderr: "The length goes beyond the end of the VDI: 1 bytes are left out\n"})
	wantResult(t, run(t, c, strings.Repeat("x", 1<<20), "vdi", "write", "test"), result{})
}

// TestMapFollowsObjects checks that each object is made once and that objects
// that are made at the same time share map writes at most.
func TestMapFollowsObjects(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	mustRun(t, c, "", "vdi", "create", "-z", "20", "test", "32M")
	c.Requests()
	mustRun(t, c, strings.Repeat("x", 32<<20), "vdi", "write", "test")
	var writes, creates int
	for _, op := range c.Requests() {
		switch op {
		case proto.OpCreateAndWriteObj.String():
			creates++
		case proto.OpWriteObj.String():
			writes++
		}
	}
	if creates != 32 || writes < 1 || writes > 32 {
		t.Errorf("%d objects were created and %d maps written, want 32 and at most as many", creates, writes)
	}
}

func TestWriteFailure(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	mustRun(t, c, "", "vdi", "create", "test", "10M")
	c.Fail(proto.OpCreateAndWriteObj, proto.ResultNoSpace)
	wantResult(t, run(t, c, "x", "vdi", "write", "test"), result{
		stderr: "Failed to write object 007c2b2500000000: Server has no space for new objects\nFailed to write VDI\n", status: 1})
	c.Fail(proto.OpCreateAndWriteObj, proto.ResultSuccess)
	if got := mustRun(t, c, "", "vdi", "object", "map", "test"); got != "Index       VID\n" {
		t.Errorf("the map names an object that was not made: %s", got)
	}
}

func TestReadFailure(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	mustRun(t, c, "", "vdi", "create", "test", "10M")
	mustRun(t, c, "x", "vdi", "write", "test")
	for i := range 3 {
		c.Drop(i, 0x007c2b2500000000)
	}
	wantResult(t, run(t, c, "", "vdi", "read", "test"), result{
		stderr: "Failed to read object 007c2b2500000000 No object found\nFailed to read VDI\n", status: 1})
}

// TestInterruptedWrite ends a write while it waits for input: what came before
// must be in the VDI.
func TestInterruptedWrite(t *testing.T) {
	c := fakesheep.Formatted(3, 2, 0)
	mustRun(t, c, "", "vdi", "create", "test", "20M")
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		w.Write(bytes.Repeat([]byte("x"), 8<<20+1))
		cancel() // the write above returns when the third object is being read
	}()
	var stderr bytes.Buffer
	status := command.Run(ctx, command.Env{
		Program: "dog", Args: []string{"vdi", "write", "test"}, Stdin: r, Stdout: io.Discard, Stderr: &stderr, Dial: c.Dial,
	})
	if status != command.ExitSystem || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("status %d, %s", status, stderr.String())
	}
	if got := mustRun(t, c, "", "vdi", "read", "test", "0", "8M"); strings.Count(got, "x") != 8<<20 {
		t.Errorf("%d bytes have been written, want %d", strings.Count(got, "x"), 8<<20)
	}
}

// TestDelete checks how VDIs are deleted: by one request at daemons that delete
// the objects, with an empty map at C's.
func TestDelete(t *testing.T) {
	for _, test := range []struct {
		name   string
		defers bool
		args   []string
		want   []string // requests that change something
		left   bool     // the VDI still exists
	}{
		{"our daemons delete the objects", true, nil, []string{"DEL_VDI"}, false},
		{"C's want the map to be empty", false, nil, []string{"WRITE_OBJ", "DEL_VDI"}, false},
		{"a smaller batch means more requests", false, []string{"-B", "2"}, []string{"WRITE_OBJ", "WRITE_OBJ", "DEL_VDI"}, false},
		{"a maximum leaves the VDI", true, []string{"-m", "2"}, []string{"WRITE_OBJ"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := fakesheep.Formatted(3, 2, 0)
			c.Defers = test.defers
			mustRun(t, c, "", "vdi", "create", "-P", "test", "12M")
			c.Requests()
			mustRun(t, c, "", append([]string{"vdi", "delete", "test"}, test.args...)...)
			changes := slices.DeleteFunc(c.Requests(), func(op string) bool { return op != "WRITE_OBJ" && op != "DEL_VDI" })
			if !slices.Equal(changes, test.want) {
				t.Errorf("requests %v, want %v", changes, test.want)
			}
			if left := mustRun(t, c, "", "vdi", "list", "-r") != ""; left != test.left {
				t.Errorf("the VDI exists: %v, want %v", left, test.left)
			}
		})
	}
}
