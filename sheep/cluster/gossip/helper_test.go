package gossip_test

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// freePort returns a port of 127.0.0.1 that is free for TCP and UDP, below the
// range from which the kernel takes those of outgoing connections.
func freePort() uint16 {
	for {
		n := 10000 + rand.IntN(20000)
		addr := fmt.Sprintf("127.0.0.1:%d", n)
		udp, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		tcp, err := net.Listen("tcp", addr)
		udp.Close()
		if err != nil {
			continue
		}
		tcp.Close()
		return uint16(n)
	}
}
