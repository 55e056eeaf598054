package flight_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/gateway/flight"
	"sheepdog/sheep"
)

const deadline = 5 * time.Second

// limited returns a door to next whose clients wait for so long, and what is
// logged.
func limited(t *testing.T, next link) (*flight.Table, flight.Door, *bytes.Buffer) {
	var log bytes.Buffer
	table := flight.NewTable(flight.Config{
		Deadline: func(sheep.VDIID) time.Duration { return deadline },
		Log:      slog.New(slog.NewTextHandler(&log, nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- table.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return table, table.NewDoor(next), &log
}

// What has not begun is given up with its client.
func TestARequestThatWaitsEndsAtItsDeadline(t *testing.T) {
	for op := range requests(flight.Door{}) {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table, door, log := limited(t, link{func(ctx context.Context, _ string, _ []byte) error {
					flight.Of(ctx).AsksOwner(nodes[2])
					caller := sheep.Caller(ctx)
					<-caller.Done()
					return context.Cause(caller)
				}})
				begin := time.Now()
				err := requests(door)[op](sheep.WithClient(t.Context(), client))
				took := time.Since(begin)
				e, ok := errors.AsType[*flight.DeadlineError](err)
				if !ok || !errors.Is(err, sheep.ErrIO) || e.Request.State != flight.Owner {
					t.Errorf("got %v", err)
				}
				if took < deadline || took > deadline+time.Second {
					t.Errorf("it took %v", took)
				}
				synctest.Wait()
				if left := table.Slow(0); len(left) != 0 {
					t.Errorf("still there: %+v", left)
				}
				for _, want := range []string{"7c2b25", "10.0.0.3:7000", "op=" + op, "10.0.0.9:1234"} {
					if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), want) {
						t.Errorf("the log has not one line with %q:\n%s", want, log)
					}
				}
			})
		})
	}
}

// What copies may have taken in part goes on, with the bytes that were to be
// written, and nothing of the caller.
func TestAWriteThatHasBegunOutlivesItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, written := make(chan struct{}), make(chan string, 1)
		table, door, _ := limited(t, link{func(ctx context.Context, _ string, data []byte) error {
			turn := flight.Of(ctx).Asks(7, nodes, []int{0, 1}, 0)
			flight.Of(ctx).Answered(turn, 0)
			<-release
			written <- fmt.Sprint(string(data), ctx.Err())
			return nil
		}})
		data := []byte("as it was")
		err := door.Write(sheep.WithClient(t.Context(), client), ref, &sheep.Write{Data: data})
		if want := "write object 007c2b2500000003: given up after 5s, waiting for: peer 10.0.0.2:7000 in epoch 7"; err == nil || err.Error() != want {
			t.Errorf("got %v, want %v", err, want)
		}
		copy(data, "used again")
		if on := table.Slow(deadline); len(on) != 1 || !on[0].GivenUp {
			t.Errorf("in flight: %+v", on)
		}
		close(release)
		if got := <-written; got != "as it was<nil>" {
			t.Errorf("written %q", got)
		}
		synctest.Wait()
		if left := table.Slow(0); len(left) != 0 {
			t.Errorf("still there: %+v", left)
		}
	})
}

func TestWhatEndsInTimeHasItsOwnOutcome(t *testing.T) {
	for op := range requests(flight.Door{}) {
		for _, want := range []error{nil, sheep.ErrNoObject} {
			synctest.Test(t, func(t *testing.T) {
				_, door, log := limited(t, link{func(context.Context, string, []byte) error {
					time.Sleep(deadline - time.Millisecond)
					return want
				}})
				if err := requests(door)[op](sheep.WithClient(t.Context(), client)); !errors.Is(err, want) || log.Len() > 0 {
					t.Errorf("%s: got %v, want %v; logged %s", op, err, want, log)
				}
			})
		}
	}
}

func TestWhoHasNoClientHasNoDeadline(t *testing.T) {
	for op := range requests(flight.Door{}) {
		synctest.Test(t, func(t *testing.T) {
			_, door, _ := limited(t, link{func(ctx context.Context, _ string, _ []byte) error {
				time.Sleep(time.Hour)
				return ctx.Err()
			}})
			if err := requests(door)[op](t.Context()); err != nil {
				t.Errorf("%s: %v", op, err)
			}
		})
	}
}

// A client that does not stop trying must not fill the memory with writes that
// go on without it.
func TestWritesThatWereGivenUpAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		_, door, _ := limited(t, link{func(context.Context, string, []byte) error { <-release; return nil }})
		write := func(id sheep.ObjectID) time.Duration {
			begin := time.Now()
			if err := door.Write(sheep.WithClient(t.Context(), client), sheep.Ref{ID: id}, &sheep.Write{Data: make([]byte, 8<<20)}); !errors.Is(err, sheep.ErrIO) {
				t.Errorf("got %v", err)
			}
			return time.Since(begin)
		}
		for range 8 {
			if d := write(ref.ID); d < deadline {
				t.Fatalf("given up after %v", d)
			}
		}
		if d := write(ref.ID); d != 0 {
			t.Errorf("one more than there is room for waited %v", d)
		}
		if d := write(sheep.DataObject(1, 1)); d < deadline {
			t.Errorf("one to another VDI was given up after %v", d)
		}
		close(release)
		synctest.Wait()
		if err := door.Write(sheep.WithClient(t.Context(), client), ref, new(sheep.Write)); err != nil {
			t.Errorf("when all is done: %v", err)
		}
	})
}
