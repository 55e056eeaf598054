package gossip

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
)

// monitorLeadership leads while Raft says that it is this node's turn, and tells
// those who wait when another one leads.
func (d *Driver) monitorLeadership(ctx context.Context) {
	news := make(chan raft.Observation, 16)
	o := raft.NewObserver(news, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	d.raft.RegisterObserver(o)
	defer d.raft.DeregisterObserver(o)
	stop := func() {}
	for {
		select {
		case leads := <-d.leaderCh:
			stop()
			stop = func() {}
			if leads {
				stop = d.startLead(ctx)
			}
			d.wake.fire()
		case <-news:
			d.wake.fire()
		case <-ctx.Done():
			stop()
			for { // Raft waits for this to be read
				select {
				case <-d.leaderCh:
				default:
					return
				}
			}
		}
	}
}

// startLead leads in another goroutine until the function that it returns is
// called, which waits for the end.
func (d *Driver) startLead(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { d.leaderLoop(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}

// electSelf has a node that votes alone elect itself at once: it has nobody to wait
// for.
func (d *Driver) electSelf() {
	votes := map[raft.ServerID]bool{}
	for _, s := range d.servers() {
		if s.Suffrage == raft.Voter {
			votes[s.ID] = true
		}
	}
	if len(votes) != 1 || !votes[raft.ServerID(d.data.id)] {
		return
	}
	self := raft.ServerAddress(d.mux.advertise.String())
	q := raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
	if err := d.trans.TimeoutNow(raft.ServerID(d.data.id), self, &q, new(raft.TimeoutNowResponse)); err != nil {
		d.log.Debug("elect this node", "err", err)
	}
}
