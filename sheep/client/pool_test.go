package client_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/proto"
)

var peerAddr = netip.MustParseAddrPort("10.0.0.1:7000")

// A network is where the peers of a Pool are dialled.
type network struct {
	mu      sync.Mutex
	dialled []time.Time // guarded by mu
	refuse  error       // guarded by mu
	peers   []net.Conn  // guarded by mu
	hello   proto.Hello // of the peers
}

func (n *network) dial(context.Context, netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dialled = append(n.dialled, time.Now())
	if n.refuse != nil {
		return nil, n.refuse
	}
	a, b := net.Pipe()
	n.peers = append(n.peers, b)
	go n.greet(b)
	return a, nil
}

// greet answers the hello of a new connection.
func (n *network) greet(peer net.Conn) {
	b := make([]byte, proto.HeaderSize+proto.HelloSize)
	if _, err := readFull(peer, b); err != nil {
		return
	}
	h, _ := proto.DecodeHeader(b)
	resp := h.Response(1, proto.ResultSuccess)
	resp.DataLen = proto.HelloSize
	peer.Write(n.hello.Append(resp.Append(nil)))
}

func readFull(c net.Conn, b []byte) (int, error) {
	for n := 0; n < len(b); {
		k, err := c.Read(b[n:])
		n += k
		if err != nil {
			return n, err
		}
	}
	return len(b), nil
}

func newPool(n *network) *client.Pool {
	return client.NewPool(proto.Hello{Version: proto.PeerVersion, Incarnation: 1}, client.PoolConfig{
		Dial: n.dial, MinPause: time.Second, MaxPause: 8 * time.Second,
	})
}

func TestAPoolDialsOnceAndSaysHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{hello: proto.Hello{Version: proto.PeerVersion, Incarnation: 77}}
		p := newPool(n)
		defer p.Close()
		var wg sync.WaitGroup
		var conns [10]*client.Conn
		for i := range conns {
			wg.Go(func() {
				var err error
				if conns[i], err = p.Conn(t.Context(), peerAddr); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, c := range conns {
			if c != conns[0] || c.Peer().Incarnation != 77 {
				t.Fatalf("different connections, or to %+v", c.Peer())
			}
		}
		if len(n.dialled) != 1 {
			t.Errorf("dialled %d times, want once", len(n.dialled))
		}
		n.peers[0].Close()
		<-conns[0].Done()
		again, err := p.Conn(t.Context(), peerAddr)
		if err != nil || again == conns[0] || len(n.dialled) != 2 {
			t.Errorf("after the connection broke: the same %v, %v, dialled %d times", again == conns[0], err, len(n.dialled))
		}
	})
}

func TestAPoolPausesLongerAfterEachFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{hello: proto.Hello{Version: proto.PeerVersion}, refuse: errors.New("refused")}
		p := newPool(n)
		defer p.Close()
		for range 6 {
			if _, err := p.Conn(t.Context(), peerAddr); !errors.Is(err, sheep.ErrNetwork) || !errors.Is(err, n.refuse) {
				t.Errorf("Conn = %v", err)
			}
		}
		for i, want := range []time.Duration{1, 2, 4, 8, 8} {
			if got := n.dialled[i+1].Sub(n.dialled[i]); got != want*time.Second {
				t.Errorf("pause %d is %v, want %v", i, got, want*time.Second)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Conn(ctx, peerAddr); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Conn whose context ends in a pause: %v", err)
		}
		p.Forget(peerAddr)
		synctest.Wait()
		n.refuse = nil
		begin := time.Now()
		if _, err := p.Conn(t.Context(), peerAddr); err != nil || time.Since(begin) != 0 {
			t.Errorf("after Forget: %v after %v, want a connection at once", err, time.Since(begin))
		}
	})
}

func TestAPoolRefusesPeersOfAnotherVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPool(&network{hello: proto.Hello{Version: proto.PeerVersion + 1}})
		defer p.Close()
		if _, err := p.Conn(t.Context(), peerAddr); !errors.Is(err, sheep.ErrVersion) {
			t.Errorf("Conn = %v, want %v", err, sheep.ErrVersion)
		}
	})
}

func TestForgetEndsRequestsUnderWayAndCloseEndsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{hello: proto.Hello{Version: proto.PeerVersion}}
		p := newPool(n)
		c, err := p.Conn(t.Context(), peerAddr)
		if err != nil {
			t.Fatal(err)
		}
		done := start(c, proto.Header{}, "", 0)
		next(t, n.peers[0])
		p.Forget(peerAddr)
		if got := <-done; !errors.Is(got.err, sheep.ErrNetwork) {
			t.Errorf("request under way: %+v", got)
		}
		if c, err = p.Conn(t.Context(), peerAddr); err != nil {
			t.Fatal(err)
		}
		p.Close()
		if c.Err() == nil {
			t.Error("a connection outlived its pool")
		}
		if _, err := p.Conn(t.Context(), peerAddr); !errors.Is(err, client.ErrClosed) {
			t.Errorf("Conn of a closed pool: %v", err)
		}
	})
}

func TestCloseDoesNotWaitForADialThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := client.NewPool(proto.Hello{}, client.PoolConfig{
			Dial: func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
			DialTimeout: time.Hour,
		})
		go p.Conn(t.Context(), peerAddr)
		synctest.Wait()
		begin := time.Now()
		p.Close()
		if got := time.Since(begin); got != 0 {
			t.Errorf("Close took %v", got)
		}
	})
}
