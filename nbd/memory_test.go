package nbd_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sheepdog/nbd"
)

// blockSize is what a memory allocates.
const blockSize = 4096

// A memory is a Device, and the model of one: blocks are allocated by the first
// write and remember whether they are shared.
type memory struct {
	info  nbd.Info
	delay time.Duration // of every call

	mu     sync.RWMutex
	data   []byte           // guarded by mu
	states []byte           // guarded by mu; of each block: allocated, shared
	dirty  bool             // guarded by mu; written since the last flush
	fail   map[string]error // guarded by mu; what calls of that name return
	hold   chan struct{}    // guarded by mu; calls wait until it is closed, if not nil

	entered       atomic.Int64 // calls that have begun
	opens, closes atomic.Int64
	flushes       atomic.Int64
	told          atomic.Int64 // failed flushes of which the client has got the reply
	dirtyAtClose  atomic.Bool
	lastMode      atomic.Int64
}

const (
	allocated = 1
	shared    = 2
)

func newMemory(size int) *memory {
	return &memory{
		info: nbd.Info{Size: uint64(size), MultiConn: true, Description: "bytes in memory", CheapExtents: true},
		data: make([]byte, size), states: make([]byte, (size+blockSize-1)/blockSize),
		fail: map[string]error{},
	}
}

var (
	_ nbd.Device     = (*memory)(nil)
	_ nbd.Prefetcher = (*memory)(nil)
)

func (m *memory) enter(ctx context.Context, op string) error {
	m.entered.Add(1)
	m.mu.RLock()
	err, hold := m.fail[op], m.hold
	m.mu.RUnlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if m.delay > 0 {
		time.Sleep(m.delay)
	}
	return err
}

// set makes calls of op fail with err, or succeed if it is nil.
func (m *memory) set(op string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail[op] = err
}

// block makes calls wait until release is called.
func (m *memory) block() (release func()) {
	hold := make(chan struct{})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hold = hold
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.hold = nil
		close(hold)
	}
}

func (m *memory) Info() nbd.Info { return m.info }

func (m *memory) Read(ctx context.Context, p []byte, off uint64) error {
	if err := m.enter(ctx, "read"); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	copy(p, m.data[off:off+uint64(len(p))])
	return nil
}

func (m *memory) Write(ctx context.Context, p []byte, off uint64, fua bool) error {
	if err := m.enter(ctx, "write"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.data[off:off+uint64(len(p))], p)
	for b := off / blockSize; b <= (off+uint64(len(p))-1)/blockSize; b++ {
		m.states[b] = allocated
	}
	m.dirty = m.dirty || !fua
	return nil
}

func (m *memory) Zero(ctx context.Context, off, n uint64, mode nbd.ZeroMode) error {
	m.lastMode.Store(int64(mode))
	if err := m.enter(ctx, "zero"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.data[off : off+n])
	for b := (off + blockSize - 1) / blockSize; b < (off+n)/blockSize; b++ {
		m.states[b] = 0
	}
	if mode&nbd.ZeroNoHole != 0 {
		for b := off / blockSize; b <= (off+n-1)/blockSize; b++ {
			m.states[b] = allocated
		}
	}
	m.dirty = m.dirty || mode&nbd.ZeroFUA == 0
	return nil
}

func (m *memory) Extents(ctx context.Context, off, n uint64, yield func(uint64, nbd.ExtentState) bool) error {
	if err := m.enter(ctx, "extents"); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	for end := off + n; off < end; {
		length := blockSize - off%blockSize
		var state nbd.ExtentState
		switch s := m.states[off/blockSize]; {
		case s&allocated == 0:
			state = nbd.ExtentHole | nbd.ExtentZero
		case s&shared != 0:
			state = nbd.ExtentShared
		}
		if !yield(length, state) {
			return nil
		}
		off += length
	}
	return nil
}

func (m *memory) Prefetch(ctx context.Context, _, _ uint64) error { return m.enter(ctx, "prefetch") }

func (m *memory) Flush(ctx context.Context) error {
	if err := m.enter(ctx, "flush"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dirty = false
	m.flushes.Add(1)
	return nil
}

func (m *memory) Told(err error) { m.told.Add(1) }

func (m *memory) Close() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.dirty {
		m.dirtyAtClose.Store(true)
	}
	m.closes.Add(1)
	return nil
}

// exports offers memories by name.
type exports map[string]*memory

func (e exports) List(context.Context) ([]nbd.Export, error) {
	var all []nbd.Export
	for name, m := range e {
		all = append(all, nbd.Export{Name: name, Description: m.info.Description})
	}
	slices.SortFunc(all, func(a, b nbd.Export) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all, nil
}

func (e exports) Stat(_ context.Context, name string) (nbd.Info, error) {
	if name == "locked" {
		return nbd.Info{Size: 512}, nil
	}
	m, ok := e[name]
	if !ok {
		return nbd.Info{}, fmt.Errorf("no disk %q: %w", name, syscall.ENOENT)
	}
	return m.info, nil
}

func (e exports) Open(ctx context.Context, name string) (nbd.Device, error) {
	if name == "locked" {
		return nil, fmt.Errorf("disk %q is locked by 10.0.0.7: %w", name, syscall.EBUSY)
	}
	if _, err := e.Stat(ctx, name); err != nil {
		return nil, err
	}
	e[name].opens.Add(1)
	return e[name], nil
}
