package tests_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sheepdog/tests/harness"
	"sheepdog/tests/nbdclient"
)

// The disk of the snapshot test is a ring of blocks for each lane. Neighbours
// in a ring lie in different objects.
const (
	lanes     = 16 // over two connections
	ringSize  = 64 // blocks of a lane
	laneBlock = 4096
	objects   = 16
	laneDisk  = objects * 4 << 20
)

// laneOffset returns where write v of a lane goes.
func laneOffset(lane int, v uint64) int64 {
	pos := lane*ringSize + int(v%ringSize)
	return int64(pos%objects)<<22 + int64(pos/objects)*laneBlock
}

// A laneWrite is one of the numbered writes: number v of its lane, issued after
// the writes 1 to seen[k] of each lane k were answered.
type laneWrite struct {
	lane int
	v    uint64
	seen [lanes]uint64
}

func (w laneWrite) encode(b []byte) {
	clear(b)
	binary.LittleEndian.PutUint64(b[8:], uint64(w.lane))
	binary.LittleEndian.PutUint64(b[16:], w.v)
	for i, s := range w.seen {
		binary.LittleEndian.PutUint64(b[24+8*i:], s)
	}
	binary.LittleEndian.PutUint32(b, crc32.ChecksumIEEE(b[8:]))
}

// decodeLane returns the write in b, or version 0 of nothing if b is zero.
func decodeLane(b []byte) (laneWrite, error) {
	w := laneWrite{lane: int(binary.LittleEndian.Uint64(b[8:])), v: binary.LittleEndian.Uint64(b[16:])}
	for i := range w.seen {
		w.seen[i] = binary.LittleEndian.Uint64(b[24+8*i:])
	}
	if w.v != 0 && crc32.ChecksumIEEE(b[8:]) != binary.LittleEndian.Uint32(b) {
		return w, fmt.Errorf("write %d of lane %d is torn", w.v, w.lane)
	}
	return w, nil
}

// A laneLoad writes numbered writes that depend on each other.
type laneLoad struct {
	acked   [lanes]atomic.Uint64
	slowest atomic.Int64
}

// run writes in one lane until stop is closed.
func (l *laneLoad) run(ctx context.Context, stop <-chan struct{}, lane int, dev *nbdclient.Client) error {
	buf := make([]byte, laneBlock)
	for v := uint64(1); ; v++ {
		select {
		case <-stop:
			return nil
		default:
		}
		w := laneWrite{lane: lane, v: v, seen: l.vector()}
		w.encode(buf)
		start := time.Now()
		if err := dev.WriteAt(ctx, buf, laneOffset(lane, v)); err != nil {
			return fmt.Errorf("write %d of lane %d: %w", v, lane, err)
		}
		if d := int64(time.Since(start)); d > l.slowest.Load() {
			l.slowest.Store(d)
		}
		l.acked[lane].Store(v)
	}
}

func (l *laneLoad) vector() (v [lanes]uint64) {
	for i := range v {
		v[i] = l.acked[i].Load()
	}
	return v
}

// checkPrefix checks that the export has, of every lane, all writes up to some
// number, that every write has all that it depends on, and that the writes of
// before are among them and none later than after.
func checkPrefix(ctx context.Context, dev *nbdclient.Client, before, after [lanes]uint64) error {
	var last [lanes]uint64
	var all []laneWrite
	buf := make([]byte, laneBlock)
	for lane := range lanes {
		ring := make([]uint64, ringSize)
		for i := range ring {
			if err := dev.ReadAt(ctx, buf, laneOffset(lane, uint64(i))); err != nil {
				return err
			}
			w, err := decodeLane(buf)
			if err != nil {
				return err
			}
			ring[i] = w.v
			last[lane] = max(last[lane], w.v)
			all = append(all, w)
		}
		for v := last[lane]; v > 0 && v+ringSize > last[lane]; v-- {
			if got := ring[v%ringSize]; got != v {
				return fmt.Errorf("lane %d has write %d, but in the place of write %d is %d", lane, last[lane], v, got)
			}
		}
	}
	for lane := range lanes {
		if last[lane] < before[lane] || last[lane] > after[lane]+1 {
			return fmt.Errorf("lane %d ends at write %d; %d were answered before the snapshot began, %d before it ended",
				lane, last[lane], before[lane], after[lane])
		}
	}
	for _, w := range all {
		for k, seen := range w.seen {
			if last[k] < seen {
				return fmt.Errorf("write %d of lane %d is there, which was made after write %d of lane %d was answered, but of that lane only %d are",
					w.v, w.lane, seen, k, last[k])
			}
		}
	}
	return nil
}

// waitWrites waits until lane 0 has made n more writes.
func waitWrites(t *testing.T, c *harness.Cluster, l *laneLoad, n uint64) {
	t.Helper()
	want := l.acked[0].Load() + n
	c.Until("some writes", func(context.Context) error {
		if got := l.acked[0].Load(); got < want {
			return fmt.Errorf("%d writes, want %d", got, want)
		}
		return nil
	})
}

// TestSnapshotUnderLoadIsOnePointInTime takes snapshots while two NBD
// connections write, and finds in each a prefix of what was written.
func TestSnapshotUnderLoadIsOnePointInTime(t *testing.T) {
	c := nbdCluster(t, 3, 3)
	c.Dog("vdi", "create", "vol", strconv.Itoa(laneDisk))
	var load laneLoad
	stop := make(chan struct{})
	errs := make(chan error, lanes)
	var wg sync.WaitGroup
	for i := range 2 {
		dev := dialNBD(t, c.Nodes[0], "vol")
		for lane := i * lanes / 2; lane < (i+1)*lanes/2; lane++ {
			wg.Go(func() { errs <- load.run(t.Context(), stop, lane, dev) })
		}
	}
	type snapshot struct{ before, after [lanes]uint64 }
	var taken []snapshot
	for i := range 5 {
		waitWrites(t, c, &load, 200)
		before := load.vector()
		c.DogAt(c.Nodes[i%3], nil, "vdi", "snapshot", "-s", fmt.Sprint("s", i), "vol")
		taken = append(taken, snapshot{before, load.vector()})
	}
	close(stop)
	wg.Wait()
	for range lanes {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for i, s := range taken {
		dev := dialNBD(t, c.Nodes[1], fmt.Sprint("vol@s", i))
		if dev.Flags()&nbdclient.FlagReadOnly == 0 {
			t.Error("a snapshot is not read-only")
		}
		if err := checkPrefix(t.Context(), dev, s.before, s.after); err != nil {
			t.Errorf("snapshot %d: %v", i, err)
		}
	}
	slowest := time.Duration(load.slowest.Load())
	t.Logf("%d writes of lane 0, the slowest of all lanes took %v", load.acked[0].Load(), slowest)
	if slowest > time.Second && !harness.Race() {
		t.Errorf("a write took %v, want less than a second", slowest)
	}
	c.Check("vol")
}
