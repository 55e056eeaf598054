package fakesheep_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"sheepdog/cmd/dog/internal/fakesheep"
	"sheepdog/sheep"
	"sheepdog/sheep/placement"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// connect returns the cluster that c plays.
func connect(t *testing.T, c *fakesheep.Cluster) *remote.Cluster {
	t.Helper()
	cluster := remote.New(c.Dial, "127.0.0.1:7000", func(e *remote.ConnectError) { t.Logf("reported: %v", e) })
	t.Cleanup(func() { cluster.Close() })
	return cluster
}

func TestOrderedKeepsTheOrder(t *testing.T) {
	gates := make([]chan bool, 20)
	for i := range gates {
		gates[i] = make(chan bool)
	}
	go func() {
		for _, gate := range slices.Backward(gates[:4]) {
			close(gate)
		}
		for _, gate := range gates[4:] {
			close(gate)
		}
	}()
	var got []int
	for v := range remote.Ordered(slices.Values(gates), 4, func(gate chan bool) int {
		<-gate
		return slices.Index(gates, gate)
	}) {
		got = append(got, v)
	}
	if !slices.IsSorted(got) || len(got) != len(gates) {
		t.Errorf("got %v", got)
	}
}

func TestOrderedStopsWithTheLoop(t *testing.T) {
	var calls, running atomic.Int32
	for v := range remote.Ordered(slices.Values(make([]int, 100)), 4, func(v int) int {
		running.Add(1)
		defer running.Add(-1)
		calls.Add(1)
		return v
	}) {
		_ = v
		break
	}
	if n := calls.Load(); n > 8 {
		t.Errorf("%d calls were made for a loop of one", n)
	}
	if n := running.Load(); n != 0 {
		t.Errorf("%d calls outlived the loop", n)
	}
}

func TestOrderedBoundsWhatRuns(t *testing.T) {
	var running, most atomic.Int32
	for range remote.Ordered(slices.Values(make([]int, 100)), 3, func(int) int {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		return 0
	}) {
	}
	if most.Load() > 3 {
		t.Errorf("%d calls ran at once, want at most 3", most.Load())
	}
}

func TestSlots(t *testing.T) {
	for _, test := range []struct {
		name  string
		size  uint64
		shift uint8
		want  int
		fails bool
	}{
		{"an empty VDI", 0, 22, 0, false},
		{"one byte needs an object", 1, 22, 1, false},
		{"a whole object", 4 << 20, 22, 1, false},
		{"one byte more", 4<<20 + 1, 22, 2, false},
		{"the largest VDI", 4 << 40, 22, 1 << 20, false},
		{"a larger one", 4<<40 + 1, 22, 0, true},
		{"the largest number", 1<<64 - 1, 31, 0, true},
		{"a block size shift that is too small", 1, 19, 0, true},
		{"a block size shift that is too large", 1, 32, 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := remote.Slots(&proto.InodeHeader{Size: test.size, BlockShift: test.shift})
			if got != test.want || (err != nil) != test.fails {
				t.Errorf("got %d, %v", got, err)
			}
		})
	}
}

