package gossip

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
)

// A verifier asks the voters whether there is a newer leader, for all who want
// to know it at the same time.
type verifier struct {
	mu      sync.Mutex
	current *round // guarded by mu; is being asked
	next    *round // guarded by mu; collects those who came after the current one began
}

// A round is one question to the voters.
type round struct {
	done chan struct{} // closed when err is set
	err  error
}

// verifyLeader returns nil if a majority of the voters has said, after the call,
// that it knows of no leader that is newer than this one. Then none was elected
// before the call.
//
// A majority that elects a newer leader has a voter in common with the one that
// was asked here, and that voter keeps the newer term from then on. That is so
// although the two may have different configurations, because these differ by one
// server at most: further changes need the newer leader's election first.
func (d *Driver) verifyLeader(ctx context.Context, l *leadership) error {
	v := &l.verifier
	v.mu.Lock()
	if v.next == nil {
		v.next = &round{done: make(chan struct{})}
		if v.current == nil {
			d.startRound(l)
		}
	}
	mine := v.next
	if mine == nil {
		mine = v.current // it has just begun, after the call
	}
	v.mu.Unlock()
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// startRound makes the next round the current one; the caller holds the
// verifier's lock.
func (d *Driver) startRound(l *leadership) {
	v := &l.verifier
	batch := v.next
	v.current, v.next = batch, nil
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), d.cfg.Lease/2)
		defer cancel()
		batch.err = d.askVoters(ctx, l.term)
		close(batch.done)
		v.mu.Lock()
		defer v.mu.Unlock()
		v.current = nil
		if v.next != nil {
			d.startRound(l)
		}
	}()
}

// askVoters asks the voters once.
func (d *Driver) askVoters(ctx context.Context, term uint64) error {
	var voters []raft.Server
	for _, s := range d.servers() {
		if s.Suffrage == raft.Voter {
			voters = append(voters, s)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan bool, len(voters))
	for _, s := range voters {
		go func() { answers <- d.askVoter(ctx, s, term) == nil }()
	}
	yes := 0
	for i := range voters {
		if <-answers {
			yes++
		}
		if yes > len(voters)/2 {
			return nil
		}
		if yes+len(voters)-i-1 <= len(voters)/2 {
			break
		}
	}
	return errNotLeader
}

func (d *Driver) askVoter(ctx context.Context, s raft.Server, term uint64) error {
	if string(s.ID) == d.data.id {
		return d.checkTerm(term)
	}
	addr := d.addressOf(string(s.ID))
	if addr == "" {
		addr = string(s.Address)
	}
	return d.post(ctx, addr, pathTerm, termRequest{ID: string(s.ID), Term: term}, nil)
}

// checkTerm returns nil if this node has voted for nobody in a later term.
func (d *Driver) checkTerm(term uint64) error {
	if d.raft.CurrentTerm() > term {
		return errNotLeader
	}
	return nil
}
