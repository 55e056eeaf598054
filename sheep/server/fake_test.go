package server_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/server"
	"sheepdog/sheep/sheeptest"
)

// A world is a node whose parts are in memory.
type world struct {
	*sheeptest.Memory
	mu     sync.Mutex
	calls  []string // guarded by mu; what the parts were asked
	view   *cluster.View
	vdis   []sheep.VDI
	lock   sheep.Lock
	doubt  cluster.Doubt
	lease  error
	killed bool
	err    error // of the next call
}

var self = sheep.Node{Addr: netip.MustParseAddrPort("127.0.0.1:7000"), VNodes: 128, Zone: 1, Space: 1 << 30}

// other is a gateway.
var other = sheep.Node{Addr: netip.MustParseAddrPort("127.0.0.1:7001")}

func newWorld() *world {
	return &world{
		Memory: sheeptest.NewMemory(),
		view: &cluster.View{
			Status: cluster.OK, Epoch: 3, EpochTime: time.Unix(1000, 0), Nodes: []sheep.Node{self},
			Members:  []cluster.Member{{Node: self, Incarnation: 9}, {Node: other, Incarnation: 42}},
			Settings: cluster.Settings{Ctime: 77, Copies: 2, BlockShift: 22, Flags: cluster.FlagLocks, Store: "plain"},
		},
		vdis: []sheep.VDI{{ID: 5, Name: "a", Policy: sheep.Replicated(2), BlockShift: 22}},
		lock: sheep.Lock{State: sheep.Unlocked},
	}
}

func (w *world) daemon() *server.Daemon {
	return server.NewDaemon(server.Parts{
		Guard: w, Operations: w, Cluster: fakeCluster{w}, Store: w, Replica: peerReplica{w}, Copies: w, Recovery: fakeRecovery{w}, Losses: fakeLosses{w},
		Owner: func(from sheep.Incarnation) server.Owner { return fakeOwner{w, from} },
		Hello: proto.Hello{Version: proto.PeerVersion, Incarnation: 9, Node: self},
		Dir:   "/var/lib/sheepdog",
		Kill:  func() { w.killed = true },
		Level: &level{n: 6},
		Log:   slog.New(slog.DiscardHandler),
	})
}

// note records a call and returns the error that it shall end in.
func (w *world) note(format string, args ...any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, fmt.Sprintf(format, args...))
	err := w.err
	w.err = nil
	return err
}

// fail makes the next call fail.
func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func (w *world) setLease(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lease = err
}

func (w *world) setView(v *cluster.View) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.view = v
}

// took returns the calls since the last took.
func (w *world) took() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.calls = nil
	return calls
}

func (w *world) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	if err := w.note("read %v %d+%d", ref.ID, off, len(p)); err != nil {
		return err
	}
	return w.Memory.Read(ctx, ref, p, off)
}

func describe(w *sheep.Write) string {
	s := fmt.Sprintf("%d+%d", w.Off, len(w.Data))
	if w.Zero > 0 {
		s = fmt.Sprintf("%d+%d zeroes", w.Off, w.Zero)
	}
	if w.Create {
		s += " create"
	}
	if w.From != nil {
		s += " from " + w.From.ID.String()
	}
	if w.Durable {
		s += " durable"
	}
	return s
}

func (w *world) Write(ctx context.Context, ref sheep.Ref, wr *sheep.Write) error {
	if err := w.note("write %v %s", ref.ID, describe(wr)); err != nil {
		return err
	}
	ref.Size = 4 << 20
	copied := *wr
	copied.From = nil
	return w.Memory.Write(ctx, ref, &copied)
}

func (w *world) Remove(ctx context.Context, ref sheep.Ref) error {
	if err := w.note("remove %v", ref.ID); err != nil {
		return err
	}
	return w.Memory.Remove(ctx, ref)
}

func (w *world) Discard(_ context.Context, id sheep.ObjectID) error { return w.note("discard %v", id) }

func (w *world) Decref(_ context.Context, id sheep.ObjectID, g, n uint32) error {
	return w.note("decref %v %d %d", id, g, n)
}

func (w *world) WriteOwned(_ context.Context, ref sheep.Ref, wr *sheep.Write) error {
	return w.note("inode write %v %s", ref.ID, describe(wr))
}

func (w *world) DecrefOwned(_ context.Context, ref sheep.Ref, g, n uint32) error {
	return w.note("owned decref %v %d %d", ref.ID, g, n)
}

func (w *world) Create(_ context.Context, name string, b proto.VDIBody) (sheep.VDI, error) {
	return w.vdis[0], w.note("new %q %d", name, b.Size)
}

func (w *world) Lookup(_ context.Context, name, tag string, id uint32) (sheep.VDI, error) {
	err := w.note("lookup %q %q %d", name, tag, id)
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.vdis[0], err
}

func (w *world) Delete(_ context.Context, name, tag string, id uint32) (sheep.VDI, error) {
	return w.vdis[0], w.note("delete %q %q %d", name, tag, id)
}

