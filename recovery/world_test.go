package recovery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sheepdog/gateway/fanout"
	"sheepdog/recovery"
	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/replica"
	"sheepdog/sheep/store"
	"sheepdog/sheep/store/vfs"
	"sheepdog/sheep/store/vfs/vfstest"
)

const objectSize = 8 << 10

var disk = sheep.VDI{ID: 7, Name: "disk", Policy: sheep.Replicated(3), BlockShift: 13}

// A world is a cluster in memory: real stores on disks that can lose their
// power, real replicas, recoveries and fan-outs, a membership that the test
// rules, and a network that takes its time.
type world struct {
	t   *testing.T
	log *slog.Logger

	mu       sync.Mutex
	rng      *rand.Rand
	index    uint64
	epoch    sheep.Epoch
	healed   sheep.Epoch
	disabled bool          // recovery in the background is switched off
	hold     chan struct{} // if not nil, what recovery's reads wait for
	harsh    bool          // nothing that was not synced outlasts a loss of power
	machines []*machine
	members  []cluster.Member // of the epoch, though some may have died
	complete map[sheep.Incarnation]sheep.Epoch
	views    map[sheep.Epoch][]sheep.Node

	delay    time.Duration // of healing
	absences []cluster.Absence
	care     map[netip.AddrPort]time.Duration // nodes that are being maintained, and how long
	drained  []netip.AddrPort
}

// A machine outlives the daemons that run on it.
type machine struct {
	node sheep.Node
	disk *vfstest.Memory
	life *life // nil while it is down; guarded by world.mu

	missed atomic.Pointer[func()] // what happens next time right after a file has not been found
}

// watched is the disk of a machine as its store sees it.
type watched struct {
	vfs.FS
	m *machine
}

func (w watched) Open(name string, flag int) (vfs.File, error) {
	f, err := w.FS.Open(name, flag)
	if errors.Is(err, os.ErrNotExist) {
		if fn := w.m.missed.Swap(nil); fn != nil {
			(*fn)()
		}
	}
	return f, err
}

// A life is one run of the daemon.
type life struct {
	w       *world
	node    sheep.Node
	inc     sheep.Incarnation
	joined  uint64
	ctx     context.Context // ends with the life
	end     context.CancelCauseFunc
	store   *store.Store
	replica *replica.Replica
	rec     *recovery.Recoverer
	fan     *fanout.Fanout
	running sync.WaitGroup
	news    chan *cluster.View // what is to be installed, in order

	mu      sync.Mutex
	view    *cluster.View // guarded by mu
	changed chan struct{} // guarded by mu
}

// newWorld returns a cluster of n storage nodes, each a zone, and a gateway,
// which comes last.
func newWorld(t *testing.T, rng *rand.Rand, n int) *world {
	w := &world{t: t, rng: rng, log: slog.New(slog.DiscardHandler),
		complete: make(map[sheep.Incarnation]sheep.Epoch), views: make(map[sheep.Epoch][]sheep.Node)}
	if os.Getenv("SHEEP_TEST_LOG") != "" {
		w.log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for i := range n + 1 {
		m := &machine{disk: vfstest.NewMemory(1 << 40), node: sheep.Node{
			Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(7000+i)), Zone: sheep.ZoneID(i + 1), VNodes: 64,
		}}
		if i == n {
			m.node.VNodes = 0
		}
		w.machines = append(w.machines, m)
		w.start(m, true)
	}
	w.begin()
	return w
}

