package fanout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sheepdog/gateway/flight"
	"sheepdog/sheep"
)

// Waits between tries against nodes that do not answer, unless the membership
// changes before.
const (
	firstWait = 10 * time.Millisecond
	lastWait  = time.Second
)

// retry calls try with the current view until it succeeds or fails for a
// reason that the next epoch cannot cure. It refreshes the epoch between the
// calls, never the generation. It is the only loop that does. Before the first call
// it ends with whoever waits for the request.
func (f *Fanout) retry(ctx context.Context, op string, id sheep.ObjectID, try func(*nodes) error) error {
	wait, begun := firstWait, false
	for {
		changed := f.cluster.Changed()
		v := f.nodes()
		err := v.Serving()
		switch {
		case err == nil:
			begun = true
			err = try(v)
		case errors.Is(err, sheep.ErrShutdown), errors.Is(err, sheep.ErrKilled):
			return fmt.Errorf("%s object %v: %w", op, id, err) // this node ends: nothing will cure that
		}
		if err == nil || !curable(err) {
			return err
		}
		if f.cluster.View() != v.View {
			continue // already cured, perhaps
		}
		f.log.Debug("waiting for the next epoch", "op", op, "oid", id, "epoch", v.Epoch, "err", err)
		flight.Of(ctx).Waits(flight.Epoch, v.Epoch, err)
		patient := ctx
		if !begun {
			patient = sheep.Caller(ctx)
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
			wait = min(2*wait, lastWait)
		case <-patient.Done():
		}
		timer.Stop()
		if patient.Err() != nil { // which matters more than the reason to wait
			return fmt.Errorf("%s object %v in epoch %d: %w: %v", op, id, v.Epoch, context.Cause(patient), err)
		}
	}
}

// curable reports whether err may go away with another epoch or connection.
func curable(err error) bool {
	_, stale := errors.AsType[*sheep.StaleEpochError](err)
	return stale || sheep.IsAny(err, sheep.ErrStaleCopy, sheep.ErrAgain,
		sheep.ErrNetwork, sheep.ErrWaitForJoin, sheep.ErrWaitForFormat, sheep.ErrKilled, sheep.ErrShutdown)
}

// worse returns the error that decides, the first of equals. That the ownership
// has moved on is final. Otherwise an error that another try may cure comes
// before one that waiting cannot: so a request ends in an error only when every
// copy has taken or refused it, and those that refused know that they may
// differ from the others.
func worse(a, b error) error {
	if weight(b) > weight(a) {
		return b
	}
	return a
}

func weight(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, sheep.ErrStaleOwner):
		return 3
	case curable(err):
		return 2
	}
	return 1
}

func worst(errs []error) (err error) {
	for _, e := range errs {
		err = worse(err, e)
	}
	return err
}
