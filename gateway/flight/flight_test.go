package flight_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/gateway/flight"
	"sheepdog/sheep"
)

// A link answers requests as fn says.
type link struct {
	fn func(ctx context.Context, op string, data []byte) error
}

func (l link) Read(ctx context.Context, _ sheep.Ref, p []byte, _ uint32) error {
	return l.fn(ctx, "read", p)
}

func (l link) Write(ctx context.Context, _ sheep.Ref, w *sheep.Write) error {
	return l.fn(ctx, "write", w.Data)
}

func (l link) Remove(ctx context.Context, _ sheep.Ref) error { return l.fn(ctx, "remove", nil) }

func (l link) Flush(ctx context.Context, _ sheep.VDIID) error { return l.fn(ctx, "flush", nil) }

var (
	ref    = sheep.Ref{ID: sheep.DataObject(0x7c2b25, 3), Size: 1 << 22}
	client = sheep.Client{Kind: "nbd", Addr: "10.0.0.9:1234"}
	nodes  = []sheep.Node{
		{Addr: netip.MustParseAddrPort("10.0.0.1:7000")},
		{Addr: netip.MustParseAddrPort("10.0.0.2:7000")},
		{Addr: netip.MustParseAddrPort("10.0.0.3:7000")},
	}
)

// requests are the ways to send one, each with what it does.
func requests(d flight.Door) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"read":   func(ctx context.Context) error { return d.Read(ctx, ref, make([]byte, 8), 0) },
		"write":  func(ctx context.Context) error { return d.Write(ctx, ref, &sheep.Write{Data: []byte("data")}) },
		"remove": func(ctx context.Context) error { return d.Remove(ctx, ref) },
		"flush":  func(ctx context.Context) error { return d.Flush(ctx, ref.ID.VDI()) },
	}
}

func TestWhatARequestWaitsForIsTold(t *testing.T) {
	broken := errors.New("connection refused")
	tests := []struct {
		name  string
		note  func(*flight.Flight)
		state flight.State
		epoch sheep.Epoch
		nodes []sheep.Node
	}{
		{"nothing was noted", func(*flight.Flight) {}, flight.Working, 0, nil},
		{"it waits for the log", func(f *flight.Flight) { f.Waits(flight.Log, 0, nil) }, flight.Log, 0, nil},
		{"it waits for another epoch", func(f *flight.Flight) { f.Waits(flight.Epoch, 7, broken) }, flight.Epoch, 7, nil},
		{"it was sent to the owner", func(f *flight.Flight) { f.AsksOwner(nodes[1]) }, flight.Owner, 0, nodes[1:2]},
		{"one of three copies has answered", func(f *flight.Flight) {
			f.Answered(f.Asks(7, nodes, []int{2, 0, 1}, 0), 0)
		}, flight.Peers, 7, nodes[:2]},
		{"this node's copy is not current", func(f *flight.Flight) {
			turn := f.Asks(7, nodes, []int{0, 1}, 0)
			f.Answered(turn, 1)
		}, flight.Recovery, 7, nodes[:1]},
		{"all have answered", func(f *flight.Flight) { f.Answered(f.Asks(7, nodes, []int{1}, 0), 0) }, flight.Working, 7, nil},
		{"an answer comes late", func(f *flight.Flight) {
			before := f.Asks(6, nodes, []int{1, 2}, 0)
			f.Asks(7, nodes, []int{1}, 0)
			f.Answered(before, 0)
		}, flight.Peers, 7, nodes[1:2]},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				table := flight.NewTable(flight.Config{})
				door := table.NewDoor(link{func(ctx context.Context, _ string, _ []byte) error {
					tt.note(flight.Of(context.WithValue(ctx, t, 0)))
					<-release
					return nil
				}})
				done := make(chan error, 1)
				go func() {
					done <- door.Write(sheep.WithClient(t.Context(), client), ref, &sheep.Write{})
				}()
				time.Sleep(3 * time.Second)
				slow := table.Slow(time.Second)
				if len(slow) != 1 {
					t.Fatalf("%d requests are slow: %+v", len(slow), slow)
				}
				r := slow[0]
				if r.Op != flight.Write || r.ID != ref.ID || r.Age != 3*time.Second || r.Client != client || r.GivenUp {
					t.Errorf("got %+v", r)
				}
				if r.State != tt.state || r.Epoch != tt.epoch || len(r.Nodes) != len(tt.nodes) {
					t.Errorf("it waits for %v %v in epoch %d, want %v %v in %d", r.State, r.Nodes, r.Epoch, tt.state, tt.nodes, tt.epoch)
				}
				seen := map[sheep.Node]bool{}
				for _, n := range r.Nodes {
					seen[n] = true
				}
				for _, n := range tt.nodes {
					if !seen[n] {
						t.Errorf("it does not wait for %v", n)
					}
				}
				close(release)
				if err := <-done; err != nil || len(table.Slow(0)) != 0 {
					t.Errorf("at the end %v, and %+v", err, table.Slow(0))
				}
			})
		})
	}
}

func TestOnlyOldRequestsAreSlowTheOldestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		table := flight.NewTable(flight.Config{})
		door := table.NewDoor(link{func(context.Context, string, []byte) error { <-release; return nil }})
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() { _ = door.Read(t.Context(), ref, nil, 0) })
			time.Sleep(100 * time.Millisecond)
		}
		slow := table.Slow(time.Second)
		if len(slow) != 31 || slow[0].Age != 4*time.Second {
			t.Errorf("%d requests, the first %+v", len(slow), slow[0])
		}
		for i := range slow[1:] {
			if slow[i].Age < slow[i+1].Age {
				t.Errorf("request %d is older than the one before", i+1)
			}
		}
		close(release)
		wg.Wait()
	})
}

func TestNothingIsNotedForRequestsOfNobody(t *testing.T) {
	f := flight.Of(t.Context())
	f.Waits(flight.Line, 1, nil)
	f.AsksOwner(nodes[0])
	f.Answered(f.Asks(1, nodes, []int{0}, 0), 0)
	if f != nil {
		t.Errorf("got %v", f)
	}
}

func TestARequestWithoutADeadlineCostsNoMemory(t *testing.T) {
	table := flight.NewTable(flight.Config{})
	door := table.NewDoor(link{func(ctx context.Context, _ string, _ []byte) error {
		f := flight.Of(ctx)
		f.Answered(f.Asks(1, nodes, []int{0, 1, 2}, 0), 1)
		return nil
	}})
	ctx, w, p := sheep.WithClient(t.Context(), client), &sheep.Write{}, make([]byte, 8)
	if n := testing.AllocsPerRun(500, func() {
		if door.Write(ctx, ref, w) != nil || door.Read(ctx, ref, p, 0) != nil {
			t.Error("failed")
		}
	}); n > 0.5 && !raceEnabled { // the pool loses something at collections
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDoor(b *testing.B) {
	table := flight.NewTable(flight.Config{})
	door := table.NewDoor(link{func(context.Context, string, []byte) error { return nil }})
	b.RunParallel(func(pb *testing.PB) {
		w := new(sheep.Write)
		for pb.Next() {
			_ = door.Write(b.Context(), ref, w)
		}
	})
}
