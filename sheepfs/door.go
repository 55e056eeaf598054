package sheepfs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
)

// A door is how the tree reaches the cluster for everything but the contents of
// volumes: a connection to a sheep, and to another one when that breaks. What
// only looks is asked again there; what changes something is not, because it may
// have been done.
type door struct {
	turn chan struct{} // has room for one: held by whoever connects

	mu    sync.Mutex
	addr  string       // guarded by mu; of the sheep that is asked
	conn  *client.Conn // guarded by mu; nil while there is none
	known []string     // guarded by mu; addresses of the nodes
	hung  string       // guarded by mu; of the sheep that last did not answer
}

// The pauses between two attempts to find a sheep.
const (
	minDoorPause = 50 * time.Millisecond
	maxDoorPause = time.Second
)

// openDoor connects to the sheep that cfg names, and waits for it as cfg says.
func openDoor(ctx context.Context, cfg Config) (*door, error) {
	addr, err := hostPort(cfg.Server)
	if err != nil {
		return nil, err
	}
	d := &door{turn: make(chan struct{}, 1), addr: addr}
	if cfg.Wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.Wait)
		defer cancel()
	}
	for pause := minDoorPause; ; pause = min(2*pause, maxDoorPause) {
		conn, err := dialOne(ctx, addr)
		if err == nil {
			d.conn = conn
			return d, nil
		}
		if cfg.Wait <= 0 {
			return nil, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("waited %v: %w", cfg.Wait, err)
		}
	}
}

func dialOne(ctx context.Context, addr string) (*client.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, peerPatience)
	defer cancel()
	return client.Dial(ctx, addr)
}

// Do sends a request and waits for its answer, as client.Doer.
func (d *door) Do(ctx context.Context, h proto.Header, payload, into []byte) (proto.Response, []byte, error) {
	for {
		conn, err := d.connection(ctx)
		if err != nil {
			return proto.Response{}, nil, err
		}
		resp, data, err := conn.Do(ctx, h, payload, into)
		if err == nil || !errors.Is(err, sheep.ErrNetwork) || ctx.Err() != nil {
			return resp, data, err
		}
		d.drop(conn)
		if !looks(h.Op) {
			return resp, nil, err
		}
	}
}

// looks reports whether an operation only looks.
func looks(op proto.Opcode) bool {
	switch op {
	case proto.OpReadObj, proto.OpGetVDIInfo, proto.OpReadVDIs, proto.OpReadDelVDIs, proto.OpGetVDICopies,
		proto.OpGetNodeList, proto.OpStatCluster, proto.OpClusterInfo:
		return true
	}
	return false
}

// connection returns the connection, made anew if it is down. It tries every
// node that is known, once.
func (d *door) connection(ctx context.Context) (*client.Conn, error) {
	if conn := d.current(); conn != nil {
		return conn, nil
	}
	select {
	case d.turn <- struct{}{}:
		defer func() { <-d.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if conn := d.current(); conn != nil {
		return conn, nil
	}
	var first error
	for _, addr := range d.candidates() {
		conn, err := dialOne(ctx, addr)
		if err == nil {
			d.enter(addr, conn)
			return conn, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// current returns the connection, or nil if it is down.
func (d *door) current() *client.Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil && d.conn.Err() != nil {
		d.conn = nil // its goroutines have ended
	}
	return d.conn
}

// drop forgets a connection that has broken.
func (d *door) drop(conn *client.Conn) {
	d.mu.Lock()
	if d.conn == conn {
		d.conn = nil
	}
	d.mu.Unlock()
	conn.Close()
}

// enter goes on over conn.
func (d *door) enter(addr string, conn *client.Conn) {
	d.mu.Lock()
	before := d.conn
	d.addr, d.conn = addr, conn
	d.mu.Unlock()
	if before != nil {
		before.Close()
	}
}

// candidates returns where a sheep may be, the last one first, unless it did not
// answer.
func (d *door) candidates() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := []string{d.addr}
	for _, addr := range d.known {
		if addr != d.addr {
			all = append(all, addr)
		}
	}
	if d.addr == d.hung {
		all = append(all[1:], d.addr)
	}
	return all
}

// shun drops the connection, whose sheep is there and does not answer.
func (d *door) shun() {
	d.mu.Lock()
	conn := d.conn
	d.hung = d.addr
	d.mu.Unlock()
	if conn != nil {
		d.drop(conn)
	}
}

// learn remembers the nodes of the cluster.
func (d *door) learn(nodes []sheep.Node) {
	if len(nodes) == 0 {
		return
	}
	known := make([]string, len(nodes))
	for i, n := range nodes {
		known[i] = remote.Address(n)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known = known
}

// server returns the sheep that is asked, as host:port.
func (d *door) server() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.addr
}

// move goes on with the sheep at addr, which has to be of the same cluster.
func (d *door) move(ctx context.Context, addr string) error {
	conn, err := dialOne(ctx, addr)
	if err == nil {
		d.enter(addr, conn)
	}
	return err
}

func (d *door) close() error {
	d.mu.Lock()
	conn := d.conn
	d.conn = nil
	d.mu.Unlock()
	if conn == nil {
		return nil
	}
	return conn.Close()
}

// learnPause is how often the nodes are asked for, and how long a sheep has for
// an answer that it has at hand.
const learnPause = 5 * time.Second

// keepLearning keeps the list of nodes current until the FS is closed, and turns
// away from a sheep that does not answer.
func (t *FS) keepLearning() {
	for {
		ctx, cancel := context.WithTimeout(t.ctx, learnPause)
		_, err := t.members(ctx)
		if errors.Is(err, context.DeadlineExceeded) && t.ctx.Err() == nil {
			t.log.Warn("the sheep does not answer", "server", t.door.server())
			t.door.shun()
		}
		cancel()
		select {
		case <-time.After(learnPause):
		case <-t.ctx.Done():
			return
		}
	}
}

// checkPort refuses what is no port number.
func checkPort(s string) error {
	if n, err := strconv.ParseUint(s, 10, 16); err != nil || n == 0 {
		return refuse(syscall.EINVAL, "invalid port number %q", s)
	}
	return nil
}
