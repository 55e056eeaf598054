// Package replica is the peer role of a node: it stands between whoever asks
// (the fan-out of this node or of another) and the store, and decides whether
// a request may touch the store at all.
//
// Three gates are checked under the lock that covers the application, not at
// the door. The epoch: a request of an older one is refused, one of a newer
// one waits until this node has caught up, and a new epoch is installed only
// when everything admitted under the old one has been applied. The generation:
// a write made under an ownership that has moved on is refused. The trust: a
// copy that may have missed a write is compared with its peers before it is
// read or changed, which recovery does on the replica's behalf.
//
// What the package promises: after Install(E) returns no write of an older
// epoch reaches the store, whatever its sender or the network does.
package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/store"
)

// Trust knows which copies of this node's store are current.
type Trust interface {
	// Settled reports, without waiting, whether all copies of this node are
	// current in epoch e.
	Settled(e sheep.Epoch) bool

	// Trusted reports, without waiting, whether this node's copy of the
	// object, or its absence, is current in the epoch of ref.
	Trusted(ref sheep.Ref) bool

	// Verify returns nil once it is, having fetched the object if need be. If
	// this node is not to hold the object the error is ErrNotHolder: a copy
	// that was fetched would not stay current.
	Verify(ctx context.Context, ref sheep.Ref) error

	// Check is Verify without fetching the object. If that is what it takes, the
	// error is sheep.ErrStaleCopy.
	Check(ctx context.Context, ref sheep.Ref) error

	// Note takes note that other copies of the object have changed in the n bytes at
	// off, which are then read after this call, before the copy counts as current. It
	// reports whether it has, which it does only after Check has said so.
	Note(ref sheep.Ref, off, n uint32) bool

	// Replace runs fn, which replaces or removes the whole object, while
	// nothing else verifies it; afterwards the copy counts as current.
	Replace(ref sheep.Ref, fn func() error) error

	// Distrust says that the copy could not be read or written, or is missing: it is
	// to be replaced by another node's.
	Distrust(id sheep.ObjectID)

	// Doubt says that a write may have reached this copy in part, or other
	// copies only: it is to be compared with them.
	Doubt(id sheep.ObjectID)

	// State says what the copy is worth.
	State(id sheep.ObjectID) State
}

// Epochs waits for this node to catch up.
type Epochs interface {
	WaitEpoch(ctx context.Context, e sheep.Epoch) error
}

// A State is what a node says of its copy of an object.
type State struct {
	ID      sheep.ObjectID
	Exists  bool
	Trusted bool        // it is current in this epoch
	Hot     bool        // the intent log names it: a write may have been in flight or unsynced
	Bad     bool        // it exists and cannot be read
	Busy    bool        // the node serves clients at the moment
	Written sheep.Epoch // epoch of the latest write
	Current sheep.Epoch // the last epoch for which the copy was known to be current
	Member  sheep.Epoch // the first epoch that this life of the node has been a member in; 0 if unknown
}

// A Replica serves the copies that this node holds.
type Replica struct {
	store       *store.Store
	incarnation sheep.Incarnation
	epochs      Epochs
	trust       Trust       // set once, by Serve
	failed      func(error) // likewise
	courtesy    *courtesy

	gate  sync.RWMutex
	epoch sheep.Epoch // guarded by gate; 0 while not serving

	generations sync.Map // VDIID → *atomic.Uint64, the newest seen
}

// ErrNotHolder is what a node answers that is not to hold the object.
var ErrNotHolder = fmt.Errorf("%w: this node is not to hold it", sheep.ErrNoObject)

// errAhead says that a request is of an epoch that this node has not reached.
var errAhead = errors.New("request is ahead of this node")

// New returns a replica over st that refuses everything until Serve and
// Install are called.
func New(st *store.Store, inc sheep.Incarnation, epochs Epochs) *Replica {
	return &Replica{store: st, incarnation: inc, epochs: epochs, courtesy: newCourtesy()}
}

// Serve sets the judge of copies and what is called when the store has failed
// as a whole. It must be called before the first request.
func (r *Replica) Serve(t Trust, failed func(error)) { r.trust, r.failed = t, failed }

// Incarnation returns the number of this life of the daemon.
func (r *Replica) Incarnation() sheep.Incarnation { return r.incarnation }

