package gossip

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

var _ cluster.Driver = (*Driver)(nil)

var (
	errNotMember = fmt.Errorf("%w: this process is not a member", sheep.ErrCluster)
	errLapsed    = fmt.Errorf("%w: the lease of this process has run out", sheep.ErrCluster)
)

// How long a member that leaves takes pains that the others need not expel it.
const (
	leavePatience = 2 * time.Second // to log its leave
	linger        = time.Second     // to see it logged, and to vote for the leaves of the others
)

// maxDeliveries bounds what Raft has committed and the machine has not applied.
const maxDeliveries = 1024

// A Driver is this process's part in a cluster on many machines.
type Driver struct {
	cfg Config       // set once
	log *slog.Logger // set once

	// Set by Run before anything else may use them.
	data      *dataDir
	mux       *mux
	raft      *raft.Raft
	snapshots raft.SnapshotStore
	trans     *raft.NetworkTransport
	discovery *discovery
	client    *http.Client
	inc       sheep.Incarnation
	health    func() error

	deliveries chan delivery // from Raft to the goroutine of Run
	failed     chan error    // has one element when this process cannot go on
	leaderCh   chan bool     // Raft says whether this node leads
	wake       *signal       // something about the leader or the others has changed

	commits    commitNotifier
	leaseStart atomic.Int64 // the lease counts from here; 0 before the first renewal, -1 after the membership
	leaving    atomic.Bool  // this process wants to leave
	recovering atomic.Bool  // the next life of this node begins a timeline

	mu         sync.Mutex
	state      fsmState      // guarded by mu; written by Raft's goroutine alone
	cluster    clusterID     // guarded by mu; what this node belongs to
	latest     election      // guarded by mu; the latest leadership that began
	leadership *leadership   // guarded by mu; nil while this node does not lead
	applied    uint64        // guarded by mu; Raft's index of what the machine was given last
	moved      chan struct{} // guarded by mu; closed at the next change of applied; nil if nobody waits
	running    bool          // guarded by mu
	err        error         // guarded by mu; why Run has returned

	joinLogged chan struct{} // closed when this member's join is logged, or never will be
	stopped    chan struct{} // closed when the machine is given no more

	// Of the goroutine of Run.
	joined, departed bool
	leaveErr         error // nil if this process wanted to leave
}

// New returns a driver for the cluster that cfg tells how to find.
func New(cfg Config) *Driver {
	cfg = cfg.withDefaults()
	return &Driver{
		cfg:        cfg,
		log:        cfg.Log,
		deliveries: make(chan delivery, maxDeliveries),
		failed:     make(chan error, 1),
		leaderCh:   make(chan bool, 16),
		wake:       newSignal(),
		joinLogged: make(chan struct{}),
		stopped:    make(chan struct{}),
	}
}

// Run implements cluster.Driver. Before self has joined, m may be restored
// again, from a newer snapshot.
func (d *Driver) Run(ctx context.Context, self cluster.Self, m cluster.Machine) error {
	if err := d.cfg.check(); err != nil {
		return fmt.Errorf("gossip cluster: %w", err)
	}
	if len(self.Hello) > cluster.MaxJoin {
		return fmt.Errorf("join the cluster: %w: %d bytes", sheep.ErrInvalid, len(self.Hello))
	}
	d.inc, d.health = self.Incarnation, self.Health
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	err := d.open(work, &wg, m)
	if err == nil {
		err = d.run(ctx, work, &wg, self, m)
	}
	d.end(err)
	d.handOff(err)
	cancel()
	d.close()
	wg.Wait()
	return err
}

// run joins, and serves the log until the membership ends.
func (d *Driver) run(ctx, work context.Context, wg *sync.WaitGroup, self cluster.Self, m cluster.Machine) error {
	if err := m.Restore(0, nil); err != nil {
		return err
	}
	wg.Go(func() { d.monitorLeadership(work) })
	wg.Go(d.electSelf)
	wg.Go(func() { d.discovery.run(work) })
	wg.Go(func() { d.join(work, self.Hello) })
	return d.serve(ctx, work, wg, m)
}

