package gossip

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"
)

// raftStreams is the port as Raft sees it.
type raftStreams struct{ *listener }

var _ raft.StreamLayer = raftStreams{}

// Dial implements raft.StreamLayer.
func (s raftStreams) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.mux.dial(ctx, streamRaft, string(addr))
}

// gossipTransport is the port as memberlist sees it.
type gossipTransport struct{ *mux }

var _ memberlist.Transport = gossipTransport{}

// FinalAdvertiseAddr implements memberlist.Transport.
func (t gossipTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.advertise.Addr().AsSlice(), int(t.advertise.Port()), nil
}

// WriteTo implements memberlist.Transport.
func (t gossipTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return time.Time{}, err
	}
	if _, err = t.udp.WriteTo(b, to); errors.Is(err, net.ErrClosed) {
		err = nil // memberlist stops a little later than the port
	}
	return time.Now(), err
}

// PacketCh implements memberlist.Transport.
func (t gossipTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout implements memberlist.Transport.
func (t gossipTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return t.dial(ctx, streamGossip, addr)
}

// StreamCh implements memberlist.Transport.
func (t gossipTransport) StreamCh() <-chan net.Conn { return t.gossip }

// Shutdown implements memberlist.Transport. The port is closed by its owner.
func (t gossipTransport) Shutdown() error { return nil }
