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

// What a stream is for, as its opening says.
const (
	forRaft    byte = 'r'
	forControl byte = 'c'
	forGossip  byte = 'g'
)

// An opening begins every stream, inside of its encryption:
//
//	offset  size  field
//	     0     6  "SHEEP" and the version of the streams, 1
//	     6     1  what the stream is for
//	     7    20  the kingdom of who opens it; Raft's streams do not cross its border
const openingSize = 7 + kingdomSize

var openingMagic = []byte("SHEEP\x01")

// openPatience bounds the opening of a stream.
const openPatience = 5 * time.Second

// maxOpening bounds the streams that have not said what they are for.
const maxOpening = 256

// A port is the one TCP and UDP port of the cluster's traffic.
type port struct {
	secrets   secrets
	advertise netip.AddrPort // with the port that is listened on
	realm     func() kingdom // this node's
	log       *slog.Logger

	tcp net.Listener
	udp *net.UDPConn

	raft, control *queue
	gossip        chan net.Conn
	packets       chan *memberlist.Packet
	closed        chan struct{}
	opening       chan struct{} // an element for each stream being opened
	once          sync.Once
	wg            sync.WaitGroup
}

// listen opens the port.
func listen(cfg Config, s secrets, realm func() kingdom) (*port, error) {
	p := &port{
		secrets: s, realm: realm, log: cfg.Log,
		gossip:  make(chan net.Conn),
		packets: make(chan *memberlist.Packet, 64),
		closed:  make(chan struct{}),
		opening: make(chan struct{}, maxOpening),
	}
	if err := p.bind(cfg.Bind); err != nil {
		return nil, fmt.Errorf("listen for the cluster's traffic: %w", err)
	}
	p.advertise = cfg.Advertise
	number := uint16(p.tcp.Addr().(*net.TCPAddr).Port)
	if p.advertise.Port() == 0 {
		p.advertise = netip.AddrPortFrom(p.advertise.Addr(), number)
	}
	p.raft, p.control = newQueue(p), newQueue(p)
	p.wg.Go(p.accept)
	p.wg.Go(p.receive)
	return p, nil
}

// bind opens both sockets. A port that the system chooses for one may be taken
// for the other.
func (p *port) bind(at netip.AddrPort) error {
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
			p.tcp, p.udp = tcp, udp
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
func (p *port) close() {
	p.once.Do(func() {
		close(p.closed)
		p.tcp.Close()
		p.udp.Close()
	})
	p.wg.Wait()
}

// accept takes streams until the port is closed.
func (p *port) accept() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for {
		conn, err := p.tcp.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			p.log.Warn("accept a stream of the cluster's", "err", err)
			if !p.pause(100 * time.Millisecond) { // out of files: some will be closed
				return
			}
			continue
		}
		select {
		case p.opening <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		p.wg.Go(func() {
			defer func() { <-p.opening }()
			p.welcome(ctx, conn)
		})
	}
}

func (p *port) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-p.closed:
		return false
	}
}

// welcome hands a stream on to whom it is for.
func (p *port) welcome(ctx context.Context, raw net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	conn, kind, err := p.opened(ctx, raw)
	if !stop() {
		return
	}
	if err != nil {
		raw.Close()
		p.log.Debug("refused a stream of the cluster's", "node", raw.RemoteAddr(), "err", err)
		return
	}
	switch kind {
	case forRaft:
		p.raft.put(conn)
	case forControl:
		p.control.put(conn)
	default:
		select {
		case p.gossip <- conn:
		case <-p.closed:
			conn.Close()
		}
	}
}

// opened secures a stream and reads its opening.
func (p *port) opened(ctx context.Context, raw net.Conn) (net.Conn, byte, error) {
	conn, err := p.secrets.server(ctx, raw)
	if err != nil {
		return nil, 0, err
	}
	var b [openingSize]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return nil, 0, fmt.Errorf("read the opening of a stream: %w", err)
	}
	if !bytes.HasPrefix(b[:], openingMagic) {
		return nil, 0, errors.New("a stream of another program, of another version, or encrypted while this node has no key")
	}
	theirs, err := decodeKingdom(b[7:])
	if err != nil {
		return nil, 0, err
	}
	switch kind := b[6]; kind {
	case forControl, forGossip:
		return conn, kind, nil
	case forRaft:
		if own := p.realm(); own.known() && theirs != own {
			return nil, 0, fmt.Errorf("a stream of cluster %v, this node belongs to %v", theirs, own)
		}
		return conn, kind, nil
	default:
		return nil, 0, fmt.Errorf("a stream for %q", kind)
	}
}

// dial opens a stream.
func (p *port) dial(ctx context.Context, kind byte, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	conn, err := p.secrets.client(ctx, raw)
	if err == nil {
		b := append(append([]byte{}, openingMagic...), kind)
		_, err = conn.Write(p.realm().append(b))
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
func (p *port) receive() {
	for {
		buf := make([]byte, 64<<10)
		n, from, err := p.udp.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 1 {
			continue // an error of something sent before
		}
		select {
		case p.packets <- &memberlist.Packet{Buf: buf[:n:n], From: from, Timestamp: time.Now()}:
		case <-p.closed:
			return
		}
	}
}

// A queue is a net.Listener for the streams of one kind.
type queue struct {
	port  *port
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueue(p *port) *queue {
	return &queue{port: p, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (q *queue) put(conn net.Conn) {
	select {
	case q.conns <- conn:
	case <-q.done:
		conn.Close()
	case <-q.port.closed:
		conn.Close()
	}
}

// Accept implements net.Listener.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case conn := <-q.conns:
		return conn, nil
	case <-q.done:
	case <-q.port.closed:
	}
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// Addr implements net.Listener.
func (q *queue) Addr() net.Addr { return net.TCPAddrFromAddrPort(q.port.advertise) }