// serve gives the machine what Raft has committed, and looks after the end.
func (d *Driver) serve(ctx, work context.Context, wg *sync.WaitGroup, m cluster.Machine) error {
	done := ctx.Done()
	logged := make(chan error, 1) // what became of the leave
	var untold <-chan time.Time
	for {
		select {
		case v := <-d.deliveries:
			joining := v.has(d.inc, cluster.EntryJoin) && !d.joined
			if joining {
				d.awaitLease()
			}
			if err := d.deliver(v, m); err != nil {
				return err
			}
			if joining {
				d.joined = true
				wg.Go(func() { d.keepLease(work) })
			}
			if d.departed {
				return d.leaveErr
			}
		case err := <-d.failed:
			return err
		case <-done:
			done = nil
			d.leaving.Store(true)
			wg.Go(func() { logged <- d.leave(work) })
		case err := <-logged:
			if err != nil || !d.joined {
				return nil // the others will expel what they think is a member
			}
			untold = time.After(linger)
		case <-untold: // whoever logged the leave may have stopped as well
			return nil
		}
	}
}

// awaitLease waits until this member has its first lease: its join has come
// back, so the news that it was logged is under way.
func (d *Driver) awaitLease() {
	select {
	case <-d.joinLogged:
	case <-time.After(d.cfg.Lease):
	}
}

// leave logs that this process leaves.
func (d *Driver) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leavePatience)
	defer cancel()
	return d.submit(ctx, command{kind: commandLeave, inc: d.inc, time: time.Now().UnixNano(), data: []byte("left")})
}

// fail ends Run with the error. Only the first call counts.
func (d *Driver) fail(err error) {
	d.leaseStart.Store(-1)
	select {
	case d.failed <- err:
	default:
	}
}

// end makes all calls return.
func (d *Driver) end(reason error) {
	if reason == nil {
		reason = errNotMember
	}
	d.leaseStart.Store(-1)
	d.mu.Lock()
	d.err, d.running = reason, false
	d.wakeLocked()
	d.mu.Unlock()
	close(d.stopped)
	d.wake.fire()
}

// handOff lets the others go on without this node: it votes for the leaves of
// those that leave with it, and then transfers its leadership.
func (d *Driver) handOff(reason error) {
	if reason != nil || d.raft == nil {
		return
	}
	over := time.After(linger)
	for d.isNeeded() {
		changed := d.wake.wait()
		select {
		case <-changed:
		case <-over:
			if d.raft.State() == raft.Leader {
				if err := d.raft.LeadershipTransfer().Error(); err != nil {
					d.log.Debug("transfer the leadership", "err", err)
				}
			}
			return
		}
	}
}

// isNeeded reports whether the vote of this node may matter to members.
func (d *Driver) isNeeded() bool {
	d.mu.Lock()
	others := len(d.state.members)
	d.mu.Unlock()
	return others > 0 && slices.ContainsFunc(d.servers(), func(s raft.Server) bool {
		return string(s.ID) == d.data.id && s.Suffrage == raft.Voter
	})
}

func (d *Driver) close() {
	if d.discovery != nil {
		d.discovery.close()
	}
	if d.raft != nil {
		if err := d.raft.Shutdown().Error(); err != nil {
			d.log.Warn("stop raft", "err", err)
		}
	}
	if d.trans != nil {
		d.trans.Close()
	}
	if d.client != nil {
		d.client.CloseIdleConnections()
	}
	if d.mux != nil {
		d.mux.close()
	}
	if d.data != nil {
		if err := d.data.close(); err != nil {
			d.log.Warn("close the cluster's log", "err", err)
		}
	}
}

// randomNumber returns a number that is not zero.
func randomNumber() uint64 {
	var b [8]byte
	for {
		rand.Read(b[:])
		if n := le.Uint64(b[:]); n != 0 {
			return n
		}
	}
}

// isPermanent reports whether err ends a call, and not just one attempt.
func isPermanent(err error) bool {
	return errors.Is(err, errDeparted) || errors.Is(err, errBadCommand)
}
