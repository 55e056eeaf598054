package harness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports below the range from which the kernel takes the ports of outgoing
// connections, so that a daemon that was killed finds its port free again.
const firstPort, lastPort = 12000, 32000

// Ports of four digits, for clients that cannot count further.
const firstShortPort, lastShortPort = 3000, 10000

// A Port is a TCP port of 127.0.0.1 that belongs to this test.
type Port struct {
	Number int

	claim net.PacketConn // the UDP port of that number: what suites agree by
}

// FreePort reserves a port until the test ends.
func FreePort(t TB) Port {
	t.Helper()
	return freePort(t, firstPort, lastPort)
}

func freePort(t TB, first, last int) Port {
	t.Helper()
	for range 1000 {
		p, err := claim(first + rand.IntN(last-first))
		if err == nil {
			t.Cleanup(func() { p.claim.Close() })
			return p
		}
	}
	t.Fatal("found no free port")
	return Port{}
}

// FreePorts reserves n ports in a row until the test ends and returns the first.
func FreePorts(t TB, n int) int {
	t.Helper()
	for range 1000 {
		first := firstPort + rand.IntN(lastPort-firstPort-n)
		if claimRow(t, first, n) {
			return first
		}
	}
	t.Fatalf("found no %d free ports in a row", n)
	return 0
}

func claimRow(t TB, first, n int) bool {
	var row []Port
	for i := range n {
		p, err := claim(first + i)
		if err != nil {
			for _, p := range row {
				p.claim.Close()
			}
			return false
		}
		row = append(row, p)
	}
	t.Cleanup(func() {
		for _, p := range row {
			p.claim.Close()
		}
	})
	return true
}

func claim(n int) (Port, error) {
	addr := fmt.Sprintf("127.0.0.1:%d", n)
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		return Port{}, err
	}
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return Port{}, errors.Join(err, udp.Close())
	}
	return Port{n, udp}, tcp.Close()
}

func (p Port) String() string { return fmt.Sprintf("127.0.0.1:%d", p.Number) }
