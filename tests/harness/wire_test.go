package harness

import (
	"context"
	"net"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// A post is a UDP socket on a host.
type post struct {
	*net.UDPConn
	t *testing.T
}

func newPost(t *testing.T, h *Hosts, i int) post {
	t.Helper()
	var p post
	err := h.hosts[i].inside(func() (err error) {
		p = post{t: t}
		p.UDPConn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(HostAddr(i)), Port: 99})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// reaches sends letters until one arrives, and returns how long that one took.
// It gives up after a while.
func (p post) reaches(q post) (time.Duration, bool) {
	p.t.Helper()
	for range 8 {
		sent := time.Now()
		if _, err := p.WriteTo([]byte(sent.Format(time.RFC3339Nano)), q.LocalAddr()); err != nil {
			p.t.Fatal(err)
		}
		q.SetReadDeadline(sent.Add(50 * time.Millisecond))
		b := make([]byte, 100)
		for {
			n, err := q.Read(b)
			if os.IsTimeout(err) {
				break
			}
			if err != nil {
				p.t.Fatal(err)
			}
			if string(b[:n]) == sent.Format(time.RFC3339Nano) {
				return time.Since(sent), true
			}
		}
	}
	return 0, false
}

func TestWeather(t *testing.T) {
	h := NewHosts(t, 3, func(int) []string { return nil })
	posts := []post{newPost(t, h, 0), newPost(t, h, 1), newPost(t, h, 2)}
	reach := func(from, to int, want bool) time.Duration {
		t.Helper()
		took, got := posts[from].reaches(posts[to])
		if got != want {
			t.Errorf("host %d reaches host %d: %v, want %v", from, to, got, want)
		}
		return took
	}
	all := func() {
		t.Helper()
		for i := range posts {
			reach(i, (i+1)%3, true)
			reach(i, (i+2)%3, true)
		}
	}
	all()
	h.SetWeather(1, Weather{Deaf: true})
	reach(0, 1, false)
	reach(2, 0, true)
	h.SetWeather(1, Weather{})
	all()
	h.SetWeather(1, Weather{Mute: true})
	reach(1, 2, false)
	reach(2, 0, true)
	h.SetWeather(1, Weather{Strangers: []int{2}})
	reach(0, 1, true)
	reach(1, 0, true)
	reach(1, 2, false)
	reach(2, 1, false)
	h.Part(1, 2)
	reach(0, 1, false)
	h.SetWeather(1, Weather{Delay: 20 * time.Millisecond})
	if took := reach(1, 2, true); took < 20*time.Millisecond {
		t.Errorf("a letter with a delay of 20 ms took %v", took)
	}
	reach(0, 1, false)
	h.SetWeather(1, Weather{Loss: 0.5})
	reach(2, 1, true)
	h.Heal()
	h.SetWeather(1, Weather{})
	all()
}

// TestWireCarriesStreams sends a stream, whose long frames the kernel leaves
// uncut and without checksums, through a wire that loses some.
func TestWireCarriesStreams(t *testing.T) {
	h := NewHosts(t, 2, func(int) []string { return nil })
	var l net.Listener
	var c net.Conn
	err := h.hosts[0].inside(func() (err error) {
		l, err = net.Listen("tcp", HostAddr(0)+":99")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h.SetWeather(1, Weather{Loss: 0.01, Delay: time.Millisecond})
	err = h.hosts[1].inside(func() (err error) {
		c, err = net.Dial("tcp", l.Addr().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	const size = 8 << 20
	go c.Write(make([]byte, size))
	in.SetDeadline(time.Now().Add(patience))
	begin := time.Now()
	for got := 0; got < size; {
		n, err := in.Read(make([]byte, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		got += n
	}
	t.Logf("%d bytes in %v", size, time.Since(begin))
}

func TestClocks(t *testing.T) {
	h := NewHosts(t, 1, func(int) []string { return nil })
	if !h.SetClocks(0, 1000*time.Hour) {
		t.Skip("this kernel gives no process a clock of its own")
	}
	h.Nodes[0].Start()
	h.Until("sheep to answer", func(ctx context.Context) error {
		_, err := h.Stat(ctx, 0)
		return err
	})
}
