package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/cluster/clustertest"
)

func TestPlanIsExecutedByItsProposer(t *testing.T) {
	var l clustertest.Log
	nodes := form(t, &l, 2)
	own, err := nodes[1].Own(t.Context(), 5)
	must(t, err)
	vdi := sheep.VDI{ID: 5, Name: "disk", Policy: sheep.Replicated(2), BlockShift: 22}
	nodes[0].execute = func(ctx context.Context, turn *cluster.Turn) ([]byte, []cluster.VDIChange, error) {
		if turn.Kind != 3 || string(turn.Payload) != "payload" || turn.Retry {
			t.Errorf("the turn is %+v", turn)
		}
		must(t, turn.Freeze(ctx, 5, 6))
		o, _ := nodes[0].Owner(5)
		if o.Owner != 1 || o.Draining || !o.Plan || o.Generation != turn.Generation(5) || o.Generation <= own.Generation {
			t.Errorf("frozen VDI is owned as %v", o)
		}
		return []byte("result"), []cluster.VDIChange{{VDI: vdi}}, nil
	}
	got, err := nodes[0].Plan(t.Context(), 3, []byte("payload"))
	if string(got) != "result" || err != nil {
		t.Fatalf("Plan returned %q, %v", got, err)
	}
	must(t, nodes[1].Sync(t.Context()))
	if v, ok := nodes[1].VDI(5); !ok || v != vdi {
		t.Errorf("the other node knows %+v", v)
	}
	if o, ok := nodes[1].Owner(5); ok {
		t.Errorf("after the plan the owner is %v", o)
	}
}

func TestPlanReturnsTheErrorOfItsExecutor(t *testing.T) {
	var l clustertest.Log
	n := form(t, &l, 1)[0]
	n.execute = func(context.Context, *cluster.Turn) ([]byte, []cluster.VDIChange, error) {
		return []byte("anyway"), nil, fmt.Errorf("create: %w", sheep.ErrFullVDI)
	}
	if got, err := n.Plan(t.Context(), 1, nil); !errors.Is(err, sheep.ErrFullVDI) || string(got) != "anyway" {
		t.Errorf("Plan returned %q, %v", got, err)
	}
}

func TestPlanWhoseEndIsRefusedEndsAllTheSame(t *testing.T) {
	var l clustertest.Log
	n := form(t, &l, 1)[0]
	n.execute = func(context.Context, *cluster.Turn) ([]byte, []cluster.VDIChange, error) {
		return nil, []cluster.VDIChange{{VDI: sheep.VDI{ID: 1 << 25}}}, nil
	}
	for range 2 {
		if _, err := n.Plan(t.Context(), 1, nil); !errors.Is(err, sheep.ErrInvalid) {
			t.Errorf("Plan returned %v", err)
		}
	}
	n.execute = func(context.Context, *cluster.Turn) ([]byte, []cluster.VDIChange, error) {
		return make([]byte, cluster.MaxMessage), nil, nil
	}
	if _, err := n.Plan(t.Context(), 1, nil); !errors.Is(err, sheep.ErrInvalid) {
		t.Errorf("Plan with a result that is too long returned %v", err)
	}
}

func TestPlansRunOneAtATime(t *testing.T) {
	var l clustertest.Log
	nodes := form(t, &l, 3)
	var running, most, count int
	var mu sync.Mutex
	execute := func(context.Context, *cluster.Turn) ([]byte, []cluster.VDIChange, error) {
		mu.Lock()
		running++
		count++
		most = max(most, running)
		mu.Unlock()
		time.Sleep(100 * time.Microsecond)
		mu.Lock()
		running--
		mu.Unlock()
		return nil, nil, nil
	}
	var wg sync.WaitGroup
	for _, n := range nodes {
		n.execute = execute
	}
	for _, n := range nodes {
		for range 20 {
			wg.Go(func() {
				if _, err := n.Plan(t.Context(), 1, nil); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if most != 1 || count != 60 {
		t.Errorf("%d plans ran, %d at once", count, most)
	}
}

func TestPlanOfADeadNodeIsFinishedByAnother(t *testing.T) {
	var l clustertest.Log
	nodes := form(t, &l, 2)
	begun := make(chan struct{})
	ended := make(chan error, 1)
	nodes[1].execute = func(ctx context.Context, turn *cluster.Turn) ([]byte, []cluster.VDIChange, error) {
		must(t, turn.Freeze(ctx, 9))
		close(begun)
		<-ctx.Done()
		ended <- turn.Freeze(context.WithoutCancel(ctx), 10)
		return nil, nil, ctx.Err()
	}
	finished := make(chan *cluster.Turn, 1)
	nodes[0].execute = func(ctx context.Context, turn *cluster.Turn) ([]byte, []cluster.VDIChange, error) {
		o, _ := nodes[0].Owner(9)
		if o.Owner != 1 || !o.Plan {
			t.Errorf("what the dead node froze is owned as %v", o)
		}
		finished <- turn
		return nil, nil, nil
	}
	go nodes[1].Plan(t.Context(), 8, nil)
	<-begun
	l.Expel(2, "dead")
	if got := <-finished; got.Kind != 8 || !got.Retry {
		t.Errorf("the other node was given the turn %d %d %t", got.Index, got.Kind, got.Retry)
	}
	if err := <-ended; err == nil {
		t.Error("the node that lost its turn could freeze a VDI")
	}
	if _, err := nodes[0].WaitOwner(t.Context(), 9, func(o cluster.Ownership) bool { return o.Owner == 0 }); err != nil {
		t.Error(err)
	}
}

func TestFreezeWaitsForTheDrain(t *testing.T) {
	var l clustertest.Log
	nodes := form(t, &l, 2)
	nodes[1].drains = false
	own, err := nodes[1].Own(t.Context(), 5)
	must(t, err)
	nodes[0].execute = func(ctx context.Context, turn *cluster.Turn) ([]byte, []cluster.VDIChange, error) {
		return nil, nil, turn.Freeze(ctx, 5)
	}
	done := make(chan error, 1)
	go func() {
		_, err := nodes[0].Plan(t.Context(), 1, nil)
		done <- err
	}()
	_, err = nodes[1].WaitOwner(t.Context(), 5, func(o cluster.Ownership) bool { return o.Plan && o.Draining })
	must(t, err)
	select {
	case err := <-done:
		t.Fatalf("the plan ended before the drain: %v", err)
	default:
	}
	must(t, nodes[1].Drained(t.Context(), 5, own.Generation))
	must(t, <-done)
}
