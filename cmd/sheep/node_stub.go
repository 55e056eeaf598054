package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// errExpelled says that the cluster goes on without this node.
var errExpelled = errors.New("expelled from the cluster")

// runNode stands in for the node: it holds the port and does nothing.
func runNode(ctx context.Context, cfg config, ready func()) error {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(cfg.bind, cfg.port)))
	if err != nil {
		return err
	}
	defer l.Close()
	ready()
	<-ctx.Done()
	return nil
}
