package command_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"sheepdog/cmd/dog/internal/fakesheep"
	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// hanging returns a cluster with requests that hang on nodes 0 and 2.
func hanging() *fakesheep.Cluster {
	c := fakesheep.Formatted(3, 2, 0)
	peer := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:7001")}
	c.Slow(0, proto.SlowRequest{
		ID: sheep.DataObject(0x7c2b25, 3), Age: 2340 * time.Millisecond, Epoch: 4, Nodes: peer, Name: "disk", Op: "write",
		State: "peer", Client: "nbd unix",
	})
	c.Slow(2,
		proto.SlowRequest{
			ID: sheep.DataObject(0x7c2b25, 3), Age: 70 * time.Second, Epoch: 4, Name: "disk", Op: "read", State: "epoch",
			Client: "native 10.0.0.9:1234", Reason: "connection refused:\nask again",
		},
		proto.SlowRequest{ID: sheep.InodeObject(5), Age: time.Second, Op: "flush", State: "owner", Client: "-", GivenUp: true})
	return c
}

func TestSlowRequestsAreListedTheOldestFirst(t *testing.T) {
	want := `  Id      Age  Op       Object            VDI              Epoch  Waits for                         Client
   2    70.0s  read     007c2b2500000003  disk                 4  epoch                             native 10.0.0.9:1234
                         connection refused:; ask again
   0     2.3s  write    007c2b2500000003  disk                 4  peer 127.0.0.1:7001               nbd unix
   2     1.0s  flush    8000000500000000  -                    -  owner(given-up)                   -
`
	if got := mustRun(t, hanging(), "", "node", "slow"); got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	want = "0 2.340 write 007c2b2500000003 disk peer 127.0.0.1:7001 4 nbd\\ unix \n"
	if got := mustRun(t, hanging(), "", "node", "slow", "-r", "0"); got != want {
		t.Errorf("raw: got %q, want %q", got, want)
	}
	got := mustRun(t, hanging(), "", "node", "slow", "--json", "127.0.0.1:7000")
	for _, part := range []string{`"age_seconds": 2.34`, `"waits_for": [`, `"127.0.0.1:7001"`, `"given_up": false`, `"epoch": 4`, `"name": "disk"`} {
		if !strings.Contains(got, part) {
			t.Errorf("JSON lacks %s:\n%s", part, got)
		}
	}
}

func TestThatNothingIsSlowIsSaid(t *testing.T) {
	c := hanging()
	if got := mustRun(t, c, "", "node", "slow", "1"); got != "No request has been in flight for more than 1s.\n" {
		t.Errorf("got %q", got)
	}
	if got := mustRun(t, c, "", "node", "slow", "1", "--json"); got != "[]\n" {
		t.Errorf("JSON: got %q", got)
	}
}

func TestANodeThatDoesNotAnswerIsNotOneWithoutSlowRequests(t *testing.T) {
	c := hanging()
	c.Kill(2)
	r := run(t, c, "", "node", "slow")
	if r.status != 2 || strings.Count(r.stdout, "\n") != 2 || !strings.Contains(r.stderr, "slow requests of node 2") {
		t.Errorf("got %+v", r)
	}
	wantResult(t, run(t, c, "", "node", "slow", "10.0.0.1:7000"),
		result{stderr: "No node of the cluster is at 10.0.0.1:7000\n", status: 64})
}