// Install makes e the epoch that requests must carry. It returns when every
// write admitted before has been applied or refused.
func (r *Replica) Install(e sheep.Epoch) {
	r.gate.Lock()
	defer r.gate.Unlock()
	r.epoch = e
}

// Barrier returns when every request admitted before has been applied or
// refused.
func (r *Replica) Barrier() {
	r.gate.Lock()
	defer r.gate.Unlock()
}

// Fence makes the replica refuse writes to vdi under generations older than g.
func (r *Replica) Fence(vdi sheep.VDIID, g sheep.Generation) {
	_ = r.checkGeneration(vdi, g) // an older g changes nothing
}

// Read fills p from offset off of this node's copy.
func (r *Replica) Read(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	r.courtesy.served.Add(1)
	return r.admitted(ctx, ref, nil, func() error { return r.store.Read(ref.ID, ref.Size, p, off) })
}

// ReadAny is Read without regard to trust: recovery asks for what is there.
func (r *Replica) ReadAny(ctx context.Context, ref sheep.Ref, p []byte, off uint32) error {
	return r.inEpoch(ctx, ref.Epoch, func() error {
		return r.noteBad(ref.ID, r.store.Read(ref.ID, ref.Size, p, off))
	})
}

// noteBad returns err. If that says that the copy cannot be read, nobody is to ask
// for it any more.
func (r *Replica) noteBad(id sheep.ObjectID, err error) error {
	if errors.Is(err, sheep.ErrIO) && r.store.Err() == nil {
		r.trust.Distrust(id)
	}
	return err
}

// Write applies w to this node's copy. When it returns nil the write is as
// durable as w asks.
func (r *Replica) Write(ctx context.Context, ref sheep.Ref, w *sheep.Write) error {
	commit, err := r.apply(ctx, ref, w)
	if err != nil {
		return err
	}
	return r.judge(ref, commit.Wait(ctx))
}

// StartWrite is Write that calls done instead of returning. It applies the
// write before it returns if nothing must be waited for; done may run on the
// caller's goroutine or another and must not block. It keeps w until done runs.
func (r *Replica) StartWrite(ctx context.Context, ref sheep.Ref, w *sheep.Write, done func(error)) {
	commit, now, err := r.writeNow(ref, w)
	switch {
	case !now:
		go func() { done(r.Write(ctx, ref, w)) }()
	case err != nil:
		done(r.judge(ref, err))
	case commit.Pending():
		commit.Notify(func(err error) { done(r.judge(ref, err)) })
	default:
		done(nil)
	}
}

// writeNow applies w if nothing must be waited for before, and reports whether
// that was so.
func (r *Replica) writeNow(ref sheep.Ref, w *sheep.Write) (commit store.Commit, now bool, err error) {
	if w.Create || ref.Elsewhere {
		return commit, false, nil
	}
	r.gate.RLock()
	defer r.gate.RUnlock()
	if err := r.admit(ref); err != nil {
		return commit, !errors.Is(err, errAhead), err
	}
	if !r.trust.Trusted(ref) {
		return commit, false, nil
	}
	r.courtesy.served.Add(1)
	commit, err = r.store.Write(ref.ID, ref.Size, ref.Epoch, w)
	return commit, true, err
}

// Remove removes this node's copy, durably. If there is none it returns
// sheep.ErrNoObject.
func (r *Replica) Remove(ctx context.Context, ref sheep.Ref) error {
	var commit store.Commit
	missing := false
	err := r.trust.Replace(ref, func() error {
		return r.inEpoch(ctx, ref.Epoch, func() error {
			if err := r.checkGeneration(ref.ID.VDI(), ref.Generation); err != nil {
				return err
			}
			var err error
			commit, err = r.store.Remove(ref.ID, ref.Epoch)
			if missing = errors.Is(err, sheep.ErrNoObject); missing {
				return nil // its absence is current from now on
			}
			return err
		})
	})
	if err != nil {
		return r.judge(ref, err)
	}
	if missing {
		return fmt.Errorf("remove object %v: %w", ref.ID, sheep.ErrNoObject)
	}
	return r.judge(ref, commit.Wait(ctx))
}

