package client

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// PoolConfig holds the choices of a Pool. The zero value works.
type PoolConfig struct {
	// Dial connects to a peer; nil means TCP.
	Dial func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)

	DialTimeout time.Duration // for connecting and hello together; 0 means 5 s
	MinPause    time.Duration // after the first failed attempt; 0 means 20 ms
	MaxPause    time.Duration // to which the pause doubles; 0 means 500 ms
}

func (cfg PoolConfig) withDefaults() PoolConfig {
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
			d := net.Dialer{KeepAliveConfig: keepAlive()}
			return d.DialTCP(ctx, "tcp", netip.AddrPort{}, addr)
		}
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 5 * time.Second
	}
	if cfg.MinPause == 0 {
		cfg.MinPause = 20 * time.Millisecond
	}
	if cfg.MaxPause == 0 {
		cfg.MaxPause = 500 * time.Millisecond
	}
	return cfg
}

// A Pool keeps one Conn to each peer. It may be used by any number of
// goroutines.
//
// A receiver that has too much to do stops reading a connection. Requests that
// others wait for must therefore not share one with the requests that wait:
// use one Pool for requests to owners, one for requests to peers, and one for
// what a peer asks while it serves one (states of copies, reads for recovery).
type Pool struct {
	hello proto.Hello
	cfg   PoolConfig
	ctx   context.Context // ends with Close; attempts to dial belong to the Pool
	stop  context.CancelCauseFunc
	wg    sync.WaitGroup

	mu    sync.Mutex
	peers map[netip.AddrPort]*peer // guarded by mu
}

// A peer is what the Pool knows of one address. Its fields are guarded by the
// Pool's mu.
type peer struct {
	conn    *Conn    // nil until dialled
	attempt *attempt // under way, or nil
	pause   time.Duration
	next    time.Time          // no attempt before
	cancel  context.CancelFunc // of the attempt
}

// An attempt to dial is shared by all who wait for it.
type attempt struct {
	done chan struct{} // closed when conn and err are set
	conn *Conn
	err  error
}

// NewPool returns a pool whose connections begin with hello.
func NewPool(hello proto.Hello, cfg PoolConfig) *Pool {
	ctx, stop := context.WithCancelCause(context.Background())
	return &Pool{
		hello: hello,
		cfg:   cfg.withDefaults(),
		ctx:   ctx,
		stop:  stop,
		peers: make(map[netip.AddrPort]*peer),
	}
}

// Conn returns the connection to the sheep at addr, dialling it if there is
// none. After a failed attempt the next one waits, longer each time; every
// caller who waits for an attempt gets its error.
func (p *Pool) Conn(ctx context.Context, addr netip.AddrPort) (*Conn, error) {
	p.mu.Lock()
	pr := p.peers[addr]
	if pr != nil && pr.conn != nil {
		select {
		case <-pr.conn.Done():
			pr.conn = nil
		default:
			conn := pr.conn
			p.mu.Unlock()
			return conn, nil
		}
	}
	if err := p.ctx.Err(); err != nil {
		p.mu.Unlock()
		return nil, ErrClosed
	}
	if pr == nil {
		pr = new(peer)
		p.peers[addr] = pr
	}
	if pr.attempt == nil {
		p.begin(addr, pr)
	}
	a := pr.attempt
	p.mu.Unlock()

	select {
	case <-a.done:
		return a.conn, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to %s: %w", sheep.FormatAddr(addr), context.Cause(ctx))
	}
}

// Forget closes the connection to addr and forgets its past failures. Requests
// on it end with an error.
func (p *Pool) Forget(addr netip.AddrPort) {
	p.mu.Lock()
	pr := p.peers[addr]
	delete(p.peers, addr)
	p.mu.Unlock()
	pr.close()
}

// Close closes all connections and returns when every goroutine of the Pool
// has stopped. It must not be called by a completion.
func (p *Pool) Close() {
	p.mu.Lock()
	p.stop(ErrClosed)
	peers := p.peers
	p.peers = make(map[netip.AddrPort]*peer)
	p.mu.Unlock()
	for _, pr := range peers {
		pr.close()
	}
	p.wg.Wait()
	for _, pr := range peers {
		if pr.conn != nil {
			pr.conn.Close()
		}
	}
}

// close ends what the peer has under way without waiting for it, so that a
// completion may cause it. The peer is no longer in the Pool.
func (pr *peer) close() {
	if pr == nil {
		return
	}
	if pr.cancel != nil {
		pr.cancel()
	}
	if pr.conn != nil {
		pr.conn.fail(ErrClosed)
	}
}

// begin starts an attempt. The caller holds mu.
func (p *Pool) begin(addr netip.AddrPort, pr *peer) {
	a := &attempt{done: make(chan struct{})}
	ctx, cancel := context.WithCancel(p.ctx)
	pr.attempt, pr.cancel = a, cancel
	wait := time.Until(pr.next)
	p.wg.Go(func() {
		defer cancel()
		conn, err := p.dial(ctx, addr, wait)
		p.end(addr, pr, a, conn, err)
	})
}

// end publishes the outcome of an attempt.
func (p *Pool) end(addr netip.AddrPort, pr *peer, a *attempt, conn *Conn, err error) {
	p.mu.Lock()
	pr.attempt = nil
	switch {
	case err != nil:
		pr.pause = min(max(2*pr.pause, p.cfg.MinPause), p.cfg.MaxPause)
		pr.next = time.Now().Add(pr.pause)
	case p.peers[addr] != pr: // forgotten meanwhile
		defer conn.Close()
		conn, err = nil, ErrClosed
	default:
		pr.conn, pr.pause = conn, 0
	}
	p.mu.Unlock()
	a.conn, a.err = conn, err
	close(a.done)
}

// dial waits, connects and says hello.
func (p *Pool) dial(ctx context.Context, addr netip.AddrPort, wait time.Duration) (*Conn, error) {
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ErrClosed
		}
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.DialTimeout)
	defer cancel()
	nc, err := p.cfg.Dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("%w: connect to %s: %w", sheep.ErrNetwork, sheep.FormatAddr(addr), err)
	}
	conn := NewConn(nc)
	if err := p.greet(ctx, conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w: hello to %s: %w", sheep.ErrNetwork, sheep.FormatAddr(addr), err)
	}
	return conn, nil
}

// greet exchanges hellos over a new connection.
func (p *Pool) greet(ctx context.Context, conn *Conn) error {
	h := proto.Header{Version: proto.PeerVersion, Op: proto.OpHello}
	resp, data, err := conn.Do(ctx, h, p.hello.Append(nil), make([]byte, proto.HelloSize))
	if err != nil {
		return err
	}
	if err := resp.Result.Err(); err != nil {
		return err
	}
	conn.peer, err = proto.DecodeHello(data)
	if err == nil && conn.peer.Version != proto.PeerVersion {
		err = fmt.Errorf("%w: it speaks version %d", sheep.ErrVersion, conn.peer.Version)
	}
	return err
}
