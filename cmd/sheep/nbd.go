package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"sheepdog/nbd"
	"sheepdog/sheep"
	"sheepdog/sheep/wire"
)

// An nbdService is the NBD server with its sockets, or nothing.
type nbdService struct {
	server    *nbd.Server
	listeners []net.Listener
}

// openNBD opens the sockets of the NBD server.
func (n *node) openNBD(ctx context.Context) (s nbdService, err error) {
	cfg := n.cfg.nbd
	if len(cfg.addrs) == 0 {
		return s, nil
	}
	defer func() {
		if err != nil {
			closeAll(s.listeners)
		}
	}()
	for _, addr := range cfg.addrs {
		l, err := nbd.Listen(ctx, addr)
		if err != nil {
			return s, err
		}
		s.listeners = append(s.listeners, l...)
	}
	for _, l := range s.listeners {
		if nbd.PublicListener(l) && !cfg.tls.require && !cfg.insecure {
			return s, fmt.Errorf("NBD socket %v can be reached from other machines: use --nbd-tls=require with a certificate, or say --nbd-insecure", l.Addr())
		}
	}
	var crypt *tls.Config
	if cfg.tls.cert != "" {
		if crypt, err = nbd.ServerTLS(cfg.tls.cert, cfg.tls.key, cfg.tls.ca); err != nil {
			return s, err
		}
	}
	s.server = nbd.NewServer(n.exports(), nbd.Config{
		TLS: crypt, TLSRequire: cfg.tls.require, DefaultExport: cfg.fallback, ReadOnly: cfg.readOnly,
		MaxConns: cfg.maxConns, MaxInFlight: cfg.maxMemory, HandshakeTimeout: cfg.handshake,
		DrainTimeout: stopPatience, Log: n.log,
		Receipts: func(conn net.Conn) nbd.Receipts { return wire.NewReceipts(conn) },
		ConnContext: func(ctx context.Context, client string) context.Context {
			return sheep.WithClient(ctx, sheep.Client{Kind: "nbd", Addr: client})
		},
	})
	for _, l := range s.listeners {
		n.log.Info("disks are exported over NBD", "addr", l.Addr())
	}
	return s, nil
}

// serve serves until ctx ends.
func (s nbdService) serve(ctx context.Context) error {
	if s.server == nil {
		return nil
	}
	return s.server.Serve(ctx, s.listeners...)
}

// exports returns what the NBD server offers.
func (n *node) exports() *exports {
	return &exports{
		disks: newDisks(n.disks, n.cluster), host: n.disks, cluster: n.cluster, cfg: n.cfg.nbd,
	}
}
