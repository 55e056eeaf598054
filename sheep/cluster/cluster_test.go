package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/cluster/clustertest"
)

// A node is one member of a cluster in memory, with hooks that write down what
// they were told, and drain at once if asked to.
type node struct {
	*cluster.Cluster
	t      *testing.T
	cancel context.CancelFunc
	done   chan struct{} // closed when Run has returned
	err    error         // what it returned

	drains bool // Ownership answers with Drained
	owners bool // Ownership is written down

	execute func(context.Context, *cluster.Turn) ([]byte, []cluster.VDIChange, error)

	mu    sync.Mutex
	calls []string // guarded by mu
}

func (n *node) note(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, fmt.Sprintf(format, args...))
}

func (n *node) noted() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.calls)
}

// hooks are those of a node.
type hooks struct{ *node }

func (n hooks) Install(v *cluster.View, epochChanged bool) error {
	if epochChanged {
		n.note("install epoch %d of %d nodes", v.Epoch, len(v.Nodes))
	}
	return nil
}

func (n hooks) Format(s cluster.Settings) error {
	n.note("format %s copies %d", s.Store, s.Copies)
	return nil
}

func (n hooks) Ownership(vid sheep.VDIID, old, now cluster.Ownership) {
	if n.owners {
		n.note("VDI %v was owned by %d and is by %d", vid, old.Owner, now.Owner)
	}
	me := n.Incarnation()
	if old.Owner == me && !old.Draining && n.drains && now.Generation != old.Generation && now.Owner != 0 {
		go n.Drained(n.t.Context(), vid, old.Generation)
	}
}

func (n hooks) Stop(reason error) { n.note("stop: %v", reason) }

func (n hooks) Execute(ctx context.Context, t *cluster.Turn) ([]byte, []cluster.VDIChange, error) {
	return n.execute(ctx, t)
}

// config returns that of node i, which takes its hooks.
func config(l *clustertest.Log, i int) cluster.Config {
	return cluster.Config{
		Node: sheep.Node{
			Addr:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 7000),
			VNodes: 128, Zone: sheep.ZoneID(i), Space: 1 << 40,
		},
		Incarnation: sheep.Incarnation(i),
		Driver:      l.Driver(),
	}
}

func run(t *testing.T, cfg cluster.Config) *node {
	t.Helper()
	n := &node{t: t, drains: true, done: make(chan struct{})}
	cfg.Hooks, cfg.Executor = hooks{n}, hooks{n}
	n.Cluster = cluster.New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() {
		n.err = n.Run(ctx)
		close(n.done)
	}()
	t.Cleanup(func() {
		cancel()
		<-n.done
	})
	return n
}

// join runs a node and waits until it is a member.
func join(t *testing.T, l *clustertest.Log, i int) *node {
	t.Helper()
	n := run(t, config(l, i))
	must(t, n.Wait(t.Context(), func(v *cluster.View) bool { return v.Joined }))
	return n
}

// form returns a running cluster of so many nodes.
func form(t *testing.T, l *clustertest.Log, count int) []*node {
	t.Helper()
	var nodes []*node
	for i := range count {
		nodes = append(nodes, join(t, l, i+1))
	}
	must(t, nodes[0].Format(t.Context(), settings()))
	for _, n := range nodes {
		must(t, n.WaitEpoch(t.Context(), 1))
	}
	return nodes
}

