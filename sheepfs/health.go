package sheepfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/listing"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// The words of health, from good to bad. The worst that applies is shown.
const (
	healthOK = iota
	healthRecovering
	healthDegraded
	healthStopped
	healthUnreachable
)

func healthWord(level int) string {
	return [...]string{"ok", "recovering", "degraded", "stopped", "unreachable"}[level]
}

// nearlyFull is the part of a node's space, in percent, from which on it is worth
// a warning.
const nearlyFull = 90

// healthPatience bounds how long the answer takes.
const healthPatience = 10 * time.Second

// A diagnosis is what is found about the health of a cluster.
type diagnosis struct {
	level   int
	reasons []string
}

func (d *diagnosis) find(level int, format string, args ...any) {
	d.level = max(d.level, level)
	d.reasons = append(d.reasons, fmt.Sprintf(format, args...))
}

func (d *diagnosis) content() content {
	var b strings.Builder
	fmt.Fprintln(&b, healthWord(d.level))
	for _, r := range d.reasons {
		fmt.Fprintln(&b, printable(r))
	}
	return text(b.String())
}

// health is one word, then the reasons. It is there to be read when all else is
// not, so it never fails.
func (t *FS) health(ctx context.Context) (content, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, min(t.cfg.Patience, healthPatience), errPatience)
	defer cancel()
	var d diagnosis
	c := t.remote()
	defer c.Close()
	members, err := c.Membership(ctx)
	if err != nil {
		d.find(healthUnreachable, "no sheep answers: %v", err)
		return d.content(), nil
	}
	epochs, state, err := c.Epochs(ctx, members.Epoch, len(members.Nodes))
	switch {
	case err != nil:
		d.find(healthUnreachable, "the state of the cluster is not known: %v", err)
	case state != nil:
		d.find(healthStopped, "%s", remote.Text(state))
	case len(epochs) > 0:
		d.epochs(epochs)
	}
	if err == nil && state == nil {
		d.redundancy(ctx, c, members.Nodes)
		d.nodes(ctx, c, members.Nodes)
	}
	return d.content(), nil
}

// epochs says what the history tells.
func (d *diagnosis) epochs(epochs []proto.EpochRecord) {
	if epochs[0].RecoveryDisabled {
		d.find(healthDegraded, "recovery is disabled")
	}
	if len(epochs) < 2 {
		return
	}
	for _, n := range epochs[1].Nodes {
		if !slices.ContainsFunc(epochs[0].Nodes, func(o sheep.Node) bool { return o.Addr == n.Addr }) {
			d.find(healthOK, "node %v is gone since epoch %d, %s", n, epochs[0].Epoch, epochs[0].Time.Format("2006-01-02 15:04:05"))
		}
	}
}

// redundancy says whether there are nodes for all copies.
func (d *diagnosis) redundancy(ctx context.Context, c *remote.Cluster, nodes []sheep.Node) {
	states, err := c.States(ctx)
	if err != nil {
		d.find(healthDegraded, "the disks are not known: %v", err)
		return
	}
	have, short, want := zones(nodes), 0, 0
	for _, s := range states {
		p, err := sheep.PolicyFromWire(s.Copies, s.CopyPolicy)
		if err == nil && !s.Deleted && p.Width() > have {
			short++
			want = max(want, p.Width())
		}
	}
	if short > 0 {
		d.find(healthDegraded, "%d disks and snapshots want up to %d copies, and there are %d zones", short, want, have)
	}
}

// A nodeHealth is what a node has answered.
type nodeHealth struct {
	node     sheep.Node
	recovery proto.RecoveryState
	space    listing.Space
	err      error
}

// nodes asks every node how it is.
func (d *diagnosis) nodes(ctx context.Context, c *remote.Cluster, nodes []sheep.Node) {
	ask := func(n sheep.Node) nodeHealth {
		a := nodeHealth{node: n}
		if a.recovery, a.err = c.Recovery(ctx, remote.Address(n)); a.err == nil {
			a.space, a.err = spaceOf(ctx, c, n)
		}
		return a
	}
	for a := range remote.Ordered(slices.Values(nodes), askWidth, ask) {
		d.node(a)
	}
}

// node says what a node's answer tells. A node that counts its objects and finds
// none, as each does after a format, recovers nothing.
func (d *diagnosis) node(a nodeHealth) {
	switch {
	case errors.Is(a.err, sheep.ErrWaitForFormat):
	case a.err != nil:
		d.find(healthDegraded, "node %v does not answer: %v", a.node, a.err)
	case a.recovery.Active && a.recovery.Total > 0:
		d.find(healthRecovering, "node %v is in recovery: %d of %d objects", a.node, a.recovery.Finished, a.recovery.Total)
	}
	if used := listing.Percent(a.space.Used, a.space.Size); used >= nearlyFull {
		d.find(healthDegraded, "node %v is full to %d %%", a.node, used)
	}
}

// spaceOf returns how full a node is.
func spaceOf(ctx context.Context, c *remote.Cluster, n sheep.Node) (listing.Space, error) {
	size, free, err := c.Space(ctx, n)
	return listing.Space{Size: size, Used: size - min(free, size), Free: free}, err
}
