package attach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"
)

// A MonitorConfig says how to keep a device alive. Its zero value is good but
// for Log.
type MonitorConfig struct {
	Addrs       []Address // tried in turn; none: where the device was attached to
	Export      string    // needed for kernels before 5.14, which do not remember it
	Connections int       // of the device; 0: those of Attach's default
	Log         *slog.Logger
	Ready       func() // called when no death goes unnoticed any more; may be nil
}

const (
	// lookInterval is how soon a Monitor notices that the device was detached,
	// of which the kernel tells nobody.
	lookInterval = time.Second

	// secondLook is when a connection is offered again: the kernel tells of a
	// death just before it would take another connection in its place.
	secondLook = time.Second

	firstPause, longestPause = 100 * time.Millisecond, 2 * time.Second // between attempts
)

// Monitor replaces the connections of a device that die, and returns nil when
// the device has been detached. If the context ends it leaves the device as it
// is.
//
// It starts by offering connections in place of those that died before it
// listened.
func (h Host) Monitor(ctx context.Context, index uint32, cfg MonitorConfig) error {
	d, err := h.Device(index)
	if err != nil {
		return err
	}
	addrs, export, err := d.source(cfg.Addrs, cfg.Export)
	if err != nil {
		return err
	}
	k, err := h.kernel(ctx)
	if err != nil {
		return err
	}
	defer k.Close()
	if cfg.Connections == 0 {
		cfg.Connections = defaultConnections
	}
	m := &monitor{
		host: h, device: d, addrs: addrs, export: export, kernel: k,
		conns: cfg.Connections, log: cfg.Log.With("device", d.Path),
		wake: make(chan struct{}, 1),
	}
	return m.run(ctx, cfg.Ready)
}

// source returns the servers of the device and the name of its export: what the
// kernel remembers, unless the caller has said where, and if it does not, what
// the caller has said.
func (d Device) source(addrs []Address, export string) ([]Address, string, error) {
	if d.URI == "" {
		if len(addrs) == 0 || export == "" {
			return nil, "", fmt.Errorf("%s: %w: the kernel does not know what the device is, please name the export and its server", d.Path, ErrUnusable)
		}
		return slices.Clone(addrs), export, nil
	}
	at, export, err := ParseURI(d.URI)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", d.Path, err)
	}
	if len(addrs) == 0 {
		addrs = []Address{at}
	}
	return slices.Clone(addrs), export, nil
}

// A monitor is one run of Monitor.
type monitor struct {
	host   Host
	device Device
	addrs  []Address // the one to try next is the first
	export string
	kernel Kernel
	conns  int
	log    *slog.Logger

	wake chan struct{} // has room for one: dead has changed

	mu      sync.Mutex
	dead    int // guarded by mu; connections to be replaced
	offered int // guarded by mu; connections offered since the last second look
}

// errDetached ends the parts of a monitor.
var errDetached = errors.New("the device was detached")

func (m *monitor) run(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() { m.watch(ctx, cancel) })
	listening := make(chan struct{}) // closed when no death goes unnoticed any more
	wg.Go(func() {
		cancel(m.kernel.Deaths(ctx, func() { close(listening) }, func(index uint32) {
			if index == m.device.Index {
				m.died(1)
			}
		}, func() { m.died(m.conns) }))
	})
	select {
	case <-ctx.Done():
		return m.ended(ctx)
	case <-listening:
	}
	if ready != nil {
		ready()
	}
	m.offerAll(ctx, m.conns) // for those that died before
	again := time.NewTimer(secondLook)
	defer again.Stop()
	again.Stop()
	for {
		look := false
		select {
		case <-ctx.Done():
			return m.ended(ctx)
		case <-again.C:
			look = true
		case <-m.wake:
			again.Reset(secondLook)
		}
		m.offerAll(ctx, m.take(look))
	}
}

// ended returns why the context has ended; a detached device is a good reason.
func (m *monitor) ended(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, errDetached) {
		return err
	}
	m.log.Info("the device was detached")
	return nil
}

// watch ends the monitor when the device is no more what it was.
func (m *monitor) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		d, err := m.host.Device(m.device.Index)
		if errors.Is(err, ErrNotAttached) || err == nil && (d.id != m.device.id || d.URI != m.device.URI) {
			cancel(errDetached)
			return
		}
	}
}

// died notes that n connections are to be replaced.
func (m *monitor) died(n int) {
	m.mu.Lock()
	m.dead += n
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take returns how many connections are to be offered: one for each that has
// died since the last call or, at the second look, since the last second look.
func (m *monitor) take(look bool) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.dead
	m.dead = 0
	m.offered += n
	if look {
		n = m.offered
		m.offered = 0
	}
	return min(n, m.conns)
}

// offerAll offers n connections, until the kernel has taken them or the context
// ends.
func (m *monitor) offerAll(ctx context.Context, n int) {
	pause := firstPause
	complaint := ""
	for done := 0; done < n; {
		err := m.offer(ctx)
		if err == nil {
			done++
			pause, complaint = firstPause, ""
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if err.Error() != complaint { // not the same again and again
			complaint = err.Error()
			m.log.Warn("no new connection yet", "err", err)
		}
		if !wait(ctx, pause) {
			return
		}
		pause = min(2*pause, longestPause)
	}
	if n > 0 {
		m.log.Info("connections are complete", "node", m.addrs[0].String())
	}
}

// offer connects to a server and gives the kernel the connection.
func (m *monitor) offer(ctx context.Context) error {
	nc, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer nc.Close()
	_, err = hand([]net.Conn{nc}, func(fds []int) (struct{}, error) {
		return struct{}{}, m.kernel.Reconfigure(ctx, m.device.Index, Connection{Sockets: fds, Backend: m.device.URI})
	})
	if err != nil {
		return fmt.Errorf("the kernel refuses the connection: %w", err)
	}
	return nil
}

// connect connects to the first server that has the disk. The one that worked is
// tried first the next time.
func (m *monitor) connect(ctx context.Context) (net.Conn, error) {
	var failed []error
	for i, a := range m.addrs {
		nc, info, err := choose(ctx, a, m.export)
		if err == nil {
			if err = m.same(info); err == nil {
				m.addrs[0], m.addrs[i] = m.addrs[i], m.addrs[0]
				return nc, nil
			}
			nc.Close()
		}
		failed = append(failed, err)
	}
	return nil, all(failed)
}

// same refuses an export that cannot be the disk that was attached. A larger one
// can: the device keeps its size.
func (m *monitor) same(info Info) error {
	switch {
	case info.Size&^(sector-1) < m.device.Size:
		return fmt.Errorf("nbd export %q has %d bytes now, and the device %d", m.export, info.Size, m.device.Size)
	case info.Flags&ReadOnly != 0 && !m.device.ReadOnly:
		return fmt.Errorf("nbd export %q is read-only now", m.export)
	}
	return nil
}

// wait waits for the time. It returns false if the context ends before.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
