package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// What a stream is for, as its preamble says.
const (
	streamRaft    byte = 'r'
	streamControl byte = 'c'
	streamGossip  byte = 'g'
)

// A preamble begins every stream, inside of its encryption:
//
//	offset  size  field
//	     0     6  "SHEEP" and the version of the streams, 1
//	     6     1  what the stream is for
//	     7    24  cluster ID of the node that opens it; Raft's streams stay within a timeline
const preambleSize = 7 + clusterIDSize

var preambleMagic = []byte("SHEEP\x01")

// preambleTimeout bounds the time from the begin of a stream to the end of its
// preamble.
const preambleTimeout = 5 * time.Second

// maxHandshakes bounds the streams whose preambles have not come.
const maxHandshakes = 256

// A mux is the one TCP and UDP port of the cluster's traffic.
type mux struct {
	secrets   secrets
	advertise netip.AddrPort   // with the port that is listened on
	clusterID func() clusterID // this node's
	log       *slog.Logger

	tcp net.Listener
	udp *net.UDPConn

	raft, control *listener
	gossip        chan net.Conn
	packets       chan *memberlist.Packet
	closed        chan struct{}
	handshakes    chan struct{} // has an element for each stream without its preamble
	once          sync.Once
	wg            sync.WaitGroup
}

// listen opens the port.
func listen(cfg Config, s secrets, clusterID func() clusterID) (*mux, error) {
	m := &mux{
		secrets: s, clusterID: clusterID, log: cfg.Log,
		gossip:     make(chan net.Conn),
		packets:    make(chan *memberlist.Packet, 64),
		closed:     make(chan struct{}),
		handshakes: make(chan struct{}, maxHandshakes),
	}
	if err := m.bind(cfg.Bind); err != nil {
		return nil, fmt.Errorf("listen for the cluster's traffic: %w", err)
	}
	m.advertise = cfg.Advertise
	number := uint16(m.tcp.Addr().(*net.TCPAddr).Port)
	if m.advertise.Port() == 0 {
		m.advertise = netip.AddrPortFrom(m.advertise.Addr(), number)
	}
	m.raft, m.control = newListener(m), newListener(m)
	m.wg.Go(m.accept)
	m.wg.Go(m.receive)
	return m, nil
}

// bind opens both sockets. A port that the system chooses for one may be taken
// for the other.
func (m *mux) bind(at netip.AddrPort) error {
	host := ""
	if at.Addr().IsValid() {
		host = at.Addr().String()
	}
	for try := 0; ; try++ {
		tcp, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(at.Port())))
		if err != nil {
			return err
		}
		number := tcp.Addr().(*net.TCPAddr).Port
		udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: at.Addr().AsSlice(), Port: number})
		if err == nil {
			m.tcp, m.udp = tcp, udp
			udp.SetReadBuffer(2 << 20) // gossip lives with less
			return nil
		}
		tcp.Close()
		if at.Port() != 0 || try == 20 {
			return err
		}
	}
}

// close closes the port and waits until nothing of it runs. Streams that were
// handed on are their users'.
func (m *mux) close() {
	m.once.Do(func() {
		close(m.closed)
		m.tcp.Close()
		m.udp.Close()
	})
	m.wg.Wait()
}

// accept takes streams until the port is closed.
func (m *mux) accept() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for {
		conn, err := m.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			m.log.Warn("accept a stream of the cluster's", "err", err)
			if !m.pause(100 * time.Millisecond) { // out of files: some will be closed
				return
			}
			continue
		}
		select {
		case m.handshakes <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		m.wg.Go(func() {
			defer func() { <-m.handshakes }()
			m.serveConn(ctx, conn)
		})
	}
}

func (m *mux) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-m.closed:
		return false
	}
}

// serveConn hands a stream on to whom it is for.
func (m *mux) serveConn(ctx context.Context, raw net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, preambleTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	conn, kind, err := m.readPreamble(ctx, raw)
	if !stop() {
		return
	}
	if err != nil {
		raw.Close()
		m.log.Debug("refused a stream of the cluster's", "node", raw.RemoteAddr(), "err", err)
		return
	}
	switch kind {
	case streamRaft:
		m.raft.put(conn)
	case streamControl:
		m.control.put(conn)
	default:
		select {
		case m.gossip <- conn:
		case <-m.closed:
			conn.Close()
		}
	}
}

// readPreamble secures a stream and reads its preamble.
func (m *mux) readPreamble(ctx context.Context, raw net.Conn) (net.Conn, byte, error) {
	conn, err := m.secrets.server(ctx, raw)
	if err != nil {
		return nil, 0, err
	}
	var b [preambleSize]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return nil, 0, fmt.Errorf("read the preamble of a stream: %w", err)
	}
	if !bytes.HasPrefix(b[:], preambleMagic) {
		return nil, 0, errors.New("a stream of another program, of another version, or encrypted while this node has no key")
	}
	theirs, err := decodeClusterID(b[7:])
	if err != nil {
		return nil, 0, err
	}
	switch kind := b[6]; kind {
	case streamControl, streamGossip:
		return conn, kind, nil
	case streamRaft:
		if own := m.clusterID(); own.known() && theirs != own {
			return nil, 0, fmt.Errorf("a stream of cluster %v, this node belongs to %v", theirs, own)
		}
		return conn, kind, nil
	default:
		return nil, 0, fmt.Errorf("a stream for %q", kind)
	}
}

// dial opens a stream.
func (m *mux) dial(ctx context.Context, kind byte, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, preambleTimeout)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	conn, err := m.secrets.client(ctx, raw)
	if err == nil {
		b := append(append([]byte{}, preambleMagic...), kind)
		_, err = conn.Write(m.clusterID().append(b))
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("open a stream to %s: %w", addr, err)
	}
	return conn, nil
}

// receive takes packets until the port is closed.
func (m *mux) receive() {
	for {
		buf := make([]byte, 64<<10)
		n, from, err := m.udp.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 1 {
			continue // an error of something sent before
		}
		select {
		case m.packets <- &memberlist.Packet{Buf: buf[:n:n], From: from, Timestamp: time.Now()}:
		case <-m.closed:
			return
		}
	}
}
