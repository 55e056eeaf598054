package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sheepdog/sheep"
)

// A formerLife is what the log knows of the time before all members left.
type formerLife struct {
	ctime uint64      // of the cluster
	epoch sheep.Epoch // the newest that there was; 0 if the log does not tell
	spare uint8       // how many zones of that epoch could be missing, and no object with them
}

// formerLife returns what the next life is to know of this one, which has no
// members any more. What stores told of epochs that this log has not seen is
// not certain to be the newest.
func (s *state) formerLife() formerLife {
	if !s.started {
		return s.former
	}
	return formerLife{ctime: s.settings.Ctime, epoch: s.epoch, spare: s.spareZones()}
}

// spareZones returns how many zones of the epoch may be missing while each
// object has a copy, or enough strips, in the others.
func (s *state) spareZones() uint8 {
	zones := len(zonesOf(s.nodes))
	spare := func(p sheep.Policy) int {
		switch {
		case !p.Erasure():
			return min(int(p.Copies), zones) - 1
		case zones < p.Width():
			return 0
		}
		return int(p.Parity)
	}
	fewest := 0
	if p, err := sheep.PolicyFromWire(s.settings.Copies, s.settings.CopyPolicy); err == nil {
		fewest = spare(p)
	}
	for _, v := range s.vdis.all {
		fewest = min(fewest, spare(v.vdi.Policy))
	}
	return uint8(max(fewest, 0))
}

// zonesOf returns the zones that store objects.
func zonesOf(nodes []sheep.Node) map[sheep.ZoneID]bool {
	zones := map[sheep.ZoneID]bool{}
	for _, n := range nodes {
		if n.VNodes > 0 {
			zones[n.Zone] = true
		}
	}
	return zones
}

// maySpareTheMissing reports whether a waiting cluster can start without the
// members of its newest epoch that are missing: most are there, they have all
// data, and nobody can have gone on without them.
func (s *state) maySpareTheMissing() bool {
	if s.status != Wait || s.started || s.epoch == 0 || !s.ready() {
		return false
	}
	if s.former.epoch != s.epoch || s.former.ctime != s.settings.Ctime {
		return false
	}
	present := s.present()
	var missing []sheep.Node
	for _, n := range s.nodes {
		if !slices.ContainsFunc(present, func(p sheep.Node) bool { return p.Addr == n.Addr }) {
			missing = append(missing, n)
		}
	}
	return len(missing) < len(s.nodes)-len(missing) && len(zonesOf(missing)) <= int(s.former.spare)
}

// startMsg starts a waiting cluster without the members that it can spare.
type startMsg struct{}

func (startMsg) kind() messageKind      { return kindStart }
func (startMsg) append(b []byte) []byte { return b }

func (startMsg) apply(s *state, _ *member, e *Entry, fx *effects) error {
	if !s.maySpareTheMissing() {
		return fmt.Errorf("%w: the cluster waits for its members, or is running", sheep.ErrInvalid)
	}
	s.status, s.started = OK, true
	s.beginEpoch(e.Time, fx)
	s.resume(fx)
	return nil
}

// defaultStartPatience is long enough for machines that start together.
const defaultStartPatience = 20 * time.Second

// startInTime starts a cluster that has waited for members long enough, if it
// can spare them. Who joins meanwhile begins the time anew.
func (c *Cluster) startInTime(ctx context.Context) {
	patience := c.cfg.StartPatience
	if patience == 0 {
		patience = defaultStartPatience
	}
	var over <-chan time.Time
	members := 0
	for {
		changed := c.Changed()
		c.mu.RLock()
		ready, count := c.state.maySpareTheMissing(), len(c.state.members)
		c.mu.RUnlock()
		switch {
		case !ready:
			over = nil
		case over == nil || count != members:
			over = time.After(patience)
		}
		members = count
		select {
		case <-changed:
		case <-over:
			over = nil
			c.log.Warn("the cluster starts without members that are missing; they may join later", "waited", patience)
			if err := c.command(ctx, "start without missing members", startMsg{}); err != nil {
				c.log.Debug(err.Error()) // another member was faster, or the missing have come
			}
		case <-ctx.Done():
			return
		}
	}
}
