package client

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// RoamingConfig is what a Roaming can do without.
type RoamingConfig struct {
	// Patience is how long a request waits for a sheep when there is none. 0
	// means a minute. The context of a request may end it before.
	Patience time.Duration

	// Silence is how long a sheep may take to answer what it has at hand, before
	// it is left for another one. 0 means ten seconds.
	Silence time.Duration

	// Unflushed is how many bytes of writes are kept for each VDI until they are
	// known to be durable. 0 means 64 MiB.
	Unflushed int64

	// Dial connects to a sheep; the package's Dial if nil.
	Dial func(ctx context.Context, addr string) (*Conn, error)

	Log *slog.Logger // nowhere if nil
}

func (c RoamingConfig) withDefaults() RoamingConfig {
	if c.Patience <= 0 {
		c.Patience = time.Minute
	}
	if c.Silence <= 0 {
		c.Silence = 10 * time.Second
	}
	if c.Unflushed <= 0 {
		c.Unflushed = 64 << 20
	}
	if c.Dial == nil {
		c.Dial = Dial
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// A Roaming is a Doer over one sheep at a time of a cluster: when its sheep dies,
// stops answering or may no longer serve, it goes on with another one that it
// knows from the list of nodes.
//
// A request whose outcome is unknown is sent again if doing it twice is as good as
// once: whatever only looks; writes, because nobody but their sender may write
// there at the same time; the making of an object, because nobody knows of it
// before its maker was answered; flushes, removals and releases. Others, such as
// making a VDI, end with the error of the connection.
//
// An answered write that may not be durable is kept until a flush has made it so.
// A new sheep gets what is kept before anything else, so that a gateway that died
// together with the only holders of a write costs nothing. Where that cannot be
// right, the next flush of the VDI fails, once: the VDI's lock has been taken by
// another client, the new sheep refuses a write, or more was written than is kept.
// That is rare, because a VDI that has used half of its room is flushed in the
// background, and who writes more than there is room for waits for that flush: only
// if it fails is something let go.
//
// A writer writes through the Lock that it has taken, so that nothing of it is
// repeated when the lock is lost or given back.
//
// Two things are left to chance, as with every client that repeats requests. A
// sheep that is cut off from this client, and not from the others, might do a
// request that it had received before later than its repetition. And in a cluster
// without locks nobody can tell whether another client has written meanwhile.
type Roaming struct {
	cfg RoamingConfig

	ctx  context.Context // ends with the Roaming
	stop context.CancelCauseFunc
	wg   sync.WaitGroup

	now atomic.Pointer[post] // where requests go; nil while there is no sheep

	mu      sync.Mutex
	arrived chan struct{}                // guarded by mu; closed when there is a sheep again
	why     error                        // guarded by mu; why there was none at the last attempt
	server  string                       // guarded by mu; the sheep that is asked, or was asked last
	shunned string                       // guarded by mu; the sheep that last was there and did not serve
	nodes   []sheep.Node                 // guarded by mu; of the cluster
	kept    map[sheep.VDIID]*keptVDI     // guarded by mu
	seq     uint64                       // guarded by mu; of the last write that was kept
	locks   map[*Lock]struct{}           // guarded by mu
	buffers [bufferClasses + 1]sync.Pool // of *[]byte
}

// A post is a sheep that requests are sent to. That it lives is asked over a
// connection of its own, where no request of a disk stands in line before.
type post struct {
	conn  *Conn
	probe *Conn
	addr  string
	left  chan struct{} // closed when it has been given up
	gone  chan struct{} // closed when requests no longer go there
	once  sync.Once     // for left
	lives atomic.Bool   // it has been given up though it does what it is asked

	requests atomic.Int64  // on their way
	idle     chan struct{} // has room for one: told when there are none
}

func newPost(addr string, conn, probe *Conn) *post {
	return &post{
		conn: conn, probe: probe, addr: addr,
		left: make(chan struct{}), gone: make(chan struct{}), idle: make(chan struct{}, 1),
	}
}

// done ends a request.
func (p *post) done() {
	if p.requests.Add(-1) == 0 {
		select {
		case p.idle <- struct{}{}:
		default:
		}
	}
}

func (p *post) close() {
	p.conn.Close()
	p.probe.Close()
}

// leave gives the post up.
func (p *post) leave() { p.once.Do(func() { close(p.left) }) }

// NewRoaming returns a Roaming that begins at addr, host:port, and waits for
// nothing: Ready does. The caller has to close it.
func NewRoaming(addr string, cfg RoamingConfig) *Roaming {
	r := &Roaming{
		cfg:     cfg.withDefaults(),
		arrived: make(chan struct{}),
		server:  addr,
		kept:    make(map[sheep.VDIID]*keptVDI),
		locks:   make(map[*Lock]struct{}),
	}
	r.ctx, r.stop = context.WithCancelCause(context.Background())
	r.wg.Go(r.roam)
	return r
}

// Close ends all requests with ErrClosed, and returns when everything has
// stopped. What was written and not flushed may be lost.
func (r *Roaming) Close() error {
	r.stop(ErrClosed)
	r.wg.Wait()
	return nil
}

// Ready returns when there is a sheep.
func (r *Roaming) Ready(ctx context.Context) error {
	p, err := r.post(ctx)
	if err == nil {
		p.done()
	}
	return err
}

// Server returns the address of the sheep that is asked, or was asked last.
func (r *Roaming) Server() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.server
}

// Nodes returns the nodes of the cluster as they were some seconds ago.
func (r *Roaming) Nodes() []sheep.Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nodes
}

