package command_test

import (
	"fmt"
	"strings"
	"testing"

	"sheepdog/cmd/dog/internal/fakesheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// lock locks a VDI through the node on the given port.
func lock(t *testing.T, c *fakesheep.Cluster, name string, port int, kind proto.LockType) {
	t.Helper()
	cluster := remote.New(c.Dial, fmt.Sprintf("127.0.0.1:%d", port), func(e *remote.ConnectError) { t.Error(e) })
	defer cluster.Close()
	_, _, err := cluster.Do(t.Context(), remote.Request{
		Op: proto.OpLockVDI, Body: proto.VDIBody{Type: kind}.Body(), Data: proto.AppendLookup(nil, name, ""),
	})
	if err != nil {
		t.Fatalf("lock %s: %v", name, err)
	}
}

func locking(t *testing.T) *fakesheep.Cluster {
	t.Helper()
	c := fakesheep.Formatted(3, 2, proto.ClusterLock)
	mustRun(t, c, "", "vdi", "create", "bar", "10M")
	mustRun(t, c, "", "vdi", "create", "zero", "10M")
	lock(t, c, "bar", 7000, proto.LockNormal)
	lock(t, c, "zero", 7001, proto.LockShared)
	lock(t, c, "zero", 7000, proto.LockShared)
	return c
}

func TestLockList(t *testing.T) {
	want := `  Name         Id  VDI id  Tag            Owner node(s)
  bar           0  39461a                 IPv4 ip:127.0.0.1 port:7000
  zero          0  60a383                 IPv4 ip:127.0.0.1 port:7001(modified) IPv4 ip:127.0.0.1 port:7000(invalidated)
`
	if got := mustRun(t, locking(t), "", "vdi", "lock", "list"); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

func TestWhoHoldsALockIsListed(t *testing.T) {
	want := `  Name         Id  VDI id  Tag            Node                  Since                Client
  bar           0  39461a                 127.0.0.1:7000        2026-11-21 00:07:11  native 127.0.0.1:40000
  zero          0  60a383                 127.0.0.1:7001        2026-11-21 00:07:11  native 127.0.0.1:40000
  zero          0  60a383                 127.0.0.1:7000        2026-11-21 00:07:11  native 127.0.0.1:40000
`
	c := locking(t)
	if got := mustRun(t, c, "", "vdi", "lock", "list", "-v"); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	got := mustRun(t, c, "", "vdi", "lock", "list", "--json")
	for _, part := range []string{`"node": "127.0.0.1:7000"`, `"client": "native 127.0.0.1:40000"`, `"since": "2026-11-21T00:07:11Z"`, `"ends_with_client": false`} {
		if !strings.Contains(got, part) {
			t.Errorf("JSON lacks %s:\n%s", part, got)
		}
	}
	c.Plain = true // C Sheepdog knows the nodes
	if got := mustRun(t, c, "", "vdi", "lock", "list", "--json"); !strings.Contains(got, `"node": "127.0.0.1:7001"`) || strings.Contains(got, "since") {
		t.Errorf("of C: %s", got)
	}
	if r := run(t, c, "", "vdi", "lock", "list", "-v"); r.status != 1 || !strings.Contains(r.stderr, "Failed to execute request") {
		t.Errorf("of C: %+v", r)
	}
}

func TestVMList(t *testing.T) {
	c := locking(t)
	mustRun(t, c, "", "vdi", "create", "idle", "10M")
	want := `Name            |Vdi size |Allocated| Shared  | Status
----------------+---------+---------+---------+------------
bar             |    10 MB|   0.0 MB|   0.0 MB| running on 127.0.0.1
zero            |    10 MB|   0.0 MB|   0.0 MB| running on 127.0.0.1 127.0.0.1
idle            |    10 MB|   0.0 MB|   0.0 MB| not running
`
	got := mustRun(t, c, "", "vm", "list")
	if sortedLines(got) != sortedLines(want) {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	if got := mustRun(t, c, "", "vm", "list", "-r", "bar"); got != "bar 10485760 0 0 running on 127.0.0.1\n" {
		t.Errorf("raw: got %q", got)
	}
}

func TestUnlock(t *testing.T) {
	c := locking(t)
	mustRun(t, c, "", "vdi", "lock", "unlock", "bar")
	mustRun(t, c, "", "vdi", "lock", "unlock", "zero")
	if got := mustRun(t, c, "", "vdi", "lock", "list", "--json"); got != "[]\n" {
		t.Errorf("still locked: %s", got)
	}
	wantResult(t, run(t, c, "", "vdi", "lock", "unlock", "bar"),
		result{stderr: "VDI bar (vid=39461a) is not locked\n", status: 1})
}

func TestLockedVDIIsNotDeleted(t *testing.T) {
	c := locking(t)
	mustRun(t, c, "", "vdi", "snapshot", "-s", "s1", "zero")
	lock(t, c, "zero", 7002, proto.LockNormal) // the new working VDI
	before := mustRun(t, c, "", "vdi", "list", "-r")
	for _, args := range [][]string{
		{"vdi", "delete", "bar"},
		{"vdi", "delete", "-s", "s1", "zero"},
		{"vdi", "rollback", "-f", "-s", "s1", "zero"},
	} {
		r := run(t, c, "", args...)
		if r.status != 1 || !strings.Contains(r.stderr, "VDI is already locked") {
			t.Errorf("dog %v: %+v, want a refusal", args, r)
		}
	}
	if after := mustRun(t, c, "", "vdi", "list", "-r"); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}