// Flush makes every deferred write to vdi that this node has answered durable.
// What this node may have lost of them when it started again, or others when
// they left, it has from another node by then: should that one be the next to
// fail, no older copy must pass for what was flushed.
func (r *Replica) Flush(ctx context.Context, e sheep.Epoch, vdi sheep.VDIID) error {
	if err := r.inEpoch(ctx, e, func() error { return nil }); err != nil {
		return err
	}
	if !r.trust.Settled(e) {
		if err := r.verifyHot(ctx, e, vdi); err != nil {
			return fmt.Errorf("flush VDI %v: %w", vdi, err)
		}
	}
	for {
		err := r.store.Flush(ctx, vdi)
		bad := r.store.BadObjects()
		if !errors.Is(err, sheep.ErrIO) || len(bad) == 0 || r.store.Err() != nil {
			return r.judge(sheep.Ref{ID: sheep.InodeObject(vdi)}, err)
		}
		for _, id := range bad { // fetched from another node they are good, and durable
			r.trust.Distrust(id)
			err := r.trust.Verify(ctx, sheep.Ref{ID: id, Epoch: e})
			if errors.Is(err, ErrNotHolder) { // until it is removed as surplus
				err = fmt.Errorf("%w: the surplus copy of object %v is bad", sheep.ErrIO, id)
			}
			if err != nil {
				return fmt.Errorf("flush VDI %v: %w", vdi, err)
			}
		}
	}
}

// verifyHot returns when the objects of vdi that the intent log names are
// current here.
func (r *Replica) verifyHot(ctx context.Context, e sheep.Epoch, vdi sheep.VDIID) error {
	for _, id := range r.store.Intents() {
		if id.VDI() != vdi {
			continue
		}
		if err := r.trust.Verify(ctx, sheep.Ref{ID: id, Epoch: e}); err != nil && !errors.Is(err, ErrNotHolder) {
			return err
		}
	}
	return nil
}

// States returns the states of the objects ids, in their order.
func (r *Replica) States(ctx context.Context, e sheep.Epoch, ids []sheep.ObjectID) ([]State, error) {
	states := make([]State, len(ids))
	busy := r.courtesy.serves(time.Now())
	err := r.inEpoch(ctx, e, func() error {
		for i, id := range ids {
			states[i] = r.trust.State(id)
			states[i].Busy = busy
		}
		return nil
	})
	return states, err
}

// List returns the ids of at most limit objects that this node stores, in
// order, from the id from on.
func (r *Replica) List(ctx context.Context, e sheep.Epoch, from sheep.ObjectID, limit int) ([]sheep.ObjectID, error) {
	var ids []sheep.ObjectID
	err := r.inEpoch(ctx, e, func() (err error) {
		ids, err = r.store.IDs(from)
		ids = ids[:min(len(ids), limit)]
		return err
	})
	return ids, err
}

// Intents returns the objects that the intent log names.
func (r *Replica) Intents(ctx context.Context, e sheep.Epoch) ([]sheep.ObjectID, error) {
	var ids []sheep.ObjectID
	err := r.inEpoch(ctx, e, func() error {
		ids = r.store.Intents()
		return nil
	})
	return ids, err
}

// Digest returns the SHA-1 of the whole stored object, read afresh.
func (r *Replica) Digest(ctx context.Context, e sheep.Epoch, id sheep.ObjectID) (sum [20]byte, err error) {
	err = r.inEpoch(ctx, e, func() error {
		sum, err = r.store.Digest(id)
		return r.noteBad(id, err)
	})
	return sum, err
}

func (r *Replica) apply(ctx context.Context, ref sheep.Ref, w *sheep.Write) (commit store.Commit, err error) {
	write := func() error {
		commit, err = r.store.Write(ref.ID, ref.Size, ref.Epoch, w)
		return err
	}
	r.courtesy.served.Add(1)
	if !w.Create {
		err = r.admitted(ctx, ref, w, write)
		return commit, err
	}
	err = r.trust.Replace(ref, func() error {
		return r.inEpoch(ctx, ref.Epoch, func() error {
			if err := r.checkGeneration(ref.ID.VDI(), ref.Generation); err != nil {
				return err
			}
			return write()
		})
	})
	return commit, r.judge(ref, err)
}

