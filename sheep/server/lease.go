package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

// Waits for a lease that has lapsed while this node was slow.
const (
	leaseRetry    = 20 * time.Millisecond
	leasePatience = 10 * time.Second
)

// errNoLease says that what was read may be old and there is nobody to ask.
var errNoLease = errors.New("this node has lost its lease")

// errLapsed says that a client did not want to wait for the lease.
var errLapsed = errors.New("this node has no lease")

// leased returns nil while this node may answer, and after that an error that
// has the asking node wait for the next epoch.
func (d *Daemon) leased() error {
	if err := d.Cluster.Lease(); err != nil {
		return fmt.Errorf("%w: %w", sheep.ErrNetwork, err)
	}
	return nil
}

// readLeased calls read, of an object of the VDI, until the lease holds after it:
// without one, others may have gone on without this node and written what it does
// not know of. It returns errNoLease if the lease does not come back, and
// sheep.ErrIO if the client does not wait so long.
func (d *Daemon) readLeased(ctx context.Context, vdi sheep.VDIID, read func() error) error {
	deadline := d.Cluster.View().DeadlineOf(vdi)
	for begin := time.Now(); ; {
		err := read()
		if d.Cluster.Lease() == nil {
			return err
		}
		for d.Cluster.Lease() != nil {
			if deadline != 0 && time.Since(begin) > deadline {
				return fmt.Errorf("%w: %w for %v", sheep.ErrIO, errLapsed, deadline)
			}
			if d.Cluster.View().Status == cluster.Killed || time.Since(begin) > leasePatience {
				return errNoLease
			}
			wait(ctx, leaseRetry)
			if ctx.Err() != nil {
				return errNoLease
			}
		}
	}
}
