// Package remote is what dog and sheepfs know of a cluster: the requests of the
// client protocol that administration needs, as calls with Go's types.
//
// A Cluster is entered through one daemon, but some requests (is an object
// there, what is its hash, how full is the disk) go to single nodes; it dials
// them on demand and keeps the connections. All calls may be made concurrently
// and share connections, so that a listing of many VDIs costs few round trips.
//
// The package works with our daemons and with those of C Sheepdog. It never
// prints; failed connections are reported to the caller's function as they
// happen, and an answer other than success is a *ResultError, whose text is the
// one that scripts expect.
package remote

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A Conn is a connection to one daemon. It may be used concurrently.
type Conn interface {
	// Do sends a request and waits for its answer. The data of the answer is
	// a prefix of into. A result other than success is not an error.
	Do(ctx context.Context, h proto.Header, payload, into []byte) (proto.Response, []byte, error)
	Close() error
}

// A Dialer connects to a daemon at host:port, or at unix:path.
type Dialer func(ctx context.Context, addr string) (Conn, error)

// attempts is how often a connection is tried.
const attempts = 2

// A ResultError is an answer other than success.
type ResultError struct {
	Op     proto.Opcode
	Result proto.Result
}

// Error returns the fixed text of the result.
func (e *ResultError) Error() string { return e.Result.String() }

// Unwrap returns the condition that the result stands for.
func (e *ResultError) Unwrap() error { return e.Result.Err() }

// A ConnectError says that a daemon could not be reached. The failed attempts
// have been reported already.
type ConnectError struct {
	Addr string
	Err  error
}

// Error returns the line that is reported for a failed attempt.
func (e *ConnectError) Error() string {
	return fmt.Sprintf("failed to connect to %s: %s", e.Addr, errnoText(e.Err))
}

// Unwrap returns the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// errnoText returns the operating system's words for err.
func errnoText(err error) string {
	text := err.Error()
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		text = errno.Error()
	}
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// Text returns the words for err that follow a colon in messages: the fixed
// text of a result, or I/O error if there was no answer.
func Text(err error) string {
	if e, ok := errors.AsType[*ResultError](err); ok {
		return e.Error()
	}
	if _, ok := errors.AsType[*ConnectError](err); ok {
		return proto.ResultIO.String()
	}
	if errors.Is(err, sheep.ErrNetwork) {
		return proto.ResultIO.String()
	}
	return err.Error()
}

// Result returns the result that err carries, or ResultSuccess if it carries none.
func Result(err error) proto.Result {
	if e, ok := errors.AsType[*ResultError](err); ok {
		return e.Result
	}
	return proto.ResultSuccess
}

// A Cluster is a cluster as seen from outside.
type Cluster struct {
	dial   Dialer
	entry  string              // where requests go that any daemon can answer
	report func(*ConnectError) // told about every failed attempt

	mu    sync.Mutex
	conns map[string]*link // guarded by mu
}

// A link is the connection to one daemon, made by the first who needs it.
type link struct {
	once sync.Once
	conn Conn
	err  error
}

// New returns the cluster that the daemon at entry belongs to. Nothing is
// dialled yet. report is called for each failed attempt to connect.
func New(dial Dialer, entry string, report func(*ConnectError)) *Cluster {
	return &Cluster{dial: dial, entry: entry, report: report, conns: make(map[string]*link)}
}

// Close closes all connections.
func (c *Cluster) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, l := range c.conns {
		if l.conn != nil {
			errs = append(errs, l.conn.Close())
		}
	}
	c.conns = make(map[string]*link)
	return errors.Join(errs...)
}

// conn returns the connection to addr. An address that could not be reached is
// not tried again.
func (c *Cluster) conn(ctx context.Context, addr string) (Conn, error) {
	c.mu.Lock()
	l := c.conns[addr]
	if l == nil {
		l = new(link)
		c.conns[addr] = l
	}
	c.mu.Unlock()
	l.once.Do(func() {
		for range attempts {
			if l.conn, l.err = c.dial(ctx, addr); l.err == nil {
				return
			}
			failed := &ConnectError{Addr: plainAddr(addr), Err: l.err}
			c.report(failed)
			l.conn, l.err = nil, failed
		}
	})
	return l.conn, l.err
}

// plainAddr returns addr as messages show it, without the brackets of IPv6.
func plainAddr(addr string) string {
	return strings.NewReplacer("[", "", "]", "").Replace(addr)
}

// A Request is one request. Its zero fields are right for most operations.
type Request struct {
	Op    proto.Opcode
	Flags proto.Flags // FlagWrite is set by itself if there is data
	Epoch sheep.Epoch
	Body  [32]byte
	Data  []byte
	Into  []byte // room for the data of the answer
	To    string // address of the daemon; empty for the entry
}

// Do sends r and returns the answer. A result other than success is a
// *ResultError; the response and its data are returned with it.
func (c *Cluster) Do(ctx context.Context, r Request) (proto.Response, []byte, error) {
	to := r.To
	if to == "" {
		to = c.entry
	}
	conn, err := c.conn(ctx, to)
	if err != nil {
		return proto.Response{}, nil, err
	}
	h := proto.Header{
		Version: r.Op.Version(), Op: r.Op, Flags: r.Flags, Epoch: r.Epoch,
		DataLen: uint32(len(r.Into)), Body: r.Body,
	}
	if len(r.Data) > 0 {
		h.Flags |= proto.FlagWrite
		h.DataLen = uint32(len(r.Data))
	}
	resp, data, err := conn.Do(ctx, h, r.Data, r.Into)
	if err != nil {
		return resp, nil, fmt.Errorf("%v at %s: %w", r.Op, plainAddr(to), err)
	}
	if resp.Result != proto.ResultSuccess {
		return resp, data, &ResultError{Op: r.Op, Result: resp.Result}
	}
	return resp, data, nil
}