// start begins a life on the machine. It is a member from the next epoch on.
func (w *world) start(m *machine, format bool) {
	w.t.Helper()
	st, err := store.Open("", store.Config{SegmentSize: 256 << 10, Segments: 3, Reserve: 1 << 10, FS: watched{m.disk, m}})
	if err != nil {
		w.t.Fatal(err)
	}
	if format {
		if err := st.Format(proto.StoreConfig{Ctime: 1, Copies: 3, BlockShift: disk.BlockShift, Store: "plain"}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	l := &life{w: w, node: m.node, inc: sheep.Incarnation(1000 + w.index), joined: w.index, store: st,
		news: make(chan *cluster.View, 1000), view: &cluster.View{Status: cluster.Wait, Self: -1}, changed: make(chan struct{})}
	l.ctx, l.end = context.WithCancelCause(context.Background())
	l.replica = replica.New(st, l.inc, l)
	l.rec = recovery.New(m.node.Addr, st, l.replica, wires{l}, l, recovery.Config{
		Failed: func(err error) { w.t.Errorf("%v has failed: %v", m.node, err) }, Log: w.log.With("self", m.node.Addr.Port()),
	})
	l.replica.Serve(l.rec, func(err error) { w.t.Errorf("the store of %v has failed: %v", m.node, err) })
	l.fan = fanout.New(l, l.replica, wires{l}, w.log)
	l.running.Go(func() { _ = l.rec.Run(l.ctx) })
	l.running.Go(func() { l.install(format) })
	m.life = l
}

// stop ends the life on a machine, with or without the power. Nobody is told.
func (w *world) stop(m *machine, clean bool) {
	w.t.Helper()
	w.mu.Lock()
	l := m.life
	m.life = nil
	if !clean {
		seed := w.rng.Uint64()
		after := m.disk.Crash(nil)
		if seed%2 == 0 && !w.harsh {
			after = m.disk.Crash(rand.New(rand.NewPCG(seed, 1)))
		}
		m.disk = after
	}
	w.mu.Unlock()
	l.end(sheep.ErrShutdown)
	l.running.Wait()
	if err := l.store.Close(clean); err != nil {
		w.t.Errorf("close the store of %v: %v", m.node, err)
	}
}

// begin begins an epoch of the machines that are up.
func (w *world) begin() { w.beginWith(func() {}) }

// beginWith begins an epoch because of what fn changes.
func (w *world) beginWith(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
	w.index++
	w.epoch++
	clear(w.complete)
	before := w.members
	w.members = nil
	for _, m := range w.machines {
		if l := m.life; l != nil {
			w.members = append(w.members, cluster.Member{Node: m.node, Incarnation: l.inc, Joined: l.joined})
		}
	}
	w.miss(before)
	w.tell()
}

// miss takes note of the members of before that are absent, and of those that
// are back. The caller holds w.mu.
func (w *world) miss(before []cluster.Member) {
	present := func(addr netip.AddrPort) bool {
		return slices.ContainsFunc(w.members, func(m cluster.Member) bool { return m.Node.Addr == addr })
	}
	w.absences = slices.DeleteFunc(w.absences, func(a cluster.Absence) bool { return present(a.Node.Addr) })
	for _, m := range before {
		if m.Node.VNodes > 0 && !present(m.Node.Addr) && !slices.Contains(w.drained, m.Node.Addr) {
			w.absences = append(w.absences, cluster.Absence{Node: m.Node, Since: time.Now()})
		}
	}
}

// change has the log say something else about healing.
func (w *world) change(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	fn()
	w.tell()
}

// tell sends the view to all. The caller holds w.mu.
func (w *world) tell() {
	v := cluster.View{Index: w.index, Status: cluster.OK, Epoch: w.epoch, EpochTime: time.Unix(int64(w.epoch), 0),
		HealedEpoch: w.healed, RecoveryDisabled: w.disabled, Joined: true, Settings: cluster.Settings{Ctime: 1, Copies: 3, BlockShift: disk.BlockShift}}
	v.HealDelay, v.Drained = w.delay, slices.Clone(w.drained)
	for _, a := range w.absences {
		a.Patience = w.delay
		if d, ok := w.care[a.Node.Addr]; ok {
			a.Maintained, a.Patience = true, d
		}
		v.Absences = append(v.Absences, a)
	}
	for _, m := range w.members {
		m.Complete = w.complete[m.Incarnation]
		v.Members = append(v.Members, m)
	}
	v.Nodes = v.With(nil)
	v.Ring = placement.NewRing(v.Nodes)
	w.views[v.Epoch] = v.Nodes
	for _, m := range w.machines {
		if l := m.life; l != nil && slices.ContainsFunc(w.members, func(m cluster.Member) bool { return m.Incarnation == l.inc }) {
			mine := v
			mine.Self = slices.IndexFunc(v.Nodes, func(n sheep.Node) bool { return n.Addr == m.node.Addr })
			l.news <- &mine
		}
	}
}

// install does what a node does with the views of the log.
func (l *life) install(format bool) {
	for {
		var v *cluster.View
		select {
		case v = <-l.news:
		case <-l.ctx.Done():
			return
		}
		l.w.pause(20)
		if err := l.store.LogEpoch(v.Epoch, v.Nodes, v.EpochTime); err != nil {
			l.w.t.Error(err)
		}
		if format {
			first := sheep.Epoch(0)
			if v.Epoch == 1 {
				first = 1
			}
			l.rec.Reset(first)
			format = false
		}
		l.rec.Install(v)
		l.w.pause(3)
		l.replica.Install(v.Epoch)
		l.mu.Lock()
		l.view = v
		close(l.changed)
		l.changed = make(chan struct{})
		l.mu.Unlock()
	}
}

// pause takes up to n milliseconds.
func (w *world) pause(n int) {
	w.mu.Lock()
	d := time.Duration(w.rng.IntN(n * 1000))
	w.mu.Unlock()
	time.Sleep(d * time.Microsecond)
}

func (l *life) View() *cluster.View {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.view
}

func (l *life) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *life) WaitEpoch(ctx context.Context, e sheep.Epoch) error {
	for {
		changed := l.Changed()
		if l.View().Epoch >= e {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.ctx.Done():
			return context.Cause(l.ctx)
		}
	}
}

func (l *life) VDI(id sheep.VDIID) (sheep.VDI, bool) { return disk, id == disk.ID }
func (l *life) VDIs() []sheep.VDI                    { return []sheep.VDI{disk} }

func (l *life) MarkComplete(_ context.Context, e sheep.Epoch) error {
	w := l.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if e != w.epoch {
		return &sheep.StaleEpochError{Sent: e, Current: w.epoch}
	}
	w.index++
	w.complete[l.inc] = e
	if w.allComplete() {
		w.healed, w.absences = e, nil
	}
	w.tell()
	return nil
}

func (w *world) isComplete() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.allComplete()
}

