// Package recovery keeps this node's copies current.
//
// After every change of the membership a node may hold copies that missed
// writes, lack copies that now belong to it, and hold some that no longer do.
// A Recoverer knows which copies can be trusted, verifies the others against
// the copies of all members when a request needs them, works through the rest
// in the background, and says when this node is complete for the epoch.
//
// A copy is trusted if it was verified in this life of the daemon, or existed
// when the node was last complete, and the node has been one of the object's
// holders in every epoch since: then it has taken every write. When a member
// leaves, a write of its may have reached some copies only; the objects that
// the intent logs of the survivors name are therefore compared again before
// they are served.
//
// What the package promises: a copy never becomes trusted by existing, only by
// being equal to the truth; and where an absent node may hold something newer,
// requests wait and nothing older is served.
package recovery

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/replica"
	"sheepdog/sheep/store"
)

// Peers asks other members, in the peer role.
type Peers interface {
	Stat(ctx context.Context, to client.Peer, e sheep.Epoch, ids []sheep.ObjectID) ([]proto.CopyState, error)
	List(ctx context.Context, to client.Peer, e sheep.Epoch, from sheep.ObjectID, limit int) ([]sheep.ObjectID, error)
	Intents(ctx context.Context, to client.Peer, e sheep.Epoch) ([]sheep.ObjectID, error)
	ReadAny(ctx context.Context, to client.Peer, ref sheep.Ref, p []byte, off uint32) error
	Digest(ctx context.Context, to client.Peer, e sheep.Epoch, id sheep.ObjectID) ([20]byte, error)
	EpochNodes(ctx context.Context, to client.Peer, e sheep.Epoch) ([]sheep.Node, time.Time, error)
}

// Cluster is what recovery needs of the membership.
type Cluster interface {
	View() *cluster.View
	Changed() <-chan struct{}
	VDI(id sheep.VDIID) (sheep.VDI, bool)
	VDIs() []sheep.VDI
	MarkComplete(ctx context.Context, e sheep.Epoch) error
}

// A Config tunes a Recoverer. Its zero value works.
type Config struct {
	Workers int         // objects verified at once in the background; 0 means 4
	Failed  func(error) // called when the store cannot take objects; may be nil
	Log     *slog.Logger
}

// A Recoverer judges and mends the copies of one node.
type Recoverer struct {
	self    netip.AddrPort
	store   *store.Store
	replica *replica.Replica
	peers   Peers
	cluster Cluster
	workers int
	failed  func(error)
	log     *slog.Logger

	locks keyedMutex // one per object being verified or replaced

	// settled is the epoch for which every copy is trusted, or 0: what the
	// hot path reads instead of the fields below.
	settled atomic.Uint32

	// rest is what is left of an epoch while healing waits, or nil: the hot path's, too.
	rest atomic.Pointer[rest]

	budget   budget
	progress progress
	waiting  waitList
	todo     todo
	touched  *queue      // objects whose writes were noted
	told     waitNote    // Run's own
	purged   sheep.Epoch // surplus copies of this epoch are gone; Run's own

	mu       sync.Mutex
	view     *cluster.View                   // guarded by mu; nil before the first
	complete sheep.Epoch                     // this node was complete for it in this life; 0 if never
	claimed  sheep.Epoch                     // the store's durable word of the last life
	past     sheep.Epoch                     // the newest epoch of lives before this one
	first    sheep.Epoch                     // that this life has been a member in; 0 before
	verified map[sheep.ObjectID]sheep.Epoch  // verified one by one since complete
	suspects map[sheep.ObjectID]sheep.Epoch  // hot when a member left; the epoch they were current in
	lacking  map[sheep.ObjectID]*lack        // to be fetched, in this epoch
	missed   map[sheep.ObjectID]bool         // noted a write in this life, and were not verified since
	bad      map[sheep.ObjectID]bool         // could not be read or written
	away     map[netip.AddrPort]sighting     // the absent nodes of view
	pending  sheep.Epoch                     // if not 0, a member left and the intents are not yet gathered; the epoch before
	rings    map[sheep.Epoch]*placement.Ring // of the epochs looked at
	members  map[sheep.Epoch][]sheep.Node    // likewise
	changed  chan struct{}                   // closed and replaced when any of the above changes
}

