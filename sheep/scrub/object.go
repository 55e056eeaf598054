package scrub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/cluster"
)

// duty returns those of ids that this node is to compare: those whose first copy
// it holds, and those whose first copy is not there.
func (s *Scrubber) duty(ctx context.Context, view *cluster.View, ids []sheep.ObjectID) ([]sheep.ObjectID, error) {
	var mine []sheep.ObjectID
	others := make(map[int][]sheep.ObjectID) // by the node that has the duty
	for _, id := range ids {
		holders := s.holders(view, id)
		switch {
		case !slices.Contains(holders, view.Self):
		case holders[0] == view.Self:
			mine = append(mine, id)
		default:
			others[holders[0]] = append(others[holders[0]], id)
		}
	}
	for at, theirs := range others {
		missing, err := s.peers.Missing(ctx, peer(view, at), theirs)
		if err != nil {
			return nil, fmt.Errorf("ask %v what it lacks: %w", view.Nodes[at], err)
		}
		mine = append(mine, missing...)
	}
	slices.Sort(mine)
	return mine, nil
}

// holders returns the nodes that are to hold the object, none if it is not made
// of copies.
func (s *Scrubber) holders(view *cluster.View, id sheep.ObjectID) []int {
	policy, _ := s.node.Policy(id)
	if policy.Erasure() || policy.Width() < 2 {
		return nil
	}
	return view.Ring.Place(id, policy.Width())
}

func peer(view *cluster.View, at int) client.Peer {
	m, _ := view.MemberAt(view.Nodes[at])
	return client.Peer{Node: view.Nodes[at], Incarnation: m.Incarnation}
}

// looks is how often the copies of an object that is being written are compared
// before that is left to the next pass, and how long it pauses in between: an object
// that is being removed has copies here and there for a moment.
const (
	looks    = 5
	blinking = 300 * time.Millisecond
)

// object compares the copies of one object, makes them equal if they are not, and
// returns how many bytes that was about.
func (s *Scrubber) object(ctx context.Context, view *cluster.View, id sheep.ObjectID) uint32 {
	holders := s.holders(view, id)
	copies := s.look(ctx, view, id, holders)
	for range looks {
		if Same(copies) {
			return s.compared(id, false, false)
		}
		if !s.sleep(ctx, blinking) {
			return 0
		}
		again := s.look(ctx, view, id, holders)
		if Unchanged(copies, again) {
			return s.differing(ctx, view, id, holders, again)
		}
		copies = again
	}
	return 0
}

// look reads all copies.
func (s *Scrubber) look(ctx context.Context, view *cluster.View, id sheep.ObjectID, holders []int) []Copy {
	copies := make([]Copy, len(holders))
	var wg sync.WaitGroup
	for i, at := range holders {
		copies[i].Node = view.Nodes[at]
		wg.Go(func() {
			if at == view.Self {
				copies[i].CopyReport, copies[i].Err = s.node.CopyOf(ctx, id)
			} else {
				copies[i].CopyReport, copies[i].Err = s.peers.Copy(ctx, peer(view, at), id)
			}
		})
	}
	wg.Wait()
	return copies
}

// differing deals with copies that are not equal, unless a node does not answer,
// the object is gone, or recovery is about to deal with it.
func (s *Scrubber) differing(ctx context.Context, view *cluster.View, id sheep.ObjectID, holders []int, copies []Copy) uint32 {
	absent := !slices.ContainsFunc(copies, func(c Copy) bool { return c.Exists() })
	unsure := slices.ContainsFunc(copies, func(c Copy) bool { return c.Err != nil })
	if absent || unsure || ctx.Err() != nil || s.cluster.View().Epoch != view.Epoch || !s.node.Settled(view.Epoch) {
		return 0
	}
	v := Judge(copies, false)
	if v.Right < 0 {
		s.log.Error("copies differ, and only a person can tell which is right: dog vdi check", "oid", id, "epoch", view.Epoch, "err", v.Why)
		return s.compared(id, true, false)
	}
	var errs []error
	var wrong []string
	for _, i := range v.Wrong {
		wrong = append(wrong, copies[i].Node.String())
		errs = append(errs, s.mend(ctx, view, id, holders[i], copies[v.Right].Node))
	}
	err := errors.Join(errs...)
	if err == nil && !Same(s.look(ctx, view, id, holders)) {
		err = errors.New("they differ again")
	}
	if err != nil {
		s.log.Error("copies differ and could not be made equal", "oid", id, "epoch", view.Epoch, "err", err)
	} else {
		s.log.Warn("copies differed and are equal again", "oid", id, "epoch", view.Epoch, "node", wrong,
			"right", copies[v.Right].Node, "why", v.Why)
	}
	return s.compared(id, true, err == nil)
}

// mend replaces the copy of the node at by that of right.
func (s *Scrubber) mend(ctx context.Context, view *cluster.View, id sheep.ObjectID, at int, right sheep.Node) error {
	if at == view.Self {
		return s.node.Repair(ctx, id, right.Addr)
	}
	return s.peers.Repair(ctx, peer(view, at), id, right.Addr)
}

// maxLeft bounds the objects that are remembered to differ.
const maxLeft = 1024

// compared counts an object.
func (s *Scrubber) compared(id sheep.ObjectID, differing, repaired bool) uint32 {
	_, size := s.node.Policy(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.state.now
	p.Compared++
	p.Bytes += uint64(size)
	if differing {
		p.Differing++
	}
	if repaired {
		p.Repaired++
	}
	at := slices.Index(s.state.left, id)
	switch unequal := differing && !repaired; {
	case unequal && at < 0 && len(s.state.left) < maxLeft:
		s.state.left = append(s.state.left, id)
	case !unequal && at >= 0:
		s.state.left = slices.Delete(s.state.left, at, at+1)
	}
	return size
}