func TestText(t *testing.T) {
	refused := &remote.ConnectError{Addr: "127.0.0.1:7000", Err: fmt.Errorf("dial: %w", syscall.ECONNREFUSED)}
	for _, test := range []struct {
		err  error
		want string
	}{
		{&remote.ResultError{Result: proto.ResultNoVDI}, "No VDI found"},
		{fmt.Errorf("lookup: %w", &remote.ResultError{Result: 0x1234}), "Invalid error code 1234"},
		{refused, "I/O error"},
		{fmt.Errorf("read: %w", sheep.ErrNetwork), "I/O error"},
		{errors.New("something else"), "something else"},
	} {
		if got := remote.Text(test.err); got != test.want {
			t.Errorf("Text(%v) = %q, want %q", test.err, got, test.want)
		}
	}
	if got, want := refused.Error(), "failed to connect to 127.0.0.1:7000: Connection refused"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestResultErrorsMatchTheirConditions(t *testing.T) {
	cluster := connect(t, fakesheep.Formatted(1, 1, 0))
	_, err := cluster.Lookup(t.Context(), "nosuch", remote.Version{})
	if !errors.Is(err, sheep.ErrNoVDI) || remote.Result(err) != proto.ResultNoVDI {
		t.Errorf("got %v, want %v", err, sheep.ErrNoVDI)
	}
}

func TestEpochsWithTooFewSlots(t *testing.T) {
	c := fakesheep.Formatted(5, 2, 0)
	epochs, state, err := connect(t, c).Epochs(t.Context(), 1, 1)
	if err != nil || state != nil || len(epochs) != 1 || len(epochs[0].Nodes) != 5 {
		t.Errorf("got %v, %v, %v, want one epoch of five nodes", epochs, state, err)
	}
}

func TestConnectionIsTriedTwice(t *testing.T) {
	c := fakesheep.New(0)
	reported := 0
	cluster := remote.New(c.Dial, "127.0.0.1:7000", func(*remote.ConnectError) { reported++ })
	for range 3 {
		if _, err := cluster.Membership(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v, want %v", err, syscall.ECONNREFUSED)
		}
	}
	if reported != 2 {
		t.Errorf("%d failures were reported, want 2", reported)
	}
}

// hyper makes a hyper volume whose root has the given bytes.
func hyper(t *testing.T, cluster *remote.Cluster, root proto.BTreeNode) *proto.InodeHeader {
	t.Helper()
	ctx := t.Context()
	id, err := cluster.NewVDI(ctx, "hyper", proto.VDIBody{Size: 1 << 50, StorePolicy: proto.StoreHyper})
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Write(ctx, sheep.InodeObject(id), root.Append(nil), proto.MapOffset, 0); err != nil {
		t.Fatal(err)
	}
	h, err := cluster.Header(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHyperVolumes(t *testing.T) {
	entries := []proto.BTreeEntry{{Index: 3, VDI: 7}, {Index: 5, VDI: 8}, {Index: 1 << 28, VDI: 7}}
	t.Run("a small tree is one leaf", func(t *testing.T) {
		cluster := connect(t, fakesheep.Formatted(1, 1, 0))
		h := hyper(t, cluster, proto.BTreeNode{Depth: proto.BTreeLeafDepth, Entries: entries})
		got, err := cluster.Allocated(t.Context(), h)
		if err != nil || !slices.Equal(got, entries) {
			t.Errorf("got %v, %v, want %v", got, err, entries)
		}
	})
	t.Run("a larger one has leaves of its own", func(t *testing.T) {
		cluster := connect(t, fakesheep.Formatted(1, 1, 0))
		vid := placement.HashName("hyper")
		first, second := sheep.BTreeObject(vid, 0), sheep.BTreeObject(vid, 1)
		for id, part := range map[sheep.ObjectID][]proto.BTreeEntry{first: entries[:2], second: entries[2:]} {
			leaf := proto.BTreeNode{Depth: proto.BTreeLeafDepth, Entries: part}
			if err := cluster.Create(t.Context(), id, 0, leaf.Append(nil), 0, 0); err != nil {
				t.Fatal(err)
			}
		}
		h := hyper(t, cluster, proto.BTreeNode{Depth: proto.BTreeRootDepth, Children: []proto.BTreeChild{{Last: 5, ID: first}, {Last: 1 << 28, ID: second}}})
		got, err := cluster.Allocated(t.Context(), h)
		if err != nil || !slices.Equal(got, entries) {
			t.Errorf("got %v, %v, want %v", got, err, entries)
		}
	})
	t.Run("a root that is its own child is refused", func(t *testing.T) {
		cluster := connect(t, fakesheep.Formatted(1, 1, 0))
		leaf := sheep.BTreeObject(placement.HashName("hyper"), 0)
		root := proto.BTreeNode{Depth: proto.BTreeRootDepth, Children: []proto.BTreeChild{{Last: 5, ID: leaf}}}
		if err := cluster.Create(t.Context(), leaf, 0, root.Append(nil), 0, 0); err != nil {
			t.Fatal(err)
		}
		if got, err := cluster.Allocated(t.Context(), hyper(t, cluster, root)); !errors.Is(err, sheep.ErrIO) {
			t.Errorf("got %v, %v, want %v", got, err, sheep.ErrIO)
		}
	})
	t.Run("garbage is refused", func(t *testing.T) {
		cluster := connect(t, fakesheep.Formatted(1, 1, 0))
		h := hyper(t, cluster, proto.BTreeNode{Depth: proto.BTreeLeafDepth})
		garbage := binary.LittleEndian.AppendUint64(nil, 0xdeadbeef)
		if err := cluster.Write(t.Context(), sheep.InodeObject(h.VDI), garbage, proto.MapOffset, 0); err != nil {
			t.Fatal(err)
		}
		if got, err := cluster.Allocated(t.Context(), h); !errors.Is(err, sheep.ErrIO) {
			t.Errorf("got %v, %v, want %v", got, err, sheep.ErrIO)
		}
	})
}