// New returns the judge of st's copies. Run must be running for Verify to
// make progress.
func New(self netip.AddrPort, st *store.Store, rep *replica.Replica, peers Peers, c Cluster, cfg Config) *Recoverer {
	if cfg.Workers == 0 {
		cfg.Workers = 4
	}
	if cfg.Failed == nil {
		cfg.Failed = func(error) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Recoverer{
		self: self, store: st, replica: rep, peers: peers, cluster: c, workers: cfg.Workers, failed: cfg.Failed, log: cfg.Log,
		claimed:  st.Complete(),
		past:     st.LatestEpoch(),
		verified: make(map[sheep.ObjectID]sheep.Epoch),
		suspects: make(map[sheep.ObjectID]sheep.Epoch),
		lacking:  make(map[sheep.ObjectID]*lack),
		missed:   make(map[sheep.ObjectID]bool),
		touched:  newQueue(),
		bad:      make(map[sheep.ObjectID]bool),
		rings:    make(map[sheep.Epoch]*placement.Ring),
		members:  make(map[sheep.Epoch][]sheep.Node),
		changed:  make(chan struct{}),
	}
}

// Install takes note of a new view. It must be called before the replica
// installs the view's epoch, and does not wait.
func (r *Recoverer) Install(v *cluster.View) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.view
	r.view = v
	r.sight(old, v)
	if r.first == 0 && v.Self >= 0 && v.Joined && v.Status == cluster.OK {
		r.first = max(v.Epoch, r.past+1)
	}
	if old != nil && old.Epoch != v.Epoch {
		clear(r.lacking)
		r.settled.Store(0)
		r.rest.Store(nil)
		if r.pending == 0 && anyLeft(old, v) {
			r.pending = old.Epoch
		}
	}
	r.wake()
}

// Reset forgets everything: the store has just been formatted and is complete,
// being empty, for epoch e.
func (r *Recoverer) Reset(e sheep.Epoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.verified)
	clear(r.suspects)
	clear(r.lacking)
	clear(r.missed)
	clear(r.bad)
	clear(r.rings)
	clear(r.members)
	r.complete, r.claimed, r.pending = e, e, 0
	r.past, r.first = 0, 0
	r.settled.Store(0)
	r.rest.Store(nil)
	r.waiting.clear()
	r.wake()
}

// Settled reports whether every copy of this node is current in epoch e.
func (r *Recoverer) Settled(e sheep.Epoch) bool { return e != 0 && r.settled.Load() == uint32(e) }

