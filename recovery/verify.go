package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/replica"
)

// chunk is how much of an object is fetched at a time, in bytes.
const chunk = 1 << 20

// retryAfter is how long Verify waits for a member that did not answer, unless
// the membership changes before.
const retryAfter = 100 * time.Millisecond

// Verify returns nil once this node's copy of the object, or its absence, is
// known to be current in the epoch of ref.
func (r *Recoverer) Verify(ctx context.Context, ref sheep.Ref) error {
	return r.makeCurrent(ctx, ref, true)
}

// Check is Verify that does not fetch the object, if others may go on without this
// copy until it is fetched.
func (r *Recoverer) Check(ctx context.Context, ref sheep.Ref) error {
	if r.lacks(ref) {
		return fmt.Errorf("object %v in epoch %d: %w", ref.ID, ref.Epoch, errLacking)
	}
	return r.makeCurrent(ctx, ref, false)
}

// errLacking says that an object is to be fetched.
var errLacking = fmt.Errorf("%w: it is to be fetched", sheep.ErrStaleCopy)

func (r *Recoverer) makeCurrent(ctx context.Context, ref sheep.Ref, fetch bool) error {
	var logged bool
	for {
		if r.Trusted(ref) {
			return nil
		}
		view, changed := r.current()
		if view == nil || int32(view.Epoch-ref.Epoch) < 0 {
			return nil // not there yet: the gate makes the request wait
		}
		if view.Epoch != ref.Epoch {
			return &sheep.StaleEpochError{Sent: ref.Epoch, Current: view.Epoch}
		}
		err := r.holds(ref, view)
		if err == nil {
			_, err = r.verify(ctx, ref.ID, view, fetch)
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, replica.ErrNotHolder), errors.Is(err, errLacking):
			return err
		case errors.Is(err, errNoCopy), errors.Is(err, sheep.ErrNoSpace):
			return err // waiting will not help, or too long; others may have the object
		}
		if !logged {
			r.log.Warn("object is waiting for its copies", "oid", ref.ID, "epoch", view.Epoch, "err", err)
			logged = true
		}
		select {
		case <-changed:
		case <-time.After(retryAfter):
		case <-ctx.Done():
			return fmt.Errorf("verify object %v in epoch %d: %w: %v", ref.ID, view.Epoch, context.Cause(ctx), err)
		}
	}
}

// holds returns nil if this node is to hold the object in the epoch of view. The
// sender may have heard of the object's policy before this node.
func (r *Recoverer) holds(ref sheep.Ref, view *cluster.View) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.view.Epoch != view.Epoch || r.holderLocked(ref.ID, view.Epoch):
		return nil
	case slices.ContainsFunc(view.Ring.Place(ref.ID, ref.Policy.Width()), func(i int) bool { return view.Nodes[i].Addr == r.self }):
		return fmt.Errorf("the policy of object %v is not known here yet: %w", ref.ID, sheep.ErrAgain)
	}
	return fmt.Errorf("object %v in epoch %d: %w", ref.ID, view.Epoch, replica.ErrNotHolder)
}

func (r *Recoverer) current() (*cluster.View, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view, r.changed
}

