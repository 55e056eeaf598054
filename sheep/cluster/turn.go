package cluster

import (
	"context"
	"fmt"
	"sync"

	"sheepdog/sheep"
)

var errTurnOver = fmt.Errorf("%w: the turn is over", sheep.ErrStaleOwner)

// A Turn is an executor's right to run one plan.
type Turn struct {
	Index   uint64 // of the plan's entry; names the plan
	Kind    uint8
	Payload []byte
	Retry   bool // another node has run an unknown part of the plan

	freeze func(ctx context.Context, vids []sheep.VDIID) (sheep.Generation, error)

	mu          sync.Mutex
	generations map[sheep.VDIID]sheep.Generation // guarded by mu
}

// NewTurn returns a turn whose Freeze calls freeze. Tests of executors use it.
func NewTurn(index uint64, kind uint8, payload []byte, retry bool,
	freeze func(ctx context.Context, vids []sheep.VDIID) (sheep.Generation, error)) *Turn {
	return &Turn{
		Index: index, Kind: kind, Payload: payload, Retry: retry,
		freeze:      freeze,
		generations: map[sheep.VDIID]sheep.Generation{},
	}
}

// Freeze takes the ownership of VDIs for this node until the plan ends, and
// returns when the gateways that owned them have drained or left. The VDIs
// need not exist. This node's own gateway is drained like any other.
func (t *Turn) Freeze(ctx context.Context, vids ...sheep.VDIID) error {
	if len(vids) == 0 {
		return nil
	}
	gen, err := t.freeze(ctx, vids)
	if err != nil {
		return fmt.Errorf("freeze %v for plan %d: %w", vids, t.Index, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, vid := range vids {
		t.generations[vid] = gen
	}
	return nil
}

// Generation returns the generation that the turn's writes to a frozen VDI
// carry, or 0 if the turn has not frozen it.
func (t *Turn) Generation(vid sheep.VDIID) sheep.Generation {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.generations[vid]
}

// A running turn is one that this node executes.
type running struct {
	index  uint64
	cancel context.CancelCauseFunc
}

// Plan logs a plan, waits until it has its turn and is executed, and returns
// what its executor returned: this node's, unless it lost its turn. If ctx ends
// before, the plan may still be executed. A plan that is open when all members
// die is finished when the cluster is back, provided that the driver's log has
// lived on.
func (c *Cluster) Plan(ctx context.Context, kind uint8, payload []byte) ([]byte, error) {
	done := make(chan outcome, 1)
	seq := c.seq.Add(1)
	data := appendMessage(nil, seq, planMsg{kind, payload})
	if len(data) > MaxMessage {
		return nil, fmt.Errorf("%w: a plan of %d bytes", sheep.ErrInvalid, len(payload))
	}
	if err := c.await(seq, done); err != nil {
		return nil, err
	}
	if err := c.cfg.Driver.Propose(ctx, data); err != nil {
		c.forget(seq)
		return nil, err
	}
	select {
	case out := <-done:
		return out.result, out.err
	case <-ctx.Done():
		c.forget(seq)
		return nil, context.Cause(ctx)
	}
}

// keepError remembers the error of a plan that this node executes: if the plan
// is also its own, the caller gets the error itself and not just its text.
func (c *Cluster) keepError(index uint64, err error) {
	c.waitMu.Lock()
	defer c.waitMu.Unlock()
	if err != nil {
		c.failed[index] = err
	}
}

// startTurn runs the open plan if this node is its executor. A turn that this
// node had before is over.
func (c *Cluster) startTurn(t *turn) {
	a := &c.applying
	if a.turn != nil {
		a.turn.cancel(errTurnOver)
		a.turn = nil
	}
	if t.executor != c.inc {
		return
	}
	ctx, cancel := context.WithCancelCause(a.ctx)
	a.turn = &running{t.index, cancel}
	a.wg.Go(func() {
		defer cancel(nil)
		c.execute(ctx, NewTurn(t.index, t.kind, t.payload, t.retry,
			func(fctx context.Context, vids []sheep.VDIID) (sheep.Generation, error) {
				return c.freeze(fctx, t.index, vids)
			}))
	})
}

// endTurn ends the turn of a plan that is done.
func (c *Cluster) endTurn(index uint64) {
	if a := &c.applying; a.turn != nil && a.turn.index == index {
		a.turn.cancel(errTurnOver)
		a.turn = nil
	}
}

// execute runs a plan and logs its end.
func (c *Cluster) execute(ctx context.Context, t *Turn) {
	result, changes, err := c.cfg.Executor.Execute(ctx, t)
	if ctx.Err() != nil {
		return
	}
	c.keepError(t.Index, err)
	msg := doneMsg{plan: t.Index, result: result, changes: changes}
	if err != nil {
		msg.fail = failText(err)
	}
	_, perr := c.propose(ctx, msg)
	if perr == nil || ctx.Err() != nil {
		return
	}
	// The log refused the end as it was; without an end no plan would ever run again.
	c.keepError(t.Index, perr)
	if _, perr := c.propose(ctx, doneMsg{plan: t.Index, fail: failText(perr)}); perr != nil && ctx.Err() == nil {
		c.log.Error("log the end of a plan", "plan", t.Index, "err", perr)
	}
}

// failText returns what the log keeps of an error.
func failText(err error) string {
	s := err.Error()
	if s == "" {
		s = "unknown error"
	}
	return s[:min(len(s), 1000)]
}

// freeze takes VDIs for the plan and waits until nobody else writes them.
func (c *Cluster) freeze(ctx context.Context, plan uint64, vids []sheep.VDIID) (sheep.Generation, error) {
	out, err := c.propose(ctx, freezeMsg{plan, vids})
	if err != nil {
		return 0, err
	}
	gen := sheep.Generation(out.index)
	for _, vid := range vids {
		o, err := c.WaitOwner(ctx, vid, func(o Ownership) bool { return !o.Draining || o.Generation != gen })
		if err != nil {
			return 0, err
		}
		if o.Generation != gen {
			return 0, errTurnOver
		}
	}
	return gen, nil
}
