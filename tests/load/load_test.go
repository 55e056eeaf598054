package load_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/tests/load"
)

const size = 64 * load.BlockSize

// A memory is a disk that can break its promises.
type memory struct {
	mu      sync.Mutex
	data    []byte
	flushed []byte
	after   func(m *memory, off int64) // called after each write, with the lock
	flush   error
}

func newMemory() *memory { return &memory{data: make([]byte, size), flushed: make([]byte, size)} }

func (m *memory) Size() int64 { return size }

func (m *memory) ReadAt(_ context.Context, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(p, m.data[off:])
	return nil
}

func (m *memory) WriteAt(_ context.Context, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.data[off:], p)
	if m.after != nil {
		m.after(m, off)
	}
	return nil
}

func (m *memory) Flush(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flush == nil {
		copy(m.flushed, m.data)
	}
	return m.flush
}

// stopAfter returns a device that closes stop after n writes to m.
func stopAfter(m *memory, n int) <-chan struct{} {
	stop := make(chan struct{})
	next := m.after
	m.after = func(m *memory, off int64) {
		if next != nil {
			next(m, off)
		}
		if n--; n == 0 {
			close(stop)
		}
	}
	return stop
}

func TestAHealthyDiskPasses(t *testing.T) {
	for _, every := range []int{0, 5} {
		m := newMemory()
		l := load.New(load.Config{Seed: 1, FlushEvery: every}, size)
		if err := l.Run(t.Context(), stopAfter(m, 500), m); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := l.Verify(t.Context(), m, false); err != nil {
				t.Error(err)
			}
		}
		m.data = m.flushed
		if err := l.Verify(t.Context(), m, every != 0); every != 0 && err != nil {
			t.Errorf("after a loss of power: %v", err)
		}
	}
}

func TestBrokenPromisesAreFound(t *testing.T) {
	old := make(map[int64][]byte)
	tests := []struct {
		name  string
		every int
		after func(m *memory, off int64) // a write
		spoil func(m *memory)            // before the verification
		lost  bool
		want  string
	}{
		{"a lost write", 0, nil, func(m *memory) { clear(m.data[:load.BlockSize]) }, false, "block 0: version 0, want"},
		{"a flipped bit", 0, nil, func(m *memory) { m.data[load.BlockSize+100] ^= 1 }, false, "block 1: torn"},
		{"a block in another's place", 0, nil, func(m *memory) { copy(m.data, m.data[load.BlockSize:2*load.BlockSize]) }, false, "block 0 of load 1: holds block 1 of load 1"},
		{"rubbish", 0, nil, func(m *memory) { m.data[0] ^= 1 }, false, "block 0: no block of a load"},
		{"a flushed write lost with the power", 5, nil, func(m *memory) { clear(m.data) }, true, "want"},
		{"an unflushed write lost without a loss of power", 1000, nil, func(m *memory) { clear(m.data) }, false, "want"},
		{"an old version", 0, func(m *memory, off int64) {
			if off == 0 && old[0] == nil {
				old[0] = append([]byte(nil), m.data[:load.BlockSize]...)
			}
		}, func(m *memory) { copy(m.data, old[0]) }, false, "block 0: version 1, want"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMemory()
			m.after = tt.after
			l := load.New(load.Config{Seed: 1, FlushEvery: tt.every}, size)
			if err := l.Run(t.Context(), stopAfter(m, 500), m); err != nil {
				t.Fatal(err)
			}
			tt.spoil(m)
			err := l.Verify(t.Context(), m, tt.lost)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("verification says %v, want %q", err, tt.want)
			}
		})
	}
}

func TestARefusedFlushLeavesDoubt(t *testing.T) {
	m := newMemory()
	l := load.New(load.Config{Seed: 1, FlushEvery: 1000}, size)
	m.flush = errors.New("refused")
	if err := l.Run(t.Context(), stopAfter(m, 300), m); err != nil {
		t.Fatal(err)
	}
	if l.FailedFlushes() != 1 {
		t.Fatalf("%d flushes failed, want 1", l.FailedFlushes())
	}
	clear(m.data)
	if err := l.Verify(t.Context(), m, false); err != nil {
		t.Errorf("after a refused flush all may be gone: %v", err)
	}
	m.flush = nil
	if err := l.Run(t.Context(), stopAfter(m, 300), m); err != nil {
		t.Fatal(err)
	}
	clear(m.data)
	if err := l.Verify(t.Context(), m, false); err == nil {
		t.Error("writes that were flushed after the refusal are gone, and nobody noticed")
	}
}

