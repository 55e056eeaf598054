package gossip

import (
	"net"
	"sync"
)

// A listener is a net.Listener for the streams of one kind.
type listener struct {
	mux   *mux
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newListener(m *mux) *listener {
	return &listener{mux: m, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *listener) put(conn net.Conn) {
	select {
	case l.conns <- conn:
	case <-l.done:
		conn.Close()
	case <-l.mux.closed:
		conn.Close()
	}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
	case <-l.mux.closed:
	}
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.mux.advertise) }
