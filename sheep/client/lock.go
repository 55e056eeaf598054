package client

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A Lock is the VDI lock of a disk, held through whichever sheep a Roaming is
// with. In a cluster without locks nobody else respects it.
//
// It is a Doer as its Roaming is, for the disk's writer: what was written through
// it is repeated at another sheep only if the lock could be taken there, too.
// Nothing can be written any more once it is lost or given back.
type Lock struct {
	roaming *Roaming
	name    string
	lost    atomic.Pointer[error] // why it is not ours any more

	// guarded by the Roaming's mu
	owner netip.AddrPort // of the sheep that has it for us; zero if the cluster has no locks
}

var _ Doer = (*Lock)(nil)

// errReleased says why nothing is written through a Lock any more.
var errReleased = fmt.Errorf("%w: the lock has been given back", sheep.ErrIO)

// Lock takes the VDI lock of the disk with the name. It fails with
// sheep.ErrVDILocked if another client has it. If the connection breaks the lock
// may have been taken; it ends with that then, and is asked for at another sheep.
func (r *Roaming) Lock(ctx context.Context, name string) (*Lock, error) {
	h, data := lockRequest(), proto.AppendLookup(nil, name, "")
	c := r.prepare(nil, h, data)
	c.repeat = true
	resp, _, err := r.do(ctx, c, h, data, nil)
	if err = outcome(resp, err, 0); err != nil {
		return nil, fmt.Errorf("lock VDI %q: %w", name, err)
	}
	l := &Lock{roaming: r, name: name}
	id := proto.DecodeVDIReply(resp.Body).VDI
	owner, err := lockOwner(ctx, r, id)
	if err != nil {
		err = fmt.Errorf("lock VDI %q: %w", name, err)
		return nil, errors.Join(err, r.release(context.WithoutCancel(ctx), id))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l.owner = owner
	r.locks[l] = struct{}{}
	return l, nil
}

// Do sends a request of the disk's writer, as Roaming.Do does.
func (l *Lock) Do(ctx context.Context, h proto.Header, payload, into []byte) (proto.Response, []byte, error) {
	r := l.roaming
	return r.do(ctx, r.prepare(l, h, payload), h, payload, into)
}

// named returns the header of a request that is about a name.
func named(op proto.Opcode) proto.Header {
	return proto.Header{Version: op.Version(), Op: op, Flags: proto.FlagWrite}
}

// lockRequest returns the header of the request for a lock that ends with the
// connection.
func lockRequest() proto.Header {
	h := named(proto.OpLockVDI)
	h.Body = proto.VDIBody{Type: proto.LockSession}.Body()
	return h
}

// Held reports whether there is a lock, and it is ours: nobody else writes.
func (l *Lock) Held() bool {
	l.roaming.mu.Lock()
	defer l.roaming.mu.Unlock()
	return l.lost.Load() == nil && l.owner.IsValid()
}

// Err returns why the lock is not ours any more, or nil.
func (l *Lock) Err() error {
	if err := l.lost.Load(); err != nil {
		return *err
	}
	return nil
}

// Release gives the lock back, which is that of vdi by now. What was written
// through it and not flushed may be lost from then on; it is not repeated.
func (l *Lock) Release(ctx context.Context, vdi sheep.VDIID) error {
	r := l.roaming
	r.mu.Lock()
	delete(r.locks, l)
	ours := l.lost.CompareAndSwap(nil, &errReleased) && l.owner.IsValid()
	for id, v := range r.kept {
		if v.lock == l {
			r.forget(v, all)
			delete(r.kept, id)
		}
	}
	r.mu.Unlock()
	if !ours {
		return nil
	}
	return r.release(ctx, vdi)
}

func all(sheep.ObjectID) bool { return true }

func (r *Roaming) release(ctx context.Context, vdi sheep.VDIID) error {
	resp, _, err := r.Do(ctx, releaseRequest(vdi), nil, nil)
	if err = outcome(resp, err, 0); err != nil {
		return fmt.Errorf("unlock VDI %v: %w", vdi, err)
	}
	return nil
}

func releaseRequest(vdi sheep.VDIID) proto.Header {
	return proto.Header{
		Version: proto.OpReleaseVDI.Version(), Op: proto.OpReleaseVDI,
		Body: proto.VDIBody{Base: vdi, Type: proto.LockNormal}.Body(),
	}
}

// lockOwner returns the sheep that has the lock of vdi, zero if it is not locked.
func lockOwner(ctx context.Context, do Doer, vdi sheep.VDIID) (netip.AddrPort, error) {
	h := proto.Header{Version: proto.OpGetVDICopies.Version(), Op: proto.OpGetVDICopies}
	for room := 1 << 20; ; room *= 4 {
		resp, data, err := do.Do(ctx, h, nil, make([]byte, room))
		if err == nil && resp.Result == proto.ResultBufferSmall && room < 1<<30 {
			continue
		}
		if err = outcome(resp, err, 0); err != nil {
			return netip.AddrPort{}, fmt.Errorf("ask for locks: %w", err)
		}
		for ; len(data) >= proto.VDIStateSize; data = data[proto.VDIStateSize:] {
			s, err := proto.DecodeVDIState(data)
			switch {
			case err != nil:
				return netip.AddrPort{}, fmt.Errorf("ask for locks: %w", err)
			case s.VDI == vdi && s.Lock.State == sheep.Exclusive:
				return s.Lock.Owner.Addr, nil
			}
		}
		return netip.AddrPort{}, nil
	}
}

// relock takes the locks through p that another sheep had for us. A lock that
// somebody else has by now is lost, and with it what was not flushed.
func (r *Roaming) relock(p *post) error {
	r.mu.Lock()
	var locks []*Lock
	for l := range r.locks {
		if l.lost.Load() == nil && l.owner.IsValid() {
			locks = append(locks, l)
		}
	}
	r.mu.Unlock()
	for _, l := range locks {
		ctx, cancel := context.WithTimeout(r.ctx, restorePatience)
		err := l.renew(ctx, p)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// renew takes l through p. It fails if p is no good.
func (l *Lock) renew(ctx context.Context, p *post) error {
	err := l.take(ctx, p)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, sheep.ErrVDILocked) && !errors.Is(err, sheep.ErrNoVDI):
		return fmt.Errorf("lock VDI %q again: %w", l.name, err)
	}
	r := l.roaming
	r.cfg.Log.Warn("the lock of a disk is lost", "name", l.name, "node", p.addr, "err", err)
	err = fmt.Errorf("lock VDI %q again: %w: %w", l.name, errTaken, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	l.lost.CompareAndSwap(nil, &err)
	for _, v := range r.kept { // of all heads that the disk has had
		if v.lock == l && (len(v.writes) > 0 || v.excess != 0) {
			v.lost, v.excess = errors.Join(v.lost, err), 0
			r.forget(v, all)
		}
	}
	return nil
}

// take takes l through p. What the sheep before still has for us, because it is
// not known to be dead or lives, is given back first. The disk may have another
// head by now.
func (l *Lock) take(ctx context.Context, p *post) error {
	data := proto.AppendLookup(nil, l.name, "")
	ask := func(h proto.Header, data []byte) (sheep.VDIID, error) {
		resp, _, err := p.conn.Do(ctx, h, data, nil)
		if err = outcome(resp, err, 0); err != nil {
			return 0, err
		}
		return proto.DecodeVDIReply(resp.Body).VDI, nil
	}
	vdi, err := ask(named(proto.OpGetVDIInfo), data)
	if err != nil {
		return err
	}
	owner, err := lockOwner(ctx, p.conn, vdi)
	if err == nil && owner == l.owner {
		_, err = ask(releaseRequest(vdi), nil)
	}
	if err != nil {
		return err
	}
	if vdi, err = ask(lockRequest(), data); err != nil {
		return err
	}
	if owner, err = lockOwner(ctx, p.conn, vdi); err != nil {
		return err
	}
	l.roaming.mu.Lock()
	defer l.roaming.mu.Unlock()
	l.owner = owner
	return nil
}