// A forgetful disk loses all that is not flushed while its first flush runs, which
// then ends with err.
type forgetful struct {
	*memory
	more chan struct{} // closed after some writes during the flush
	err  error
	once sync.Once
}

func newForgetful(err error) *forgetful {
	m := &forgetful{memory: newMemory(), more: make(chan struct{}), err: err}
	n := 0
	m.after = func(*memory, int64) {
		if n++; n == 200 {
			close(m.more)
		}
	}
	return m
}

func (f *forgetful) Flush(ctx context.Context) error {
	first := false
	f.once.Do(func() {
		<-f.more
		f.mu.Lock()
		defer f.mu.Unlock()
		copy(f.data, f.flushed)
		first = true
	})
	if first {
		return f.err
	}
	return f.memory.Flush(ctx)
}

func TestARefusedFlushSpeaksOfAllThatWasSentBefore(t *testing.T) {
	m := newForgetful(errors.New("lost"))
	l := load.New(load.Config{Seed: 1, FlushEvery: 100}, size)
	if err := l.Run(t.Context(), stopAfter(m.memory, 250), m); err != nil {
		t.Fatal(err)
	}
	if l.FailedFlushes() != 1 {
		t.Fatalf("%d flushes failed, want 1", l.FailedFlushes())
	}
	if err := l.Verify(t.Context(), m, false); err != nil {
		t.Error(err)
	}
}

func TestAFlushThatHidesALossIsFound(t *testing.T) {
	m := newForgetful(nil)
	l := load.New(load.Config{Seed: 1, FlushEvery: 100}, size)
	err := l.Run(t.Context(), stopAfter(m.memory, 250), m)
	if err == nil {
		err = l.Verify(t.Context(), m, false)
	}
	if err == nil {
		t.Error("nobody noticed that flushed writes are gone")
	}
}

func TestAWriteInFlightMayBeSeenOrNot(t *testing.T) {
	for _, seen := range []bool{true, false} {
		m := newMemory()
		ctx, cancel := context.WithCancel(t.Context())
		var before []byte
		n := 0
		m.after = func(m *memory, off int64) {
			if n++; n == 100 {
				before = append([]byte(nil), m.data...)
			}
		}
		l := load.New(load.Config{Seed: 2, Depth: 1}, size)
		dev := &cutOff{memory: m, after: 101, cancel: cancel}
		if err := l.Run(ctx, nil, dev); err != nil {
			t.Fatal(err)
		}
		if !seen {
			m.data = before
		}
		for range 2 {
			if err := l.Verify(t.Context(), m, false); err != nil {
				t.Errorf("in flight, seen %v: %v", seen, err)
			}
		}
	}
}

// A cutOff loses the answer to a write.
type cutOff struct {
	*memory
	after  int
	cancel context.CancelFunc
}

func (c *cutOff) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := c.memory.WriteAt(ctx, p, off); err != nil {
		return err
	}
	if c.after--; c.after == 0 {
		c.cancel()
		return ctx.Err()
	}
	return nil
}

// TestMeasure measures a device that takes a millisecond for everything.
func TestMeasure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := load.Job{Write: true, Block: 4096, Depth: 3, Flush: 10}
		dev := &slow{}
		windows := 2
		all, err := load.MeasureWhile(t.Context(), j, dev, 100*time.Millisecond, func() bool {
			windows--
			return windows > 0
		})
		if err != nil || len(all) != 2 {
			t.Fatalf("%d windows, %v", len(all), err)
		}
		if s := all[0]; s.P50 != time.Millisecond || s.P99 != 2*time.Millisecond || s.PerSecond < 2000 || s.PerSecond > 3000 {
			t.Errorf("got %+v", s)
		}
		dev.err = errors.New("no")
		if _, err := load.Measure(t.Context(), j, dev, time.Second); !errors.Is(err, dev.err) {
			t.Errorf("got %v", err)
		}
	})
}

type slow struct{ err error }

func (s *slow) ReadAt(ctx context.Context, _ []byte, _ int64) error { return s.Flush(ctx) }

func (s *slow) WriteAt(ctx context.Context, _ []byte, _ int64) error { return s.Flush(ctx) }

func (s *slow) Flush(context.Context) error {
	time.Sleep(time.Millisecond)
	return s.err
}

func (s *slow) Size() int64 { return 1 << 20 }