// Move goes on with the sheep at addr, or with another one if there is none. What
// is on its way is answered first.
func (r *Roaming) Move(addr string) {
	r.mu.Lock()
	same := r.server == addr
	r.server = addr
	if r.shunned == addr {
		r.shunned = ""
	}
	r.mu.Unlock()
	if p := r.now.Load(); p != nil && !same {
		p.lives.Store(true)
		p.leave()
	}
}

// Do sends a request and waits for its answer, as Doer says: it is sent to
// another sheep where the Roaming's promise allows that.
func (r *Roaming) Do(ctx context.Context, h proto.Header, payload, into []byte) (proto.Response, []byte, error) {
	return r.do(ctx, r.prepare(nil, h, payload), h, payload, into)
}

// do sends a request of which c has been noted.
func (r *Roaming) do(ctx context.Context, c change, h proto.Header, payload, into []byte) (proto.Response, []byte, error) {
	for {
		p, err := r.post(ctx)
		if err != nil {
			return proto.Response{}, nil, err
		}
		if err := c.refused(); err != nil { // the lock may have been lost while there was no sheep
			p.done()
			return proto.Response{}, nil, err
		}
		resp, data, err := p.conn.Do(ctx, h, payload, into)
		p.done()
		switch {
		case err == nil && !elsewhere(resp.Result):
			if err, again := r.answered(ctx, p, c, resp.Result); !again {
				return resp, data, err
			}
		case err == nil:
			r.shun(p, resp.Result.Err())
			p.leave()
		case ctx.Err() != nil, p.conn.Err() == nil: // it is not the connection
			return resp, nil, err
		default:
			p.leave()
			if !c.repeat {
				return resp, nil, err
			}
		}
		r.await(ctx, p)
	}
}

// repeatable reports whether a request may be sent again when its outcome is
// unknown.
func repeatable(op proto.Opcode) bool {
	switch op {
	case proto.OpReadObj, proto.OpGetVDIInfo, proto.OpReadVDIs, proto.OpReadDelVDIs, proto.OpGetVDICopies,
		proto.OpGetNodeList, proto.OpStatCluster, proto.OpClusterInfo,
		proto.OpWriteObj, proto.OpCreateAndWriteObj, proto.OpRemoveObj, proto.OpFlushVDI, proto.OpReleaseVDI:
		return true
	}
	return false
}

// elsewhere reports whether a result says that the sheep does nothing for anybody
// now, while another one may.
func elsewhere(result proto.Result) bool {
	switch result {
	case proto.ResultShutdown, proto.ResultKilled, proto.ResultStartup, proto.ResultWaitForJoin:
		return true
	}
	return false
}

// post returns the sheep that requests go to, and waits for one if there is none.
// The caller has a request on its way from then on, and says when it is done.
func (r *Roaming) post(ctx context.Context) (*post, error) {
	if p := r.current(); p != nil {
		return p, nil
	}
	patience := time.NewTimer(r.cfg.Patience)
	defer patience.Stop()
	for {
		r.mu.Lock()
		arrived, why := r.arrived, r.why
		r.mu.Unlock()
		if p := r.current(); p != nil {
			return p, nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return nil, fmt.Errorf("no sheep: %w: %v", context.Cause(ctx), why)
		case <-r.ctx.Done():
			return nil, context.Cause(r.ctx)
		case <-patience.C:
			return nil, fmt.Errorf("%w: no sheep for %v: %v", sheep.ErrNetwork, r.cfg.Patience, why)
		}
	}
}

// current returns the post with one more request on its way, or nil if there is
// none. Whoever has withdrawn a post sees either that request or that it was not
// let in.
func (r *Roaming) current() *post {
	p := r.now.Load()
	if p == nil {
		return nil
	}
	p.requests.Add(1)
	if r.now.Load() != p {
		p.done()
		return nil
	}
	return p
}

// await returns when requests no longer go to p, which has been left.
func (r *Roaming) await(ctx context.Context, p *post) {
	select {
	case <-p.gone:
	case <-ctx.Done():
	case <-r.ctx.Done():
	}
}