// verify makes the copy of id current, or says why it can't be done now: with
// errLacking, if it is to be fetched and the caller does not want that. It returns
// how many bytes it has fetched.
func (r *Recoverer) verify(ctx context.Context, id sheep.ObjectID, view *cluster.View, fetch bool) (fetched uint64, err error) {
	defer func() { r.waiting.note(id, err) }()
	if err := r.gathered(ctx, view); err != nil {
		return 0, err
	}
	defer r.locks.lock(id)()
	if r.Trusted(sheep.Ref{ID: id, Epoch: view.Epoch}) {
		return 0, nil
	}
	members := r.inOrder(id, view)
	copies := make([]candidate, len(members))
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, n := range members {
		wg.Go(func() {
			m, _ := view.MemberAt(n)
			copies[i].joined = m.Joined
			copies[i].State, errs[i] = r.stateOf(ctx, n, view, id)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	return r.settle(ctx, id, view, members, copies, fetch)
}

// settle brings the copy of id in line with the truth found among copies. The
// repair of an object whose copies may have differed is a write of the epoch:
// an absent node that lost writes must not be believed when it comes back
// because this one has started again, too.
func (r *Recoverer) settle(ctx context.Context, id sheep.ObjectID, view *cluster.View, members []sheep.Node, copies []candidate, fetch bool) (fetched uint64, err error) {
	self := slices.IndexFunc(members, func(n sheep.Node) bool { return n.Addr == r.self })
	v, err := judge(copies, self, view.Epoch, func(e sheep.Epoch) string {
		if r.unchanged(ctx, id, view, e, members, copies) {
			return ""
		}
		return r.absent(ctx, view, e)
	})
	if err != nil {
		return 0, err
	}
	if v.compare {
		if v.same, err = r.equal(ctx, peer(view, members[v.source]), view.Epoch, id); err != nil {
			return 0, err
		}
	}
	written := view.Epoch
	if v.source >= 0 && !v.stamp {
		written = copies[v.source].Written
	}
	if !v.same && v.source >= 0 {
		if r.startNoting(id, view.Epoch) && !fetch {
			return 0, fmt.Errorf("object %v in epoch %d: %w", id, view.Epoch, errLacking)
		}
		err = r.fetch(ctx, source{members[v.source], copies[v.source].Trusted}, view, id, written)
		fetched = uint64(r.ref(id, view.Epoch).Size)
	} else {
		err = r.keep(ctx, id, view, v, written)
	}
	if err != nil {
		r.giveUp(id)
		return fetched, err
	}
	r.markVerified(id, view.Epoch)
	return fetched, nil
}

// keep makes the copy of id, or its absence, current, which is as good as the
// truth.
func (r *Recoverer) keep(ctx context.Context, id sheep.ObjectID, view *cluster.View, v verdict, written sheep.Epoch) error {
	switch {
	case len(r.takeChanges(id, false)) > 0:
		return fmt.Errorf("object %v has been written meanwhile: %w", id, sheep.ErrAgain)
	case !v.same:
		return r.drop(ctx, id, view.Epoch)
	case v.stamp:
		return r.store.Stamp(ctx, id, written)
	}
	return nil
}

// inOrder returns the members of view: the holders of id as placement orders
// them, then the other nodes.
func (r *Recoverer) inOrder(id sheep.ObjectID, view *cluster.View) []sheep.Node {
	nodes := make([]sheep.Node, 0, len(view.Nodes))
	holders := view.Ring.Place(id, r.policy(id).Width())
	for _, i := range holders {
		nodes = append(nodes, view.Nodes[i])
	}
	for i, n := range view.Nodes {
		if !slices.Contains(holders, i) && (view.Stores(n) || n.Addr == r.self) {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

func (r *Recoverer) stateOf(ctx context.Context, n sheep.Node, view *cluster.View, id sheep.ObjectID) (replica.State, error) {
	if n.Addr == r.self {
		return r.State(id), nil
	}
	states, err := r.peers.Stat(ctx, peer(view, n), view.Epoch, []sheep.ObjectID{id})
	if err != nil {
		return replica.State{}, fmt.Errorf("state of object %v on %v: %w", id, n, err)
	}
	s := states[0]
	if s.Bits&proto.CopyBusy != 0 {
		r.replica.NoteBusy()
	}
	return replica.State{
		ID: s.ID, Written: s.WriteEpoch, Current: s.TrustedEpoch, Member: s.MemberEpoch,
		Exists:  s.Bits&proto.CopyExists != 0,
		Trusted: s.Bits&proto.CopyTrusted != 0,
		Hot:     s.Bits&proto.CopyIntent != 0,
		Bad:     s.Bits&proto.CopyBad != 0,
	}, nil
}

// unchanged reports whether it is certain that no change of id was answered in
// epoch e: a node that was to hold it has been a member since then, and has a copy
// that was not written in e. Every change is answered by all holders, which take
// note of its epoch.
func (r *Recoverer) unchanged(ctx context.Context, id sheep.ObjectID, view *cluster.View, e sheep.Epoch, members []sheep.Node, copies []candidate) bool {
	if r.nodesOf(ctx, view, e) == nil { // which records them
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.view.Epoch != view.Epoch {
		return false
	}
	ring, nodes := r.ringLocked(e)
	if ring == nil {
		return false
	}
	holders := ring.Place(id, r.policy(id).Width())
	for i, c := range copies {
		lived := c.Exists && !c.Bad && c.Written < e && c.Member != 0 && c.Member <= e
		if lived && slices.ContainsFunc(holders, func(at int) bool { return nodes[at].Addr == members[i].Addr }) {
			return true
		}
	}
	return false
}

// absent names the members of epoch e that are no members of view, or says that
// nobody knows who they are; "" if there are none.
func (r *Recoverer) absent(ctx context.Context, view *cluster.View, e sheep.Epoch) string {
	if e < view.ForcedEpoch || e == view.Epoch {
		return ""
	}
	nodes := r.nodesOf(ctx, view, e)
	if nodes == nil {
		return "a node that nobody here knows"
	}
	var names []string
	for _, n := range nodes {
		if n.VNodes > 0 && !slices.ContainsFunc(view.Nodes, func(m sheep.Node) bool { return m.Addr == n.Addr }) {
			names = append(names, n.String())
		}
	}
	return strings.Join(names, " or ")
}

// nodesOf returns the members of epoch e, asking the others if this node was
// not there to record them; nil if nobody knows.
func (r *Recoverer) nodesOf(ctx context.Context, view *cluster.View, e sheep.Epoch) []sheep.Node {
	if nodes, _, err := r.store.Epoch(e); err == nil {
		return nodes
	}
	for _, n := range view.Nodes {
		if n.Addr == r.self {
			continue
		}
		nodes, when, err := r.peers.EpochNodes(ctx, peer(view, n), e)
		if err != nil {
			continue
		}
		if err := r.store.LogEpoch(e, nodes, when); err != nil {
			r.log.Error("cannot record an epoch fetched from a peer", "epoch", e, "err", err)
		}
		return nodes
	}
	return nil
}

// equal compares this node's copy of id with that of another, by content.
func (r *Recoverer) equal(ctx context.Context, from client.Peer, e sheep.Epoch, id sheep.ObjectID) (bool, error) {
	var mine, its [20]byte
	var err, peerErr error
	var wg sync.WaitGroup
	wg.Go(func() { its, peerErr = r.peers.Digest(ctx, from, e, id) })
	mine, err = r.store.Digest(id)
	wg.Wait()
	if peerErr != nil {
		return false, fmt.Errorf("digest of object %v on %v: %w", id, from.Node, peerErr)
	}
	return err == nil && mine == its, nil // an unreadable copy of ours is fetched again
}

// A source is where an object is fetched from.
type source struct {
	sheep.Node
	trusted bool // its copy is current, and takes all writes
}

// fetch replaces this node's copy of id by that of another, and by what others
// change meanwhile.
func (r *Recoverer) fetch(ctx context.Context, from source, view *cluster.View, id sheep.ObjectID, written sheep.Epoch) error {
	f := fetching{Recoverer: r, from: from, view: view, ref: r.ref(id, view.Epoch)}
	if r.noted(id) {
		written = view.Epoch // at the others it is
	}
	err := r.store.Install(ctx, id, f.ref.Size, written, func(w io.WriterAt) error { return f.fill(ctx, w) })
	if err == nil && written != view.Epoch && r.noted(id) {
		err = r.store.Stamp(ctx, id, view.Epoch)
	}
	if f.remote == nil && errors.Is(err, sheep.ErrIO) {
		r.failed(err) // a disk that takes no new file is good for nothing
	}
	if err != nil {
		return fmt.Errorf("fetch object %v from %v: %w", id, from, err)
	}
	r.progress.fetched(f.ref.Size)
	r.log.Debug("fetched object", "oid", id, "node", from, "epoch", view.Epoch)
	return nil
}

// A fetching is an object on its way from another node.
type fetching struct {
	*Recoverer
	from   source
	view   *cluster.View
	ref    sheep.Ref
	buf    []byte
	remote error // the other's fault
}

// openRounds is how often changes are fetched while more of them are noted. Then
// writes have to wait.
const openRounds = 4

// fill writes the object into w, and what changes meanwhile.
func (f *fetching) fill(ctx context.Context, w io.WriterAt) error {
	f.buf = make([]byte, min(chunk, f.ref.Size))
	if f.from.trusted {
		f.forgetChanges(f.ref.ID) // it has them
	}
	err := f.copy(ctx, w, extent{0, f.ref.Size})
	for round := 1; err == nil && round <= openRounds; round++ {
		changes := f.takeChanges(f.ref.ID, round == openRounds)
		if len(changes) == 0 {
			return nil
		}
		for _, x := range changes {
			if err == nil && f.from.trusted {
				err = f.copy(ctx, w, x)
			}
		}
		if err == nil {
			err = f.stillTrusted(ctx)
		}
	}
	return err
}

// copy writes an extent of the object into w.
func (f *fetching) copy(ctx context.Context, w io.WriterAt, x extent) error {
	for x.off < x.end {
		p := f.buf[:min(uint32(len(f.buf)), x.end-x.off)]
		if f.remote = f.peers.ReadAny(ctx, peer(f.view, f.from.Node), f.ref, p, x.off); f.remote != nil {
			return f.remote
		}
		if _, err := w.WriteAt(p, int64(x.off)); err != nil {
			return err
		}
		x.off += uint32(len(p))
	}
	return nil
}

// stillTrusted returns nil if the source has all changes that were noted before.
// One that has failed to make a change is not trusted from before it was noted.
func (f *fetching) stillTrusted(ctx context.Context) error {
	s, err := f.stateOf(ctx, f.from.Node, f.view, f.ref.ID)
	if err == nil && !(f.from.trusted && s.Trusted) {
		err = fmt.Errorf("%w: others have changed it meanwhile", sheep.ErrAgain)
	}
	f.remote = err
	return err
}

// Repair replaces this node's copy of the object by that of the node at from,
// because somebody has compared them and found this one wrong.
func (r *Recoverer) Repair(ctx context.Context, id sheep.ObjectID, from netip.AddrPort) error {
	view, _ := r.current()
	if view == nil {
		return sheep.ErrWaitForJoin
	}
	i := slices.IndexFunc(view.Nodes, func(n sheep.Node) bool { return n.Addr == from })
	if i < 0 || from == r.self {
		return fmt.Errorf("repair object %v from %v: %w: not another member", id, sheep.FormatAddr(from), sheep.ErrInvalid)
	}
	defer r.locks.lock(id)()
	r.mu.Lock()
	r.distrustLocked(id)
	r.mu.Unlock()
	r.replica.Barrier() // what was admitted while the copy was trusted has been applied
	state, err := r.stateOf(ctx, view.Nodes[i], view, id)
	if err != nil {
		return err
	}
	if !state.Exists {
		return fmt.Errorf("repair object %v from %v: %w", id, view.Nodes[i], sheep.ErrNoObject)
	}
	if err := r.fetch(ctx, source{view.Nodes[i], state.Trusted}, view, id, state.Written); err != nil {
		return err
	}
	r.markVerified(id, view.Epoch)
	r.log.Warn("copy was wrong and has been replaced", "oid", id, "node", view.Nodes[i], "epoch", view.Epoch)
	return nil
}

// Distrust says that the copy of id could not be read or written, or is missing.
// Whoever wants it waits until it has been replaced by another node's.
func (r *Recoverer) Distrust(id sheep.ObjectID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.bad[id] {
		r.log.Error("a copy is missing, or cannot be read or written, and will be fetched from another node", "oid", id)
	}
	r.bad[id] = true
	if r.view != nil {
		r.distrustLocked(id)
		r.wake()
	}
}

// Doubt says that a write may have reached the copy of id in part, or other
// copies only. Whoever wants it waits until it has been compared with them.
func (r *Recoverer) Doubt(id sheep.ObjectID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.suspects[id]; r.view != nil && !known {
		r.distrustLocked(id)
		r.wake()
	}
}

// distrustLocked makes whoever wants the copy of id wait until it is verified.
// The caller holds r.mu.
func (r *Recoverer) distrustLocked(id sheep.ObjectID) {
	r.settled.Store(0)
	r.rest.Store(nil)
	delete(r.verified, id)
	r.suspects[id] = r.view.Epoch - 1
}

// drop removes a copy of an object that no longer exists.
func (r *Recoverer) drop(ctx context.Context, id sheep.ObjectID, e sheep.Epoch) error {
	commit, err := r.store.Remove(id, e)
	if errors.Is(err, sheep.ErrNoObject) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove object %v, which no longer exists: %w", id, err)
	}
	return commit.Wait(ctx)
}

func (r *Recoverer) ref(id sheep.ObjectID, e sheep.Epoch) sheep.Ref {
	shift := r.cluster.View().Settings.BlockShift
	if v, ok := r.cluster.VDI(id.VDI()); ok {
		shift = v.BlockShift
	}
	return sheep.Ref{ID: id, Policy: r.policy(id), Size: id.Size(shift), Epoch: e}
}

// A keyedMutex is a mutex for each object.
type keyedMutex struct {
	mu   sync.Mutex
	held map[sheep.ObjectID]*heldMutex // guarded by mu
}

type heldMutex struct {
	turn  chan struct{} // has room for one: who put it in holds the mutex
	users int           // guarded by keyedMutex.mu
}

// lock locks id and returns what unlocks it.
func (k *keyedMutex) lock(id sheep.ObjectID) (unlock func()) {
	k.mu.Lock()
	if k.held == nil {
		k.held = make(map[sheep.ObjectID]*heldMutex)
	}
	h := k.held[id]
	if h == nil {
		h = &heldMutex{turn: make(chan struct{}, 1)}
		k.held[id] = h
	}
	h.users++
	k.mu.Unlock()
	h.turn <- struct{}{}
	return func() {
		<-h.turn
		k.mu.Lock()
		defer k.mu.Unlock()
		if h.users--; h.users == 0 {
			delete(k.held, id)
		}
	}
}
