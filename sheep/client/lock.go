package client

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A Lock is the VDI lock of a disk, held through whichever sheep a Roaming is
// with. In a cluster without locks it is nothing.
type Lock struct {
	roaming *Roaming
	name    string

	// guarded by the Roaming's mu
	vdi   sheep.VDIID    // the head that was locked
	owner netip.AddrPort // of the sheep that has it for us; zero if the cluster has no locks
	lost  error          // why it is not ours any more
}

// Lock takes the VDI lock of the disk with the name. It fails with
// sheep.ErrVDILocked if another client has it. If the connection breaks the lock
// may have been taken; it ends with its sheep then.
func (r *Roaming) Lock(ctx context.Context, name string) (*Lock, error) {
	resp, _, err := r.Do(ctx, named(proto.OpLockVDI), proto.AppendLookup(nil, name, ""), nil)
	if err = outcome(resp, err, 0); err != nil {
		return nil, fmt.Errorf("lock VDI %q: %w", name, err)
	}
	l := &Lock{roaming: r, name: name, vdi: proto.DecodeVDIReply(resp.Body).VDI}
	owner, err := lockOwner(ctx, r, l.vdi)
	if err != nil {
		err = fmt.Errorf("lock VDI %q: %w", name, err)
		return nil, errors.Join(err, r.release(context.WithoutCancel(ctx), l.vdi))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l.owner = owner
	r.locks[l] = struct{}{}
	return l, nil
}

// named returns the header of a request that is about a name.
func named(op proto.Opcode) proto.Header {
	return proto.Header{Version: op.Version(), Op: op, Flags: proto.FlagWrite}
}

// Held reports whether there is a lock, and it is ours: nobody else writes.
func (l *Lock) Held() bool {
	l.roaming.mu.Lock()
	defer l.roaming.mu.Unlock()
	return l.lost == nil && l.owner.IsValid()
}

// Err returns why the lock is not ours any more, or nil.
func (l *Lock) Err() error {
	l.roaming.mu.Lock()
	defer l.roaming.mu.Unlock()
	return l.lost
}

// Release gives the lock back, which is that of vdi by now.
func (l *Lock) Release(ctx context.Context, vdi sheep.VDIID) error {
	r := l.roaming
	r.mu.Lock()
	delete(r.locks, l)
	ours := l.lost == nil && l.owner.IsValid()
	for _, id := range []sheep.VDIID{l.vdi, vdi} {
		if v := r.kept[id]; v != nil && v.taken != nil {
			delete(r.kept, id)
		}
	}
	r.mu.Unlock()
	if !ours {
		return nil
	}
	return r.release(ctx, vdi)
}

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
		if l.lost == nil && l.owner.IsValid() {
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
	r.mu.Lock()
	defer r.mu.Unlock()
	l.lost = fmt.Errorf("lock VDI %q again: %w: %w", l.name, errTaken, err)
	v := r.kept[l.vdi]
	if v == nil {
		v = new(keptVDI)
		r.kept[l.vdi] = v
	}
	v.taken = l.lost
	if len(v.writes) > 0 || v.excess != 0 {
		v.lost, v.excess = errors.Join(v.lost, l.lost), 0
		r.forget(v, func(sheep.ObjectID) bool { return true })
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
	if vdi, err = ask(named(proto.OpLockVDI), data); err != nil {
		return err
	}
	if owner, err = lockOwner(ctx, p.conn, vdi); err != nil {
		return err
	}
	l.roaming.mu.Lock()
	defer l.roaming.mu.Unlock()
	l.vdi, l.owner = vdi, owner
	return nil
}
