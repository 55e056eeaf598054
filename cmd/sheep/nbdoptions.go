package main

import (
	"path"
	"strings"
	"time"

	"sheepdog/nbd"
)

// An nbdConfig says what is exported over NBD, where and to whom.
type nbdConfig struct {
	addrs    []nbd.Address // where to listen; none means not at all
	globs    []string      // names of the disks that are exported; none means all
	fallback string        // the export that a client without a name gets, or empty
	readOnly bool
	insecure bool // public addresses without TLS are wanted

	tls nbdTLS

	maxConns  int           // connections at once
	maxMemory int64         // bytes of requests in flight
	handshake time.Duration // within which a client must have chosen its export
}

// An nbdTLS names the files of TLS, all absolute, or is zero.
type nbdTLS struct {
	cert, key string
	ca        string // clients must have a certificate of it; empty: they need none
	require   bool   // nothing is exported without TLS
}

// The limits of NBD unless the command line has others.
const (
	defaultNBDConns     = 256
	defaultNBDMemory    = 256 << 20
	defaultNBDHandshake = 10 * time.Second
)

func defaultNBD() nbdConfig {
	return nbdConfig{maxConns: defaultNBDConns, maxMemory: defaultNBDMemory, handshake: defaultNBDHandshake}
}

func (p *parser) setNBD(arg string) error {
	addr := arg
	if file, ok := strings.CutPrefix(arg, "unix:"); ok && file != "" {
		abs, err := p.absolute(file)
		if err != nil {
			return refuse("Invalid NBD address '%s': %s", arg, reason(err))
		}
		addr = "unix:" + abs
	}
	a, err := nbd.ParseAddress(addr)
	if err != nil {
		return refuse("Invalid NBD address '%s': must be ADDRESS:PORT, :PORT, unix:PATH or systemd", arg)
	}
	p.cfg.nbd.addrs = append(p.cfg.nbd.addrs, a)
	return nil
}

func (p *parser) setNBDExports(arg string) error {
	for glob := range strings.SplitSeq(arg, ",") {
		if _, err := path.Match(glob, ""); err != nil || glob == "" {
			return refuse("Invalid pattern of NBD exports '%s'", arg)
		}
		p.cfg.nbd.globs = append(p.cfg.nbd.globs, glob)
	}
	return nil
}

// setFile returns the setter of an option that names a file.
func setFile(what string, field func(*config) *string) func(*parser, string) error {
	return func(p *parser, arg string) error {
		file, err := p.absolute(arg)
		if err != nil {
			return refuse("Invalid %s '%s': no path", what, arg)
		}
		*field(&p.cfg) = file
		return nil
	}
}

func (p *parser) setNBDTLS(arg string) error {
	switch arg {
	case "require":
		p.cfg.nbd.tls.require = true
	case "allow":
		p.cfg.nbd.tls.require = false
	default:
		return refuse("Invalid use of TLS '%s': must be require or allow", arg)
	}
	return nil
}

func (p *parser) setNBDConns(arg string) error {
	n, ok := parseNumber(arg, 1, 100_000)
	if !ok {
		return refuse("Invalid number of NBD connections '%s': must be an integer between 1 and 100000", arg)
	}
	p.cfg.nbd.maxConns = int(n)
	return nil
}

// minNBDMemory is enough for four requests of the largest size.
const minNBDMemory = 128 << 20

func (p *parser) setNBDMemory(arg string) error {
	n, err := parseSize(arg)
	if err != nil {
		return err
	}
	if n < minNBDMemory {
		return refuse("Invalid size of NBD requests in flight '%s': must be at least 128M", arg)
	}
	p.cfg.nbd.maxMemory = int64(n)
	return nil
}

func (p *parser) setNBDHandshake(arg string) error {
	n, ok := parseNumber(arg, 1, 3600)
	if !ok {
		return refuse("Invalid time of the NBD handshake '%s': must be an integer between 1 and 3600 (seconds)", arg)
	}
	p.cfg.nbd.handshake = time.Duration(n) * time.Second
	return nil
}

// check refuses what would not work, or would give away more than was meant.
func (c nbdConfig) check() error {
	t := c.tls
	switch {
	case (t.cert == "") != (t.key == ""):
		return refuse("NBD over TLS needs both --nbd-tls-cert and --nbd-tls-key")
	case (t.ca != "" || t.require) && t.cert == "":
		return refuse("NBD over TLS needs --nbd-tls-cert and --nbd-tls-key")
	}
	if t.require || c.insecure {
		return nil
	}
	for _, addr := range c.addrs {
		if addr.Public() {
			return refuse("NBD address %v can be reached from other machines, and without TLS everybody could read and write every disk: "+
				"use --nbd-tls=require with a certificate, or say --nbd-insecure", addr)
		}
	}
	return nil
}
