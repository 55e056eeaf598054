package harness

import (
	"net"
	"sync"
	"time"
)

// delayed is where the nodes of a cluster with delay find each other: there a
// proxy listens, and sends on to the address where the node itself listens.
const delayed = "127.0.0.2"

// delay lets everything that is sent to 127.0.0.2:port arrive at
// 127.0.0.1:port after d, and the answers after d again, until the test ends.
func delay(t TB, port Port, d time.Duration) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(delayed), Port: port.Number})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			from, err := l.AcceptTCP()
			if err != nil {
				return
			}
			to, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port.Number})
			if err != nil {
				from.Close()
				continue
			}
			wg.Go(func() { relay(from, to, d) })
		}
	})
	t.Cleanup(func() { // the nodes have ended, and with them the connections
		l.Close()
		wg.Wait()
	})
}

// relay connects two connections until both directions have ended.
func relay(a, b *net.TCPConn, d time.Duration) {
	defer a.Close()
	defer b.Close()
	var back sync.WaitGroup
	defer back.Wait()
	back.Go(func() { late(a, b, d) })
	late(b, a, d)
}

// A parcel is what was read at one time.
type parcel struct {
	data []byte
	due  time.Time
}

// late copies from one connection to the other, everything d later than it came.
func late(to, from *net.TCPConn, d time.Duration) {
	parcels := make(chan parcel, 4096)
	go func() {
		defer close(parcels)
		for {
			buf := make([]byte, 128<<10)
			n, err := from.Read(buf)
			if n > 0 {
				parcels <- parcel{buf[:n:n], time.Now().Add(d)}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range parcels {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.data); err != nil {
			from.Close()
			for range parcels { // until the reader has noticed
			}
			break
		}
	}
	to.CloseWrite() // the other direction goes on
}