// allComplete reports whether all storage nodes of the epoch are complete for
// it. The caller holds w.mu.
func (w *world) allComplete() bool {
	return !slices.ContainsFunc(w.members, func(m cluster.Member) bool {
		return m.Node.VNodes > 0 && w.complete[m.Incarnation] != w.epoch
	})
}

// wires are the connections of one node to the others.
type wires struct{ from *life }

// to returns the life that is meant, if it lives and is reached. Of what a node
// has sent before it died some arrives and some does not.
func (n wires) to(p client.Peer) (*life, error) {
	n.from.w.pause(3)
	w := n.from.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.from.ctx.Err() != nil && w.rng.IntN(2) == 0 {
		return nil, sheep.ErrNetwork
	}
	for _, m := range w.machines {
		if m.node.Addr == p.Node.Addr && m.life != nil && m.life.inc == p.Incarnation {
			return m.life, nil
		}
	}
	return nil, sheep.ErrNetwork
}

// ask runs fn at the node that is meant. What a node answers that dies
// meanwhile does not arrive.
func ask[T any](n wires, p client.Peer, fn func(l *life) (T, error)) (T, error) {
	var none T
	l, err := n.to(p)
	if err != nil {
		return none, err
	}
	got, err := fn(l)
	if again, lost := n.to(p); lost != nil || again != l {
		return none, sheep.ErrNetwork
	}
	if err != nil {
		err = fmt.Errorf("%v: %w", l.node, err)
	}
	return got, err
}

