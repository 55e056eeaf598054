package command_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sheepdog/cmd/dog/internal/fakesheep"
	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// damaged returns a cluster of four nodes with a VDI of three copies, and its
// first data object.
func damaged(t *testing.T) (*fakesheep.Cluster, sheep.ObjectID, []int) {
	t.Helper()
	c := fakesheep.Formatted(4, 3, 0)
	mustRun(t, c, "", "vdi", "create", "test", "10M")
	mustRun(t, c, strings.Repeat("x", 1000), "vdi", "write", "test")
	id := sheep.DataObject(0x7c2b25, 0)
	return c, id, c.Holders(id, 3)
}

// mustRun runs dog and fails the test unless it succeeds in silence.
func mustRun(t *testing.T, c *fakesheep.Cluster, stdin string, args ...string) string {
	t.Helper()
	r := run(t, c, stdin, args...)
	if r.status != 0 || r.stderr != "" {
		t.Fatalf("dog %v: status %d, %s", args, r.status, r.stderr)
	}
	return r.stdout
}

func wantResult(t *testing.T, got, want result) {
	t.Helper()
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestCheckRepairsWhatDiffersFromMost(t *testing.T) {
	for _, plain := range []bool{false, true} {
		c, id, at := damaged(t)
		c.Plain = plain
		c.Copy(at[0], id)[5] ^= 1
		wantResult(t, run(t, c, "", "vdi", "check", "test"),
			result{stdout: "fixed replica " + id.String() + "\nfinish check&repair test\n"})
		if !slices.Equal(c.Copy(at[0], id), c.Copy(at[1], id)) {
			t.Error("the copy that differed still does")
		}
		wantResult(t, run(t, c, "", "vdi", "check", "test"), result{stdout: "finish check&repair test\n"})
	}
}

func TestCheckSaysWhichCopyWon(t *testing.T) {
	c, id, at := damaged(t)
	name := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", fakesheep.FirstPort+at[i]) }
	c.Copy(at[0], id)[5] ^= 1
	wantResult(t, run(t, c, "", "vdi", "check", "-v", "test"), result{stdout: "fixed replica " + id.String() + " at " + name(0) +
		" by the copy of " + name(1) + ": 2 of 3 agree\nfinish check&repair test\n"})
	c.Drop(at[2], id)
	r := run(t, c, "", "vdi", "check", "--json", "test")
	want := `"object":"` + id.String() + `","what":"missing","node":"` + name(2) + `"`
	if flat := strings.NewReplacer(" ", "", "\n", "").Replace(r.stdout); r.status != 0 || !strings.Contains(flat, want) {
		t.Errorf("got %+v, want JSON with %s", r, want)
	}
}

func TestCheckTakesTheNewestWithoutMajority(t *testing.T) {
	c, id, at := damaged(t)
	newest := slices.Clone(c.Copy(at[1], id))
	c.Copy(at[0], id)[5] ^= 1
	c.Copy(at[2], id)[5] ^= 2
	c.Written(at[1], id, 7)
	wantResult(t, run(t, c, "", "vdi", "check", "test"),
		result{stdout: strings.Repeat("fixed replica "+id.String()+"\n", 2) + "finish check&repair test\n"})
	for _, i := range at {
		if !slices.Equal(c.Copy(i, id), newest) {
			t.Errorf("node %d has another copy than the newest", i)
		}
	}
}

func TestCheckLeavesADrawToThePerson(t *testing.T) {
	c, id, at := damaged(t)
	c.Copy(at[0], id)[5] ^= 1
	c.Drop(at[2], id)
	r := run(t, c, "", "vdi", "check", "test")
	want := "no majority of " + id.String() + ": the copies of 127.0.0.1:"
	if r.status != 1 || r.stdout != "finish check&repair test\n" || !strings.HasPrefix(r.stderr, want) || !strings.Contains(r.stderr, "equally new") {
		t.Errorf("got %+v, want status 1 and %q", r, want)
	}
	oldest := slices.Clone(c.Copy(min(at[0], at[1]), id))
	wantResult(t, run(t, c, "", "vdi", "check", "-f", "test"),
		result{stdout: "fixed replica " + id.String() + "\nfixed missing " + id.String() + "\nfinish check&repair test\n"})
	for _, i := range at {
		if !slices.Equal(c.Copy(i, id), oldest) {
			t.Errorf("node %d has another copy than the oldest member had", i)
		}
	}
}

func TestCheckRepairsWhatIsMissing(t *testing.T) {
	c, id, at := damaged(t)
	c.Drop(at[1], id)
	c.Drop(at[2], id)
	inode := sheep.InodeObject(id.VDI())
	c.Drop(c.Holders(inode, 3)[1], inode)
	wantResult(t, run(t, c, "", "vdi", "check", "test"), result{
		stdout: "fixed missing " + inode.String() + "\n" + strings.Repeat("fixed missing "+id.String()+"\n", 2) + "finish check&repair test\n"})
	for _, i := range at {
		if c.Copy(i, id) == nil {
			t.Errorf("node %d still lacks its copy", i)
		}
	}
}

func TestCheckTellsWhatCannotBeRepaired(t *testing.T) {
	c, id, at := damaged(t)
	c.Drop(at[0], id)
	c.Fail(proto.OpRepairReplica, proto.ResultNoSpace)
	r := run(t, c, "", "vdi", "check", "test")
	if want := "failed to repair object " + id.String() + " at 127.0.0.1:"; !strings.HasPrefix(r.stderr, want) || r.status != 1 {
		t.Errorf("got %+v, want status 1 and %q", r, want)
	}

	c.Fail(proto.OpRepairReplica, proto.ResultSuccess)
	c.Drop(at[1], id)
	c.Drop(at[2], id)
	wantResult(t, run(t, c, "", "vdi", "check", "test"),
		result{stderr: "no node has " + id.String() + "\n", stdout: "finish check&repair test\n", status: 1})
	wantResult(t, run(t, c, "", "cluster", "check"),
		result{stderr: "no node has " + id.String() + "\n", stdout: "fix vdi test\nfinish check&repair test\n", status: 1})
}

func TestCheckComparesSharedObjectsOnce(t *testing.T) {
	c, id, at := damaged(t)
	mustRun(t, c, "", "vdi", "snapshot", "-s", "tag", "test")
	c.Requests()
	mustRun(t, c, "", "cluster", "check")
	asked := 0
	for _, op := range c.Requests() {
		if op == proto.OpGetCopy.String() {
			asked++
		}
	}
	if want := len(at) * 3; asked != want { // two inodes and the data object id
		t.Errorf("the copies of %v and of two inodes were asked for %d times, want %d", id, asked, want)
	}
}

func TestCheckOfExistence(t *testing.T) {
	c, id, at := damaged(t)
	c.Drop(at[0], id)
	r := run(t, c, "", "vdi", "check", "-e", "test")
	want := "] oid " + id.String() + " is missing.\ntest lost 1 object(s).\n"
	if !strings.HasPrefix(r.stdout, "[127.0.0.1:70") || !strings.HasSuffix(r.stdout, want) || r.status != 1 {
		t.Errorf("got %+v, want status 1 and %q", r, want)
	}
	if c.Copy(at[0], id) != nil {
		t.Error("the missing copy was repaired")
	}
}

func TestCheckRefusesErasureCodeWithoutZones(t *testing.T) {
	c := fakesheep.Formatted(2, 2, 0)
	r := run(t, c, "", "vdi", "create", "-c", "2:1", "coded", "10M")
	if r.status != 0 || !strings.Contains(r.stderr, "only 2 zones") {
		t.Fatalf("vdi create: %+v, want a warning", r)
	}
	wantResult(t, run(t, c, "", "vdi", "check", "coded"),
		result{stderr: "ABORT: Not enough active zones for consistency-checking erasure coded VDI\n", status: 1})
}
