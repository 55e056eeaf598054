package local_test

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/cluster"
	"sheepdog/sheep/cluster/local"
)

// A daemon is a node whose store remembers just the epochs.
type daemon struct {
	addr netip.AddrPort

	mu      sync.Mutex
	history cluster.History // guarded by mu

	*cluster.Cluster
	cancel context.CancelFunc
	done   chan error
}

type hooks struct{ *daemon }

func (d hooks) Install(v *cluster.View, epochChanged bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if epochChanged {
		d.history = cluster.History{Epoch: v.Epoch, Nodes: v.Nodes, Time: v.EpochTime, Settings: v.Settings}
	}
	return nil
}

func (d hooks) Format(cluster.Settings) error                               { return nil }
func (d hooks) Ownership(sheep.VDIID, cluster.Ownership, cluster.Ownership) {}

func (d hooks) Stop(reason error) {
	if errors.Is(reason, sheep.ErrShutdown) {
		d.cancel()
	}
}

func (d hooks) Execute(context.Context, *cluster.Turn) ([]byte, []cluster.VDIChange, error) {
	return nil, nil, nil
}

// start starts the daemon, in a new life.
func (d *daemon) start(path string) {
	d.mu.Lock()
	history := d.history
	d.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel, d.done = cancel, make(chan error, 1)
	d.Cluster = cluster.New(cluster.Config{
		Node:     sheep.Node{Addr: d.addr, VNodes: 128, Zone: sheep.ZoneID(d.addr.Port()), Space: 1 << 40},
		History:  history,
		Driver:   local.New(path, local.Config{}),
		Hooks:    hooks{d},
		Executor: hooks{d},
	})
	c, done := d.Cluster, d.done
	go func() { done <- c.Run(ctx) }()
}

func daemons(path string, count int) []*daemon {
	var ds []*daemon
	for i := range count {
		d := &daemon{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(7000+i))}
		d.start(path)
		ds = append(ds, d)
	}
	return ds
}

func (d *daemon) wait(t *testing.T, what string, ok func(*cluster.View) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := d.Wait(ctx, ok); err != nil {
		t.Fatalf("%v waits for %s: %v; view %+v", d.addr, what, err, d.View())
	}
}

func running(epoch sheep.Epoch) func(*cluster.View) bool {
	return func(v *cluster.View) bool { return v.Status == cluster.OK && v.Epoch == epoch }
}

// TestClusterShutsDownAndStartsInAnyOrder restarts daemons in another order than
// they were started, some before the last of the old ones has gone.
func TestClusterShutsDownAndStartsInAnyOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	ds := daemons(path, 3)
	for _, d := range ds {
		d.wait(t, "members", func(v *cluster.View) bool { return len(v.Members) == 3 })
	}
	settings := cluster.Settings{Ctime: 5, Copies: 2, BlockShift: 22, Flags: cluster.FlagAutoVNode, Store: "plain"}
	if err := ds[1].Format(t.Context(), settings); err != nil {
		t.Fatal(err)
	}
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
		for _, d := range ds {
			d.wait(t, "service", running(1))
		}
		if err := ds[order[2]].Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, i := range order {
			if err := <-ds[i].done; err != nil {
				t.Errorf("Run returned %v", err)
			}
			ds[i].start(path)
		}
	}
	for _, d := range ds {
		d.wait(t, "service", running(1))
	}
	// One leaves and comes back: an epoch each.
	ds[0].cancel()
	if err := <-ds[0].done; err != nil {
		t.Errorf("Run returned %v", err)
	}
	ds[1].wait(t, "the epoch without it", running(2))
	ds[0].start(path)
	for _, d := range ds {
		d.wait(t, "the epoch with it", running(3))
	}
	for _, d := range ds {
		d.cancel()
		<-d.done
	}
}

func TestSecondProcessWithTheSameAddressIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	first := daemons(path, 1)[0]
	first.wait(t, "membership", func(v *cluster.View) bool { return v.Joined })
	second := daemons(path, 1)[0]
	if err := <-second.done; !errors.Is(err, sheep.ErrInvalid) {
		t.Errorf("Run of the second returned %v", err)
	}
	first.cancel()
	<-first.done
	third := daemons(path, 1)[0]
	third.wait(t, "membership", func(v *cluster.View) bool { return v.Joined })
	third.cancel()
	<-third.done
}

func BenchmarkOwn(b *testing.B) {
	d := daemons(filepath.Join(b.TempDir(), "c"), 1)[0]
	settings := cluster.Settings{Ctime: 5, Copies: 2, BlockShift: 22, Flags: cluster.FlagAutoVNode, Store: "plain"}
	for d.Format(b.Context(), settings) != nil {
		<-d.Changed()
	}
	for b.Loop() {
		if _, err := d.Own(b.Context(), 7); err != nil {
			b.Fatal(err)
		}
	}
	d.cancel()
	<-d.done
}

func BenchmarkSync(b *testing.B) {
	d := daemons(filepath.Join(b.TempDir(), "c"), 1)[0]
	for !d.View().Joined {
		<-d.Changed()
	}
	for b.Loop() {
		if err := d.Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	d.cancel()
	<-d.done
}