func (w *world) Attr(_ context.Context, data []byte, f proto.Flags) (proto.VDIReply, error) {
	return proto.VDIReply{VDI: 5, Attr: 6, Copies: 2}, w.note("attr %d %#x", len(data), f)
}

func (w *world) Has(id sheep.ObjectID) bool                   { return slices.Contains(w.Memory.IDs(), id) }
func (w *world) IDs(sheep.ObjectID) ([]sheep.ObjectID, error) { return w.Memory.IDs(), nil }
func (w *world) Space() (total, free uint64)                  { return 1000, 400 }
func (w *world) Room() (proto.SpaceReport, error) {
	return proto.SpaceReport{Size: 2000, Free: 400, NearFull: 500, Reserve: 100}, nil
}
func (w *world) Epoch(e sheep.Epoch) ([]sheep.Node, time.Time, error) {
	if e != 2 {
		return nil, time.Time{}, sheep.ErrNoTag
	}
	return []sheep.Node{self, {Addr: netip.MustParseAddrPort("127.0.0.1:7001"), VNodes: 1}}, time.Unix(500, 0), nil
}

func (w *world) ReadAny(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	return w.note("read any %v %d+%d", ref.ID, off, len(p))
}

func (w *world) StartWrite(ctx context.Context, ref sheep.Ref, wr *sheep.Write, done func(error)) {
	if err := w.note("peer write %v gen %d epoch %d %s", ref.ID, ref.Generation, ref.Epoch, describe(wr)); err != nil {
		done(err)
		return
	}
	go func() {
		ref.Size = 4 << 20
		done(w.Memory.Write(ctx, ref, wr))
	}()
}

func (w *world) States(_ context.Context, e sheep.Epoch, ids []sheep.ObjectID) ([]proto.CopyState, error) {
	states := make([]proto.CopyState, len(ids))
	for i, id := range ids {
		states[i] = proto.CopyState{ID: id, WriteEpoch: e, Bits: proto.CopyExists}
	}
	return states, w.note("states %d", len(ids))
}

func (w *world) List(_ context.Context, _ sheep.Epoch, from sheep.ObjectID, n int) ([]sheep.ObjectID, error) {
	return []sheep.ObjectID{from, from + 1}[:min(n, 2)], w.note("list %v %d", from, n)
}

func (w *world) Intents(context.Context, sheep.Epoch) ([]sheep.ObjectID, error) {
	return []sheep.ObjectID{1, 2, 3}, w.note("intents")
}

func (w *world) Digest(_ context.Context, e sheep.Epoch, id sheep.ObjectID) ([20]byte, error) {
	return [20]byte{1, 2, 3}, w.note("digest %v epoch %d", id, e)
}

// fakeOwner is the gateway of the world as the owner of VDIs.
type fakeOwner struct {
	*world
	from sheep.Incarnation
}

func (o fakeOwner) Flush(_ context.Context, vdi sheep.VDIID) error {
	return o.note("owner flush %v for %v", vdi, o.from)
}

func (w *world) Flush(ctx context.Context, vdi sheep.VDIID) error { return w.note("flush %v", vdi) }

// peerReplica is the world as a replica, whose Flush has an epoch.
type peerReplica struct{ *world }

func (p peerReplica) Flush(_ context.Context, e sheep.Epoch, vdi sheep.VDIID) error {
	return p.note("peer flush %v epoch %d", vdi, e)
}

type fakeRecovery struct{ w *world }

func (r fakeRecovery) State() proto.RecoveryState {
	return proto.RecoveryState{Active: true, Phase: proto.RecoveryRunning, Finished: 3, Total: 9}
}
func (r fakeRecovery) Throttle() proto.Throttle     { return proto.Throttle{Max: 4, Interval: 5, On: true} }
func (r fakeRecovery) SetThrottle(t proto.Throttle) { _ = r.w.note("throttle %+v", t) }
func (r fakeRecovery) SetRate(limit uint64)         { _ = r.w.note("rate %d", limit) }
func (r fakeRecovery) Healing() proto.Healing {
	return proto.Healing{Bits: proto.HealingActive, Later: 5, Delay: time.Minute}
}
func (r fakeRecovery) Waiting() proto.WaitingList {
	return proto.WaitingList{Total: 2, Objects: []proto.WaitingObject{{ID: 5 << 32, Since: 7, Reason: "a node is absent"}}}
}
func (r fakeRecovery) Repair(_ context.Context, id sheep.ObjectID, from netip.AddrPort) error {
	return r.w.note("repair %v from %v", id, from)
}

// fakeLosses knows one damaged object.
type fakeLosses struct{ w *world }

func (f fakeLosses) Damage() proto.DamageReport {
	return proto.DamageReport{Total: 1, Plans: 2, Objects: []proto.Damaged{{ID: 5 << 32, Class: proto.Unreadable}}}
}

func (f fakeLosses) Accept(_ context.Context, id, from sheep.ObjectID) error {
	return f.w.note("accept the loss of %v for %v", id, from)
}

// A level is that of a log.
type level struct{ n int }

func (l *level) Get() int { return l.n }