// Trusted reports whether this node's copy of the object is current.
func (r *Recoverer) Trusted(ref sheep.Ref) bool {
	if r.Settled(ref.Epoch) || r.settledBut(ref) {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trustedLocked(ref.ID)
}

// State says what this node's copy of the object is worth.
//
// First it looks what is known of the copy, then at the copy. If that is fetched or
// written in between, the answer says too little of it. The other way round it could
// say too much: that it is certain that there is none, and others would remove theirs.
func (r *Recoverer) State(id sheep.ObjectID) replica.State {
	s := replica.State{ID: id, Hot: r.store.Hot(id)}
	r.mu.Lock()
	if !r.missed[id] {
		s.Member = r.first
	}
	if r.view != nil {
		s.Trusted, s.Current = r.trustedLocked(id), r.currentLocked(id)
	}
	r.mu.Unlock()
	info, err := r.store.Stat(id)
	s.Exists, s.Written = !errors.Is(err, sheep.ErrNoObject), info.WriteEpoch
	short := err == nil && info.Size < r.ref(id, 0).Size
	r.mu.Lock()
	s.Bad = s.Exists && (err != nil || short || r.bad[id] || r.store.Bad(id))
	r.mu.Unlock()
	if s.Bad {
		s.Trusted, s.Current = false, 0
	} else {
		s.Current = max(s.Current, s.Written)
	}
	return s
}

// Replace runs fn, which replaces or removes the whole object.
func (r *Recoverer) Replace(ref sheep.Ref, fn func() error) error {
	if r.Settled(ref.Epoch) {
		return fn()
	}
	defer r.locks.lock(ref.ID)()
	if err := fn(); err != nil {
		return err
	}
	r.markVerified(ref.ID, ref.Epoch)
	return nil
}

// markVerified records that the copy of id is current in epoch e.
func (r *Recoverer) markVerified(id sheep.ObjectID, e sheep.Epoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.view == nil || r.view.Epoch != e || r.pending != 0 {
		return
	}
	delete(r.lacking, id)
	delete(r.missed, id)
	r.verified[id] = e
	delete(r.suspects, id)
	delete(r.bad, id)
	r.waiting.note(id, nil)
	if r.complete == e && len(r.suspects) == 0 {
		r.settled.Store(uint32(e))
	}
}

// trustedLocked reports whether the copy of id has taken every write since it
// was last known to be current. The caller holds r.mu.
func (r *Recoverer) trustedLocked(id sheep.ObjectID) bool {
	if r.view == nil || r.pending != 0 {
		return false
	}
	since, ok := r.sinceLocked(id)
	return ok && r.heldLocked(id, since) == r.view.Epoch
}

// sinceLocked returns the epoch at which the copy of id was known to be current.
func (r *Recoverer) sinceLocked(id sheep.ObjectID) (sheep.Epoch, bool) {
	if e, ok := r.verified[id]; ok {
		return e, true
	}
	if _, ok := r.suspects[id]; ok || r.complete == 0 {
		return 0, false
	}
	return r.complete, true
}

// currentLocked returns the last epoch for which the copy of id, or its absence,
// was known to be current, or 0.
func (r *Recoverer) currentLocked(id sheep.ObjectID) sheep.Epoch {
	if e, ok := r.suspects[id]; ok {
		return e
	}
	if since, ok := r.sinceLocked(id); ok {
		e := r.heldLocked(id, since)
		if e < since {
			return 0 // it was never this node's
		}
		if r.pending != 0 {
			e = min(e, r.pending)
		}
		return e
	}
	if r.claimed != 0 && r.holderLocked(id, r.claimed) {
		return r.claimed
	}
	return 0 // it was surplus then: nobody has said for which epoch it was current
}

// heldLocked returns the last epoch up to which this node has held id without
// a gap, beginning at since; since-1 if not even then.
func (r *Recoverer) heldLocked(id sheep.ObjectID, since sheep.Epoch) sheep.Epoch {
	for e := since; e <= r.view.Epoch; e++ {
		if !r.holderLocked(id, e) {
			return e - 1
		}
	}
	return r.view.Epoch
}

// holderLocked reports whether this node was to hold id in epoch e.
func (r *Recoverer) holderLocked(id sheep.ObjectID, e sheep.Epoch) bool {
	return r.placedLocked(id, e, r.self)
}

// placedLocked reports whether the node at addr was to hold id in epoch e.
func (r *Recoverer) placedLocked(id sheep.ObjectID, e sheep.Epoch, addr netip.AddrPort) bool {
	ring, nodes := r.ringLocked(e)
	if ring == nil {
		return false
	}
	for _, i := range ring.Place(id, r.policy(id).Width()) {
		if nodes[i].Addr == addr {
			return true
		}
	}
	return false
}

// ringLocked returns the placement of epoch e, or nil if this node has no
// record of it.
func (r *Recoverer) ringLocked(e sheep.Epoch) (*placement.Ring, []sheep.Node) {
	if e == r.view.Epoch {
		return r.view.Ring, r.view.Nodes
	}
	if ring, ok := r.rings[e]; ok {
		return ring, r.members[e]
	}
	nodes, _, err := r.store.Epoch(e)
	if err != nil {
		return nil, nil
	}
	r.rings[e], r.members[e] = placement.NewRing(nodes), nodes
	return r.rings[e], nodes
}

// policy returns how id is made redundant. An attribute belongs to a name, not
// to a VDI, and is as redundant as the cluster's default.
func (r *Recoverer) policy(id sheep.ObjectID) sheep.Policy {
	if v, ok := r.cluster.VDI(id.VDI()); ok && id.Kind() != sheep.KindAttr {
		return v.Policy
	}
	s := r.cluster.View().Settings
	p, err := sheep.PolicyFromWire(s.Copies, s.CopyPolicy)
	if err != nil {
		return sheep.Replicated(1)
	}
	return p
}

// wake tells whoever waits that something changed. The caller holds r.mu.
func (r *Recoverer) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// anyLeft reports whether a member of old is not in v.
func anyLeft(old, v *cluster.View) bool {
	for _, m := range old.Members {
		if _, ok := v.Member(m.Incarnation); !ok {
			return true
		}
	}
	return false
}

// peer returns how to reach the member of view that is node n.
func peer(view *cluster.View, n sheep.Node) client.Peer {
	m, _ := view.MemberAt(n)
	return client.Peer{Node: n, Incarnation: m.Incarnation}
}
