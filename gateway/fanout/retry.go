package fanout

import (
	"context"
	"errors"
	"fmt"
	"time"

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
// calls, never the generation. It is the only loop that does.
func (f *Fanout) retry(ctx context.Context, op string, id sheep.ObjectID, try func(*nodes) error) error {
	wait := firstWait
	for {
		changed := f.cluster.Changed()
		v := f.nodes()
		err := v.Serving()
		switch {
		case err == nil:
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
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-timer.C:
			wait = min(2*wait, lastWait)
		case <-ctx.Done():
			err = fmt.Errorf("%s object %v in epoch %d: %w: %v", op, id, v.Epoch, context.Cause(ctx), err)
		}
		timer.Stop()
		if ctx.Err() != nil {
			return err
		}
	}
}

// curable reports whether err may go away with another epoch or connection.
func curable(err error) bool {
	if _, ok := errors.AsType[*sheep.StaleEpochError](err); ok {
		return true
	}
	for _, target := range []error{
		sheep.ErrNetwork, sheep.ErrWaitForJoin, sheep.ErrWaitForFormat, sheep.ErrKilled, sheep.ErrShutdown, sheep.ErrStaleCopy, sheep.ErrAgain,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// worse returns the error that decides: one that waiting cannot cure before
// one that it can, else the first.
func worse(a, b error) error {
	switch {
	case a == nil:
		return b
	case b == nil || !curable(a) || curable(b):
		return a
	}
	return b
}

func worst(errs []error) (err error) {
	for _, e := range errs {
		err = worse(err, e)
	}
	return err
}