func (l *level) Set(n int) error {
	if n < 0 || n > 7 {
		return sheep.ErrInvalid
	}
	l.n = n
	return nil
}

// fakeCluster is the world as a cluster.
type fakeCluster struct{ w *world }

func (c fakeCluster) View() *cluster.View {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.w.view
}

func (c fakeCluster) Peers(context.Context) ([]cluster.Peer, error) {
	return []cluster.Peer{
		{ID: "x", Addr: "127.0.0.1:7900", Member: c.View().Members[0].Incarnation, Voter: true, Leader: true},
		{ID: "y", Addr: "127.0.0.1:7901", Suspect: true, Silent: 9},
	}, nil
}

func (c fakeCluster) VDI(id sheep.VDIID) (sheep.VDI, bool) {
	i := slices.IndexFunc(c.w.vdis, func(v sheep.VDI) bool { return v.ID == id })
	if i < 0 {
		return sheep.VDI{}, false
	}
	return c.w.vdis[i], true
}

func (c fakeCluster) VDIs() []sheep.VDI             { return c.w.vdis }
func (c fakeCluster) LockOf(sheep.VDIID) sheep.Lock { return c.w.lock }

func (c fakeCluster) DoubtAbout(sheep.VDIID) cluster.Doubt { return c.w.doubt }

func (c fakeCluster) RaiseDoubt(_ context.Context, v sheep.VDIID) error {
	return c.w.note("doubt about %v", v)
}

func (c fakeCluster) SettleDoubt(_ context.Context, v sheep.VDIID, d cluster.Doubt) error {
	return c.w.note("no doubt about %v since %d", v, d.Since)
}
func (c fakeCluster) UsedBitmap() []byte    { return bytes.Repeat([]byte{1}, sheep.MaxVDIs/8) }
func (c fakeCluster) DeletedBitmap() []byte { return bytes.Repeat([]byte{2}, sheep.MaxVDIs/8) }

func (c fakeCluster) Lease() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return c.w.lease
}
func (c fakeCluster) Shutdown(context.Context) error     { return c.w.note("shutdown") }
func (c fakeCluster) ForceRecover(context.Context) error { return c.w.note("force recover") }

func (c fakeCluster) RecoverQuorum(context.Context) (func(), error) {
	return nil, sheep.ErrNotSupported
}

func (c fakeCluster) Format(_ context.Context, s cluster.Settings) error {
	return c.w.note("format copies %d policy %#x shift %d flags %#x %s", s.Copies, s.CopyPolicy, s.BlockShift, s.Flags, s.Store)
}

func (c fakeCluster) SetRecovery(_ context.Context, on bool) error {
	return c.w.note("recovery %v", on)
}
func (c fakeCluster) SetHealDelay(_ context.Context, d time.Duration) error {
	return c.w.note("delay %v", d)
}
func (c fakeCluster) Maintain(_ context.Context, addr netip.AddrPort, d time.Duration) error {
	return c.w.note("maintain %v for %v", addr, d)
}
func (c fakeCluster) Drain(_ context.Context, addr netip.AddrPort, undo bool) error {
	return c.w.note("drain %v, undo %t", addr, undo)
}
func (c fakeCluster) SetVNodes(_ context.Context, n uint16) error { return c.w.note("vnodes %d", n) }

func (c fakeCluster) AddVDI(_ context.Context, old sheep.VDIID, v sheep.VDI, set bool) error {
	return c.w.note("add vdi %v over %v: %v copies, shift %d, %v", v.ID, old, v.Policy, v.BlockShift, set)
}

func (c fakeCluster) Lock(_ context.Context, v sheep.VDIID, r cluster.LockRequest) error {
	if r.Session != 0 {
		return c.w.note("lock %v %v session %d of %s", v, r.Shared, r.Session, r.Client.Kind)
	}
	return c.w.note("lock %v %v", v, r.Shared)
}

func (c fakeCluster) NewSession() uint64 { return 1 }

func (c fakeCluster) EndSession(_ context.Context, session uint64) error {
	return c.w.note("end session %d", session)
}

func (c fakeCluster) SetDeadline(_ context.Context, d time.Duration) error {
	return c.w.note("deadline %v", d)
}

func (c fakeCluster) SetVDIDeadline(_ context.Context, v sheep.VDIID, d time.Duration) error {
	return c.w.note("deadline of %v %v", v, d)
}

func (c fakeCluster) Owner(sheep.VDIID) (cluster.Ownership, bool) {
	return cluster.Ownership{Owner: 42, Node: other, Generation: 12, Draining: true}, true
}

func (c fakeCluster) Unlock(_ context.Context, v sheep.VDIID, shared bool, n sheep.Node) error {
	return c.w.note("unlock %v %v", v, shared)
}

func (c fakeCluster) Coherence(_ context.Context, v sheep.VDIID, validate bool) error {
	return c.w.note("coherence %v %v", v, validate)
}

// startDaemon serves the world and returns an address.
func (w *world) start(t testing.TB) string {
	t.Helper()
	return startServer(t, w.daemon(), server.Config{})
}
