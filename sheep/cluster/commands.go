package cluster

import (
	"context"
	"errors"
	"fmt"

	"sheepdog/sheep"
)

// The methods below propose one message each and return when it is applied
// here. An error that the log decided (the lock is taken, the cluster waits)
// is a sentinel of sheep, wrapped with the operation.

func (c *Cluster) command(ctx context.Context, what string, m message) error {
	if _, err := c.propose(ctx, m); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Format makes an empty cluster of the present members, whatever it was before.
// s.Ctime must differ from that of any cluster before.
func (c *Cluster) Format(ctx context.Context, s Settings) error {
	return c.command(ctx, "format the cluster", formatMsg{s})
}

// Shutdown stops all daemons. If a plan is open, it returns before the status
// is Shutdown, which follows when the plan is done; a second call does not wait
// for the plan.
func (c *Cluster) Shutdown(ctx context.Context) error {
	return c.command(ctx, "shut the cluster down", shutdownMsg{})
}

// ForceRecover gives up the members of the newest epoch that are missing, and
// has the cluster serve with those that are present. It is refused with
// sheep.ErrInvalid unless the cluster waits for members.
func (c *Cluster) ForceRecover(ctx context.Context) error {
	for {
		changed := c.Changed()
		err := c.command(ctx, "force recovery", forceRecoverMsg{c.skippedEpochs()})
		if !errors.Is(err, sheep.ErrAgain) {
			return err
		}
		select {
		case <-changed: // members tell their VDIs
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// SetRecovery switches recovery on or off in the whole cluster.
func (c *Cluster) SetRecovery(ctx context.Context, on bool) error {
	return c.command(ctx, "switch recovery", setRecoveryMsg{on})
}

// SetVNodes changes the weight of this node, which begins an epoch. Clusters
// with automatic weights and gateways refuse with sheep.ErrInvalid.
func (c *Cluster) SetVNodes(ctx context.Context, n uint16) error {
	if n == 0 {
		return fmt.Errorf("set vnodes: %w: 0 vnodes", sheep.ErrInvalid)
	}
	return c.command(ctx, "set vnodes", updateNodeMsg{vnodes: n})
}

// SetSpace changes the space of this node, which begins an epoch.
func (c *Cluster) SetSpace(ctx context.Context, bytes uint64) error {
	if bytes == 0 {
		return fmt.Errorf("set space: %w: 0 bytes", sheep.ErrInvalid)
	}
	return c.command(ctx, "set space", updateNodeMsg{space: bytes})
}

// AlterClusterCopies changes the default number of copies of new VDIs.
func (c *Cluster) AlterClusterCopies(ctx context.Context, copies uint8) error {
	return c.command(ctx, "alter the default copies", alterClusterMsg{copies})
}

// AlterVDICopies changes the number of copies of a replicated VDI and begins an
// epoch, so that every node recovers the copies that it should have now.
func (c *Cluster) AlterVDICopies(ctx context.Context, vid sheep.VDIID, copies uint8) error {
	return c.command(ctx, fmt.Sprintf("alter the copies of VDI %v", vid), alterVDIMsg{vid, copies})
}

// MarkComplete says that this node has recovered all it should have in the
// epoch. If the cluster is in another by now, it returns a *sheep.StaleEpochError.
func (c *Cluster) MarkComplete(ctx context.Context, e sheep.Epoch) error {
	return c.command(ctx, fmt.Sprintf("complete epoch %d", e), completeMsg{e})
}

// AddVDI registers a VDI or replaces what is known of it, and makes old, unless
// it is 0, its snapshot. With setBit the number is taken from now on; that
// cannot be undone by AddVDI.
func (c *Cluster) AddVDI(ctx context.Context, old sheep.VDIID, v sheep.VDI, setBit bool) error {
	return c.command(ctx, fmt.Sprintf("add VDI %v", v.ID), addVDIMsg{old, v, setBit})
}

// A LockRequest says for whom a lock is. The zero value is an exclusive lock of
// somebody who is not known, that lasts until it is given back.
type LockRequest struct {
	Shared bool
	Client sheep.Client

	// Session, if it is not 0, is what an exclusive lock ends with: by
	// EndSession, or with this life of the daemon.
	Session uint64
}

// Lock locks a VDI for this gateway. sheep.ErrVDILocked means that the lock is
// taken, also by this gateway itself; an exclusive lock of a gateway that is
// gone is free. In a cluster without the locking flag it
// only checks that the VDI exists.
func (c *Cluster) Lock(ctx context.Context, vid sheep.VDIID, r LockRequest) error {
	return c.command(ctx, fmt.Sprintf("lock VDI %v", vid),
		lockMsg{vid: vid, shared: r.Shared, bound: r.Session != 0, session: r.Session, client: clipped(r.Client)})
}

// maxClient bounds the texts that the log has of a client.
const maxClient = 255

func clipped(c sheep.Client) sheep.Client {
	c.Kind, c.Addr = c.Kind[:min(len(c.Kind), maxClient)], c.Addr[:min(len(c.Addr), maxClient)]
	return c
}

// NewSession returns a number for a client whose locks are to end with it. No
// other session of this life of the daemon has it.
func (c *Cluster) NewSession() uint64 { return c.sessions.Add(1) }

// EndSession releases the locks of a session of this daemon that are left, also
// those of VDIs that became snapshots, which the heads after them have.
func (c *Cluster) EndSession(ctx context.Context, session uint64) error {
	return c.command(ctx, fmt.Sprintf("end session %d", session), endSessionMsg{session})
}

// Unlock releases the exclusive lock of a VDI, whoever holds it, or the share
// of node in a shared one. It succeeds if there is no such lock.
func (c *Cluster) Unlock(ctx context.Context, vid sheep.VDIID, shared bool, node sheep.Node) error {
	return c.command(ctx, fmt.Sprintf("unlock VDI %v", vid), unlockMsg{vid, shared, canonical(node)})
}

// Coherence says that a client of this gateway changed the inode of a VDI that
// it shares, so that the other participants must read it anew; or with validate
// that it has read the present one. sheep.ErrNoVDI means that this gateway does
// not share the VDI.
func (c *Cluster) Coherence(ctx context.Context, vid sheep.VDIID, validate bool) error {
	return c.command(ctx, fmt.Sprintf("coherence of VDI %v", vid), coherenceMsg{vid, validate})
}

// Own asks for the ownership of a VDI for this node and returns what the log
// decided: this node's, possibly Draining, or somebody else's.
func (c *Cluster) Own(ctx context.Context, vid sheep.VDIID) (Ownership, error) {
	out, err := c.propose(ctx, ownMsg{vid})
	if err != nil {
		return Ownership{}, fmt.Errorf("own VDI %v: %w", vid, err)
	}
	return out.ownership, nil
}

// HandOver gives the VDI that this node owns with the generation to another
// member. This node drains it then, as after every loss.
func (c *Cluster) HandOver(ctx context.Context, vid sheep.VDIID, gen sheep.Generation, to sheep.Incarnation) error {
	return c.command(ctx, fmt.Sprintf("hand VDI %v over", vid), handOverMsg{vid, gen, to})
}

// Drained says that nothing that this node admitted as the owner of a VDI with
// generation gen, which it has lost, is in flight or unflushed.
// sheep.ErrStaleOwner means that nobody waits for it.
func (c *Cluster) Drained(ctx context.Context, vid sheep.VDIID, gen sheep.Generation) error {
	return c.command(ctx, fmt.Sprintf("drain VDI %v", vid), drainedMsg{vid, gen})
}

// Disown gives up a VDI that this node owns with generation gen, and has
// drained and flushed already.
func (c *Cluster) Disown(ctx context.Context, vid sheep.VDIID, gen sheep.Generation) error {
	return c.command(ctx, fmt.Sprintf("disown VDI %v", vid), disownMsg{vid, gen})
}