func (n wires) Read(ctx context.Context, p client.Peer, ref sheep.Ref, b []byte, off uint32) error {
	_, err := ask(n, p, func(l *life) (int, error) { return 0, l.replica.Read(l.ctx, ref, b, off) })
	return err
}

func (n wires) ReadAny(ctx context.Context, p client.Peer, ref sheep.Ref, b []byte, off uint32) error {
	n.from.w.mu.Lock()
	hold := n.from.w.hold
	n.from.w.mu.Unlock()
	if hold != nil {
		<-hold
	}
	_, err := ask(n, p, func(l *life) (int, error) { return 0, l.replica.ReadAny(l.ctx, ref, b, off) })
	return err
}

func (n wires) StartWrite(ctx context.Context, p client.Peer, ref sheep.Ref, w *sheep.Write, done func(error)) {
	mine := *w // it may arrive when the sender has given up
	mine.Data = slices.Clone(w.Data)
	go func() {
		_, err := ask(n, p, func(l *life) (int, error) {
			answer := make(chan error, 1)
			l.replica.StartWrite(l.ctx, ref, &mine, func(err error) { answer <- err })
			return 0, <-answer
		})
		done(err)
	}()
}

func (n wires) Remove(ctx context.Context, p client.Peer, ref sheep.Ref) error {
	_, err := ask(n, p, func(l *life) (int, error) { return 0, l.replica.Remove(l.ctx, ref) })
	return err
}

func (n wires) Flush(ctx context.Context, p client.Peer, e sheep.Epoch, vdi sheep.VDIID) error {
	_, err := ask(n, p, func(l *life) (int, error) { return 0, l.replica.Flush(l.ctx, e, vdi) })
	return err
}

func (n wires) Stat(ctx context.Context, p client.Peer, e sheep.Epoch, ids []sheep.ObjectID) ([]proto.CopyState, error) {
	return ask(n, p, func(l *life) ([]proto.CopyState, error) {
		states, err := l.replica.States(l.ctx, e, ids)
		var all []proto.CopyState
		for _, s := range states {
			c := proto.CopyState{ID: s.ID, WriteEpoch: s.Written, TrustedEpoch: s.Current, MemberEpoch: s.Member}
			for bit, on := range map[proto.CopyBits]bool{
				proto.CopyExists: s.Exists, proto.CopyTrusted: s.Trusted, proto.CopyIntent: s.Hot, proto.CopyBad: s.Bad, proto.CopyBusy: s.Busy,
			} {
				if on {
					c.Bits |= bit
				}
			}
			all = append(all, c)
		}
		return all, err
	})
}

func (n wires) List(ctx context.Context, p client.Peer, e sheep.Epoch, from sheep.ObjectID, limit int) ([]sheep.ObjectID, error) {
	return ask(n, p, func(l *life) ([]sheep.ObjectID, error) { return l.replica.List(l.ctx, e, from, limit) })
}

func (n wires) Intents(ctx context.Context, p client.Peer, e sheep.Epoch) ([]sheep.ObjectID, error) {
	return ask(n, p, func(l *life) ([]sheep.ObjectID, error) { return l.replica.Intents(l.ctx, e) })
}

func (n wires) Digest(ctx context.Context, p client.Peer, e sheep.Epoch, id sheep.ObjectID) ([20]byte, error) {
	return ask(n, p, func(l *life) ([20]byte, error) { return l.replica.Digest(l.ctx, e, id) })
}

func (n wires) EpochNodes(ctx context.Context, p client.Peer, e sheep.Epoch) ([]sheep.Node, time.Time, error) {
	w := n.from.w
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.views[e], time.Unix(int64(e), 0), nil
}
