package sheepfs

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"syscall"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/proto"
)

// A door is how the tree reaches the cluster: a connection to a sheep, and to
// another one when that breaks.
type door struct {
	mu   sync.Mutex
	addr string       // guarded by mu
	conn *client.Conn // guarded by mu
}

// openDoor connects to the sheep that cfg names, and waits for it as cfg says.
func openDoor(ctx context.Context, cfg Config) (*door, error) {
	addr, err := hostPort(cfg.Server)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(cfg.Wait)
	for {
		d := &door{addr: addr}
		if d.conn, err = client.Dial(ctx, addr); err == nil {
			return d, nil
		}
		if cfg.Wait <= 0 || time.Now().After(deadline) {
			return nil, err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Do sends a request and waits for its answer, as client.Doer.
func (d *door) Do(ctx context.Context, h proto.Header, payload, into []byte) (proto.Response, []byte, error) {
	d.mu.Lock()
	conn := d.conn
	d.mu.Unlock()
	return conn.Do(ctx, h, payload, into)
}

// server returns the sheep that is asked, as host:port.
func (d *door) server() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.addr
}

func (d *door) close() error { return d.conn.Close() }

// checkPort refuses what is no port number.
func checkPort(s string) error {
	if n, err := strconv.ParseUint(s, 10, 16); err != nil || n == 0 {
		return refuse(syscall.EINVAL, "invalid port number %q", s)
	}
	return nil
}

// move goes on with the sheep at addr, which has to be of the same cluster.
func (d *door) move(ctx context.Context, addr string) error {
	return fmt.Errorf("%w: move to %s", sheep.ErrNotSupported, addr)
}