// admitted runs fn under the gate once the copy is trusted and ref admitted. If it
// is not, ref says what becomes of the request, which is w if it is a write.
func (r *Replica) admitted(ctx context.Context, ref sheep.Ref, w *sheep.Write, fn func() error) error {
	for {
		var err error
		switch ref.IfStale {
		case sheep.StaleWaits:
			err = r.trust.Verify(ctx, ref)
		case sheep.StaleRefuses:
			err = r.trust.Check(ctx, ref)
		}
		if err != nil {
			return err
		}
		err = r.underGate(func() error {
			if err := r.admit(ref); err != nil {
				return err
			}
			switch {
			case r.trust.Trusted(ref):
				return r.judge(ref, fn())
			case ref.IfStale == sheep.StaleNotes && w != nil && r.trust.Note(ref, w.Off, w.Len()):
				return nil
			}
			return sheep.ErrStaleCopy
		})
		switch {
		case errors.Is(err, errAhead):
			if err := r.epochs.WaitEpoch(ctx, ref.Epoch); err != nil {
				return err
			}
		case ref.Elsewhere && errors.Is(err, sheep.ErrNoObject):
			r.trust.Distrust(ref.ID)
			ref.Elsewhere = false // or it is elsewhere no more
		case !errors.Is(err, sheep.ErrStaleCopy):
			return err
		case ref.IfStale == sheep.StaleNotes:
			ref.IfStale = sheep.StaleWaits // there is nothing to be fetched, or it has just been
		}
	}
}

// judge turns an I/O error of the store into what becomes of it. If the store
// has failed as a whole this node must go, and the request be repeated without
// it; if only the object's file has, the copy is to be replaced by another. A
// change for which there was no room may have reached other copies.
func (r *Replica) judge(ref sheep.Ref, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sheep.ErrNoSpace):
		r.trust.Doubt(ref.ID)
		return err
	case !errors.Is(err, sheep.ErrIO):
		return err
	}
	if cause := r.store.Err(); cause != nil {
		r.failed(cause)
		return fmt.Errorf("%w: the store of this node has failed: %v", sheep.ErrNetwork, err)
	}
	r.trust.Distrust(ref.ID)
	return fmt.Errorf("%w: %v", sheep.ErrStaleCopy, err)
}

// inEpoch runs fn under the gate once this node is at epoch e.
func (r *Replica) inEpoch(ctx context.Context, e sheep.Epoch, fn func() error) error {
	for {
		err := r.underGate(func() error {
			if err := r.checkEpoch(e); err != nil {
				return err
			}
			return fn()
		})
		if !errors.Is(err, errAhead) {
			return err
		}
		if err := r.epochs.WaitEpoch(ctx, e); err != nil {
			return err
		}
	}
}

func (r *Replica) underGate(fn func() error) error {
	r.gate.RLock()
	defer r.gate.RUnlock()
	return fn()
}

// admit checks epoch and generation. The caller holds the gate.
func (r *Replica) admit(ref sheep.Ref) error {
	if err := r.checkEpoch(ref.Epoch); err != nil {
		return err
	}
	return r.checkGeneration(ref.ID.VDI(), ref.Generation)
}

func (r *Replica) checkEpoch(e sheep.Epoch) error {
	switch {
	case e == r.epoch:
		return nil
	case int32(e-r.epoch) > 0:
		return errAhead
	}
	return &sheep.StaleEpochError{Sent: e, Current: r.epoch}
}

// checkGeneration refuses generations older than the newest seen for vdi, and
// remembers newer ones. Generation 0 is a read's.
func (r *Replica) checkGeneration(vdi sheep.VDIID, g sheep.Generation) error {
	if g == 0 {
		return nil
	}
	v, ok := r.generations.Load(vdi)
	if !ok {
		v, _ = r.generations.LoadOrStore(vdi, new(atomic.Uint64))
	}
	newest := v.(*atomic.Uint64)
	for {
		seen := newest.Load()
		if uint64(g) < seen {
			return fmt.Errorf("write to VDI %v under generation %d, the newest is %d: %w", vdi, g, seen, sheep.ErrStaleOwner)
		}
		if uint64(g) == seen || newest.CompareAndSwap(seen, uint64(g)) {
			return nil
		}
	}
}
