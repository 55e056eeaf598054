package fanout_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"sheepdog/gateway/flight"
	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
)

func TestWhoeverHasNotAnsweredIsTold(t *testing.T) {
	for op, request := range map[string]func(flight.Door, context.Context) error{
		"write": func(d flight.Door, ctx context.Context) error {
			return d.Write(ctx, ref, &sheep.Write{Data: []byte("a")})
		},
		"flush": func(d flight.Door, ctx context.Context) error { return d.Flush(ctx, vid) },
	} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(3)
				table := flight.NewTable(flight.Config{})
				slow := f.nodes[1]
				slow.hold = make(chan struct{})
				done := make(chan error, 1)
				go func() { done <- request(table.NewDoor(f.Fanout), t.Context()) }()
				synctest.Wait()
				rs := table.Slow(0)
				if len(rs) != 1 || rs[0].State != flight.Peers || rs[0].Epoch != 1 || len(rs[0].Nodes) != 1 || rs[0].Nodes[0] != slow.node {
					t.Errorf("in flight: %+v, want it to wait for %v in epoch 1", rs, slow.node)
				}
				close(slow.hold)
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A write that waits for the cluster to serve has not begun: it ends with whoever
// waits for it. One that copies may have does not.
func TestOnlyWhatHasNotBegunEndsWithItsCaller(t *testing.T) {
	gone := errors.New("the caller has gone")
	for _, begun := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(3)
			table := flight.NewTable(flight.Config{})
			if begun {
				f.nodes[1].fail = sheep.ErrNetwork
			} else {
				f.next(func(v *cluster.View) { v.Status = cluster.Wait })
			}
			caller, leave := context.WithCancelCause(t.Context())
			done := make(chan error, 1)
			go func() {
				done <- table.NewDoor(f.Fanout).Write(sheep.WithCaller(t.Context(), caller), ref, &sheep.Write{Data: []byte("a")})
			}()
			synctest.Wait()
			if rs := table.Slow(0); len(rs) != 1 || rs[0].State != flight.Epoch || rs[0].Reason == nil {
				t.Errorf("begun %v: in flight %+v", begun, rs)
			}
			leave(gone)
			synctest.Wait()
			select {
			case err := <-done:
				if begun || !errors.Is(err, gone) {
					t.Errorf("begun %v: it ended with %v", begun, err)
				}
				return
			default:
			}
			if !begun {
				t.Error("it goes on though it has not begun")
			}
			f.mu.Lock()
			f.nodes[1].fail = nil
			f.mu.Unlock()
			f.next(nil)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
