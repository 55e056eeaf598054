package nbd

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"
)

// Config holds the choices of a Server. Zero fields mean their defaults.
type Config struct {
	// TLS, if it is set, is offered to clients, on every kind of listener. With
	// TLSRequire nothing is told to a client before TLS is up.
	TLS        *tls.Config
	TLSRequire bool

	DefaultExport string // what the empty name means; "" means nothing
	ReadOnly      bool   // refuse all writes

	// MaxConns bounds the connections (256). When it is reached, a new one takes
	// the place of the oldest that has not finished its handshake; if there is
	// none, it is closed.
	MaxConns int

	// MaxInFlight bounds the bytes of memory of requests that have not been
	// answered, of all connections together (128 MiB); MaxInFlightConn those of
	// one connection (half of it). A connection gets at most as much as it
	// leaves free, so that there is always something left for the next.
	MaxInFlight     int64
	MaxInFlightConn int64

	// MaxRequest bounds the payload of a request (32 MiB). Clients are told.
	MaxRequest uint32

	// HandshakeTimeout is how long a client may take from connecting to the
	// first request (30 s).
	HandshakeTimeout time.Duration

	// Patience is how long a client may neither accept any byte of a reply nor
	// send any of an announced payload before it is cut off (60 s). While others
	// wait for memory, of which it has a sixteenth or more for payloads that it
	// does not send, it is cut off after two seconds.
	Patience time.Duration

	// DrainTimeout is how long requests in flight and flushes may take when the
	// server ends (30 s).
	DrainTimeout time.Duration

	// ConnContext, if it is set, returns the context of the device calls of a
	// connection from the client, "unix" or its address. It is derived from ctx.
	ConnContext func(ctx context.Context, client string) context.Context

	// Receipts returns what knows which replies the client at the other end of conn
	// has got. By default a reply that is handed to the socket counts as such.
	Receipts func(conn net.Conn) Receipts

	Log *slog.Logger // nothing is logged by default
}

// Limits that no configuration changes.
const (
	maxOption  = 64 << 10 // of option data that is looked at
	skipOption = 1 << 20  // of option data that is read and thrown away
	maxOptions = 1 << 15  // options in one handshake: a client may ask about each of many exports

	minRequest = 64 << 10 // of MaxRequest
	minCost    = 1 << 10  // what the smallest request takes out of the budget
	maxExtents = 4096     // descriptors in a block status reply
	maxChunks  = 64       // chunks in the reply to a read

	keepScratch = 8 << 10 // of what a recycled request keeps for heads of replies

	maxWorkers  = 256                    // of a connection
	keepWorkers = 64                     // of them that wait for work
	linger      = 100 * time.Millisecond // between the flush of a drain and the end: requests on their way are refused
	complain    = time.Second            // between two lines of the log about failed requests of a connection

	readBuffer      = 128 << 10 // of a connection in transmission
	handshakeBuffer = 2 << 10
)

func (cfg Config) withDefaults() Config {
	or := func(p *time.Duration, d time.Duration) {
		if *p <= 0 {
			*p = d
		}
	}
	or(&cfg.HandshakeTimeout, 30*time.Second)
	or(&cfg.Patience, 60*time.Second)
	or(&cfg.DrainTimeout, 30*time.Second)
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = 256
	}
	if cfg.MaxRequest == 0 {
		cfg.MaxRequest = 32 << 20
	}
	cfg.MaxRequest = min(max(cfg.MaxRequest, minRequest), 1<<maxClass)
	largest := int64(1) << classOf(int(cfg.MaxRequest))
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = 128 << 20
	}
	cfg.MaxInFlight = max(cfg.MaxInFlight, 4*largest)
	if cfg.MaxInFlightConn <= 0 {
		cfg.MaxInFlightConn = cfg.MaxInFlight / 2
	}
	cfg.MaxInFlightConn = min(max(cfg.MaxInFlightConn, largest), cfg.MaxInFlight)
	if cfg.Receipts == nil {
		cfg.Receipts = func(net.Conn) Receipts { return atOnce{} }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
}