func settings() cluster.Settings {
	return cluster.Settings{Ctime: 1 << 32, Copies: 2, BlockShift: 22, Flags: cluster.FlagAutoVNode | cluster.FlagLocks, Store: "plain"}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFormatReachesEveryNode(t *testing.T) {
	var l clustertest.Log
	nodes := form(t, &l, 3)
	for _, n := range nodes {
		want := []string{"format plain copies 2", "install epoch 1 of 3 nodes"}
		if got := n.noted(); !slices.Equal(got, want) {
			t.Errorf("hooks were told %q, want %q", got, want)
		}
		v := n.View()
		if v.Status != cluster.OK || v.Self < 0 || v.Nodes[v.Self].Addr != n.Node().Addr || v.Ring == nil {
			t.Errorf("view is %+v", v)
		}
		must(t, n.Lease())
	}
}

func TestUnformattedNodeIsFormattedWhenItJoins(t *testing.T) {
	var l clustertest.Log
	form(t, &l, 2)
	n := join(t, &l, 3)
	want := []string{"format plain copies 2", "install epoch 2 of 3 nodes"}
	if got := n.noted(); !slices.Equal(got, want) {
		t.Errorf("hooks were told %q, want %q", got, want)
	}
}

func TestRestartWithTheSameNodesKeepsTheEpoch(t *testing.T) {
	var l clustertest.Log
	old := form(t, &l, 2)[0].View()
	var again clustertest.Log
	var nodes []*node
	for i := range 2 {
		cfg := config(&again, i+1)
		cfg.History = cluster.History{Epoch: 1, Nodes: old.Nodes, Time: old.EpochTime, Settings: old.Settings}
		for id := range 1000 { // more than one message takes
			name := fmt.Sprintf("%0200d", id)
			cfg.History.VDIs = append(cfg.History.VDIs, cluster.KnownVDI{
				VDI:   sheep.VDI{ID: sheep.VDIID(2*id + i + 1), Name: name, Policy: sheep.Replicated(2), BlockShift: 22},
				Epoch: 1,
			})
		}
		nodes = append(nodes, run(t, cfg))
	}
	for _, n := range nodes {
		must(t, n.Wait(t.Context(), func(v *cluster.View) bool { return v.Status == cluster.OK }))
		if got := n.noted(); len(got) != 0 {
			t.Errorf("hooks were told %q, want nothing", got)
		}
		if got := len(n.VDIs()); got != 2000 {
			t.Errorf("%d VDIs are known, want 2000", got)
		}
		if got := n.VDIsNamed(fmt.Sprintf("%0200d", 7)); len(got) != 2 || got[0].ID != 15 || got[1].ID != 16 {
			t.Errorf("the VDIs of a name are %v", got)
		}
		if b := n.UsedBitmap(); len(b) != 2<<20 || b[0] != 0xfe {
			t.Errorf("the bitmap has %d bytes and begins with %#x", len(b), b[0])
		}
	}
}

func TestWaitingNodeTakesANewerEpochOver(t *testing.T) {
	var l clustertest.Log
	nodes := func(addrs ...int) []sheep.Node {
		var list []sheep.Node
		for _, i := range addrs {
			list = append(list, config(&l, i).Node)
		}
		return list
	}
	stale := config(&l, 1)
	stale.History = cluster.History{Epoch: 3, Nodes: nodes(1, 2, 3), Settings: settings()}
	a := run(t, stale)
	must(t, a.Wait(t.Context(), func(v *cluster.View) bool { return v.Joined }))
	newer := config(&l, 2)
	newer.History = cluster.History{Epoch: 5, Nodes: nodes(2, 3), Settings: settings()}
	run(t, newer)
	must(t, a.WaitEpoch(t.Context(), 5))
	if got, want := a.noted(), []string{"install epoch 5 of 2 nodes"}; !slices.Equal(got, want) {
		t.Errorf("hooks were told %q, want %q", got, want)
	}
	if v := a.View(); v.Status != cluster.Wait || !errors.Is(v.Serving(), sheep.ErrWaitForJoin) {
		t.Errorf("status is %v, %v", v.Status, v.Serving())
	}
	must(t, a.ForceRecover(t.Context()))
	if v := a.View(); v.Status != cluster.OK || v.Epoch != 6 || v.ForcedEpoch != 6 {
		t.Errorf("after force recovery the view is %+v", v)
	}
}

func TestRefusedNodeLearnsWhy(t *testing.T) {
	var l clustertest.Log
	a := form(t, &l, 2)[0]
	cfg := config(&l, 1)
	cfg.Incarnation = 99
	n := run(t, cfg)
	<-n.done
	if n.err == nil || !errors.Is(n.err, sheep.ErrInvalid) {
		t.Errorf("Run returned %v", n.err)
	}
	if got := n.noted(); len(got) != 1 || got[0] != "stop: "+n.err.Error() {
		t.Errorf("hooks were told %q", got)
	}
	if v := a.View(); v.Epoch != 1 {
		t.Errorf("the refused node cost an epoch: %d", v.Epoch)
	}
	if err := n.Format(t.Context(), settings()); !errors.Is(err, n.err) {
		t.Errorf("a call afterwards returned %v", err)
	}
}

func TestExpelledNodeStops(t *testing.T) {
	var l clustertest.Log
	nodes := form(t, &l, 2)
	l.Expel(1, "hung disk")
	<-nodes[0].done
	if err := nodes[0].Lease(); err == nil {
		t.Error("the expelled node has a lease")
	}
	if got := nodes[0].noted(); got[len(got)-1] != "stop: cluster driver error: expelled: hung disk" {
		t.Errorf("hooks were told %q", got)
	}
	if v := nodes[0].View(); v.Status != cluster.Killed || v.Epoch != 1 {
		t.Errorf("the expelled node shows status %v, epoch %d", v.Status, v.Epoch)
	}
	must(t, nodes[1].WaitEpoch(t.Context(), 2))
}

func TestLeavingNodeDoesNotInstallTheEpochWithoutIt(t *testing.T) {
	var l clustertest.Log
	nodes := form(t, &l, 2)
	nodes[0].cancel()
	<-nodes[0].done
	if nodes[0].err != nil {
		t.Errorf("Run returned %v", nodes[0].err)
	}
	if got := nodes[0].noted(); got[len(got)-1] != "install epoch 1 of 2 nodes" {
		t.Errorf("hooks were told %q", got)
	}
	must(t, nodes[1].WaitEpoch(t.Context(), 2))
}

func TestShutdownStopsEveryNode(t *testing.T) {
	var l clustertest.Log
	nodes := form(t, &l, 2)
	must(t, nodes[0].Shutdown(t.Context()))
	for _, n := range nodes {
		must(t, n.Wait(t.Context(), func(v *cluster.View) bool { return v.Status == cluster.Shutdown }))
	}
	if _, err := nodes[1].Plan(t.Context(), 1, nil); !errors.Is(err, sheep.ErrShutdown) {
		t.Errorf("a plan was answered %v", err)
	}
	n := run(t, config(&l, 3)) // joins when the others have gone
	for _, old := range nodes {
		old.cancel()
		<-old.done
		if got := old.noted(); got[len(got)-1] != "stop: system is shutting down" {
			t.Errorf("hooks were told %q", got)
		}
	}
	must(t, n.Wait(t.Context(), func(v *cluster.View) bool { return v.Joined && v.Status == cluster.Wait }))
}

func TestOwnershipMovesThroughADrain(t *testing.T) {
	var l clustertest.Log
	nodes := form(t, &l, 3)
	a, b, c := nodes[0], nodes[1], nodes[2]
	a.drains = false
	first, err := a.Own(t.Context(), 7)
	must(t, err)
	if first.Owner != 1 || first.Draining || first.Node.Addr != a.Node().Addr {
		t.Fatalf("the log granted %v", first)
	}
	if got, err := b.Own(t.Context(), 7); err != nil || got != first {
		t.Errorf("b was told %v, %v, not %v", got, err, first)
	}
	must(t, a.HandOver(t.Context(), 7, first.Generation, 2))
	must(t, b.Sync(t.Context()))
	second, ok := b.Owner(7)
	if !ok || second.Owner != 2 || !second.Draining || second.Generation <= first.Generation {
		t.Errorf("after the hand-over b sees %v", second)
	}
	if err := b.Drained(t.Context(), 7, first.Generation); !errors.Is(err, sheep.ErrStaleOwner) {
		t.Errorf("b drained for a: %v", err)
	}
	must(t, a.Drained(t.Context(), 7, first.Generation))
	got, err := c.WaitOwner(t.Context(), 7, func(o cluster.Ownership) bool { return o.Owner == 2 && !o.Draining })
	if err != nil || got.Generation != second.Generation {
		t.Errorf("c sees %v, %v", got, err)
	}
	must(t, b.Disown(t.Context(), 7, second.Generation))
	if o, ok := b.Owner(7); ok {
		t.Errorf("after Disown the owner is %v", o)
	}
}

// What the dead was writing may be on some copies only until the next epoch.
func TestWhatADeadMemberOwnedIsFreeInTheEpochWithoutIt(t *testing.T) {
	var l clustertest.Log
	nodes := form(t, &l, 3)
	a, b := nodes[0], nodes[1]
	_, err := a.Own(t.Context(), 7)
	must(t, err)
	must(t, b.Sync(t.Context()))
	b.owners = true
	before := len(b.noted())
	l.Restart(1)
	must(t, b.Sync(t.Context()))
	if got := b.noted()[before:]; len(got) != 0 {
		t.Errorf("in the epoch that the owner has died in the hooks were told %q", got)
	}
	join(t, &l, 4)
	must(t, b.WaitEpoch(t.Context(), 2))
	must(t, b.Sync(t.Context()))
	want := []string{"install epoch 2 of 3 nodes", "VDI 7 was owned by 1 and is by 0"}
	if got := b.noted()[before:]; !slices.Equal(got, want) {
		t.Errorf("the hooks were told %q, want %q", got, want)
	}
}

func TestCompletionIsSeenByAll(t *testing.T) {
	var l clustertest.Log
	nodes := form(t, &l, 2)
	if err := nodes[0].MarkComplete(t.Context(), 9); err == nil {
		t.Error("an epoch that is not there was completed")
	}
	for _, n := range nodes {
		if n.View().Complete() {
			t.Error("the epoch counts as complete")
		}
	}
	for _, n := range nodes {
		must(t, n.MarkComplete(t.Context(), 1))
	}
	must(t, nodes[0].Wait(t.Context(), (*cluster.View).Complete))
}

func TestCallsEndWithTheirContext(t *testing.T) {
	var l clustertest.Log
	n := form(t, &l, 1)[0]
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("tired")
	cancel(why)
	if err := n.Wait(ctx, func(*cluster.View) bool { return false }); !errors.Is(err, why) {
		t.Errorf("Wait returned %v", err)
	}
	if _, err := n.WaitOwner(ctx, 1, func(o cluster.Ownership) bool { return o.Owner != 0 }); !errors.Is(err, why) {
		t.Errorf("WaitOwner returned %v", err)
	}
	if err := n.WaitEpoch(ctx, 99); !errors.Is(err, why) {
		t.Errorf("WaitEpoch returned %v", err)
	}
}

func TestDeadlinesAreSeenByAll(t *testing.T) {
	var l clustertest.Log
	nodes := form(t, &l, 2)
	for id := sheep.VDIID(5); id < 8; id++ {
		must(t, nodes[0].AddVDI(t.Context(), 0, sheep.VDI{ID: id, Name: "disk", Policy: sheep.Replicated(2), BlockShift: 22}, true))
	}
	must(t, nodes[0].SetDeadline(t.Context(), time.Minute))
	must(t, nodes[1].SetVDIDeadline(t.Context(), 5, time.Second))
	must(t, nodes[1].SetVDIDeadline(t.Context(), 6, 0))
	must(t, nodes[1].SetVDIDeadline(t.Context(), 7, time.Second))
	must(t, nodes[1].SetVDIDeadline(t.Context(), 7, cluster.AsCluster))
	for id, want := range map[sheep.VDIID]time.Duration{5: time.Second, 6: 0, 7: time.Minute, 9: time.Minute} {
		if got := nodes[1].View().DeadlineOf(id); got != want {
			t.Errorf("the deadline of VDI %v is %v, want %v", id, got, want)
		}
	}
	for _, err := range []error{
		nodes[0].SetDeadline(t.Context(), -time.Second), nodes[0].SetDeadline(t.Context(), cluster.AsCluster),
		nodes[0].SetVDIDeadline(t.Context(), 5, -2), nodes[0].SetVDIDeadline(t.Context(), 0, time.Second),
	} {
		if !errors.Is(err, sheep.ErrInvalid) {
			t.Errorf("got %v, want %v", err, sheep.ErrInvalid)
		}
	}
	if err := nodes[0].SetVDIDeadline(t.Context(), 9, time.Second); !errors.Is(err, sheep.ErrNoVDI) {
		t.Errorf("of no VDI: %v", err)
	}
}

func TestSessionsEndTheirLocks(t *testing.T) {
	var l clustertest.Log
	nodes := form(t, &l, 2)
	must(t, nodes[0].AddVDI(t.Context(), 0, sheep.VDI{ID: 5, Name: "disk", Policy: sheep.Replicated(2), BlockShift: 22}, true))
	client := sheep.Client{Kind: "nbd", Addr: "10.0.0.9:1234"}
	session, other := nodes[0].NewSession(), nodes[0].NewSession()
	must(t, nodes[0].Lock(t.Context(), 5, cluster.LockRequest{Client: client, Session: session}))
	must(t, nodes[0].EndSession(t.Context(), other))
	must(t, nodes[1].EndSession(t.Context(), session)) // of another daemon
	if got := nodes[0].LockOf(5); got.State != sheep.Exclusive || got.Holder.Client != client || got.Holder.Since.IsZero() || got.Session != session {
		t.Errorf("the lock is %+v", got)
	}
	must(t, nodes[0].EndSession(t.Context(), session))
	if got := nodes[0].LockOf(5); got.State != sheep.Unlocked {
		t.Errorf("after the end of the session the lock is %+v", got)
	}
}

func TestLocksAreSeenByAll(t *testing.T) {
	var l clustertest.Log
	nodes := form(t, &l, 2)
	vdi := sheep.VDI{ID: 5, Name: "disk", Policy: sheep.Replicated(2), BlockShift: 22}
	must(t, nodes[0].AddVDI(t.Context(), 0, vdi, true))
	must(t, nodes[0].Lock(t.Context(), 5, cluster.LockRequest{Shared: true}))
	must(t, nodes[1].Lock(t.Context(), 5, cluster.LockRequest{Shared: true}))
	must(t, nodes[1].Coherence(t.Context(), 5, true))
	must(t, nodes[0].Coherence(t.Context(), 5, false))
	got := nodes[0].LockOf(5)
	want := []sheep.ShareState{sheep.ShareModified, sheep.ShareInvalidated}
	if got.State != sheep.Shared || len(got.Participants) != 2 ||
		got.Participants[0].State != want[0] || got.Participants[1].State != want[1] {
		t.Errorf("the lock is %+v", got)
	}
	must(t, nodes[0].Unlock(t.Context(), 5, true, nodes[1].Node()))
	if got := nodes[0].LockOf(5).Participants; len(got) != 1 {
		t.Errorf("after unlocking the participants are %v", got)
	}
	if err := nodes[0].Lock(t.Context(), 5, cluster.LockRequest{}); !errors.Is(err, sheep.ErrVDILocked) {
		t.Errorf("an exclusive lock was answered %v", err)
	}
}

func BenchmarkVDI(b *testing.B) {
	var l clustertest.Log
	c := cluster.New(config(&l, 1))
	for b.Loop() {
		c.VDI(7)
	}
}

func BenchmarkOwner(b *testing.B) {
	var l clustertest.Log
	c := cluster.New(config(&l, 1))
	for b.Loop() {
		c.Owner(7)
	}
}
