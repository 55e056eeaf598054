package main

import (
	"context"
	"net"
	"net/netip"
	"time"

	"sheepdog/cmd/sheep/internal/getopt"
)

// An option is one option of the daemon.
type option struct {
	letter string
	name   string
	alias  string // another long name, or empty
	about  string // one line for the help
	detail string // what is shown when the argument is missing, or empty
	set    func(p *parser, arg string) error
	toggle func(p *parser) error // instead of set if there is no argument
}

// options returns all options in the order of the help.
func options() []option {
	return []option{
		{letter: "b", name: "bindaddr", about: "listen on this IP address only (default: all addresses)", detail: bindHelp, set: (*parser).setBind},
		{letter: "c", name: "cluster", about: "how nodes find each other: driver[:option] (default: local)", detail: clusterHelp, set: (*parser).setCluster},
		{name: "cluster-advertise", about: "tell other nodes this ADDRESS[:PORT] of the cluster's traffic", set: (*parser).setClusterAdvertise},
		{name: "cluster-bind", about: "listen for the cluster's traffic at ADDRESS[:PORT]", set: (*parser).setClusterBind},
		{name: "cluster-key", about: "file with the key that the nodes of the cluster share", detail: clusterKeyHelp, set: setFile("cluster key", func(c *config) *string { return &c.gossip.key })},
		{name: "cluster-port", about: "port of the cluster's traffic, TCP and UDP (default: 900 above -p)", set: (*parser).setClusterPort},
		{letter: "D", name: "directio", about: "go around the page cache (accepted, without effect)", toggle: func(p *parser) error {
			return p.info("--directio has no effect: objects are always read and written through the page cache")
		}},
		{letter: "f", name: "foreground", about: "do not become a daemon", toggle: func(p *parser) error { p.cfg.foreground = true; return nil }},
		{letter: "g", name: "gateway", about: "serve clients, but store nothing", toggle: func(p *parser) error { p.cfg.gateway = true; return nil }},
		{letter: "h", name: "help", about: "show this help and exit", toggle: func(*parser) error { return &exit{stdout: help()} }},
		{letter: "i", name: "ioaddr", about: "second address for object traffic: host=H[,port=P] (default: none)", detail: ioAddrHelp, set: (*parser).setIOAddr},
		{letter: "j", name: "journal", about: "separate write journal: size=S[,dir=D][,skip]", detail: journalHelp, set: (*parser).setJournal},
		{name: "journal-size", about: "size of the write journal, e.g. 256M (minimum: 4M)", set: (*parser).setJournalSize},
		{letter: "l", name: "log", about: "the log: level=,dir=,format=,dst= (default level: info)", detail: logHelp(), set: (*parser).setLog},
		{name: "nbd", about: "export the disks over NBD at this address (repeatable)", detail: nbdHelp, set: (*parser).setNBD},
		{name: "nbd-default-export", about: "the disk of NBD clients that name none (default: none)", set: func(p *parser, arg string) error { p.cfg.nbd.fallback = arg; return nil }},
		{name: "nbd-exports", about: "export only disks of these names: GLOB[,GLOB]...", set: (*parser).setNBDExports},
		{name: "nbd-handshake-timeout", about: "seconds an NBD client has to choose a disk (default: 10)", set: (*parser).setNBDHandshake},
		{name: "nbd-insecure", about: "allow NBD without TLS at addresses that others can reach", toggle: func(p *parser) error { p.cfg.nbd.insecure = true; return nil }},
		{name: "nbd-max-connections", about: "most NBD connections at once (default: 256)", set: (*parser).setNBDConns},
		{name: "nbd-max-inflight", about: "most memory for NBD requests in flight (default: 256M)", set: (*parser).setNBDMemory},
		{name: "nbd-read-only", about: "export all disks read-only", toggle: func(p *parser) error { p.cfg.nbd.readOnly = true; return nil }},
		{name: "nbd-tls", about: "NBD clients may or must use TLS: allow or require (default: allow)", set: (*parser).setNBDTLS},
		{name: "nbd-tls-ca", about: "NBD clients need a certificate of this authority (PEM)", set: setFile("NBD authority", func(c *config) *string { return &c.nbd.tls.ca })},
		{name: "nbd-tls-cert", about: "certificate of the NBD server (PEM)", set: setFile("NBD certificate", func(c *config) *string { return &c.nbd.tls.cert })},
		{name: "nbd-tls-key", about: "its private key (PEM)", set: setFile("NBD key", func(c *config) *string { return &c.nbd.tls.key })},
		{letter: "n", name: "nosync", about: "do not sync what is written to disk", toggle: func(p *parser) error { p.cfg.noSync = true; return nil }},
		{letter: "p", name: "port", about: "listen on this TCP port (default: 7000)", set: (*parser).setPort},
		{letter: "P", name: "pidfile", about: "keep the process id in this file", set: (*parser).setPidFile},
		{letter: "r", name: "http", about: "HTTP object service: host=,port=,buffer=,swift", detail: httpHelp, set: (*parser).setHTTP},
		{letter: "R", name: "recovery", about: "slow recovery down: max=N,interval=MS,rate=SIZE (default: no limit)", detail: recoveryHelp, set: (*parser).setRecovery},
		{name: "scrub", about: "compare copies in the background: every=,rate=,hours= (default: weekly)", detail: scrubHelp, set: (*parser).setScrub},
		{letter: "u", name: "upgrade", about: "bring the store directory to the latest layout", toggle: func(p *parser) error {
			return p.info("--upgrade: there is nothing to upgrade, every layout that can be read is used as it is")
		}},
		{letter: "v", name: "version", about: "show the version and exit", toggle: func(*parser) error { return &exit{stdout: versionText()} }},
		{letter: "V", name: "vnodes", about: "fixed number of vnodes (default: by the size of the disk)", detail: vnodesHelp, set: (*parser).setVNodes},
		{letter: "w", name: "wq-threads", alias: "cache", about: "numbers of threads (accepted, without effect)", set: (*parser).setThreads},
		{letter: "W", name: "wildcard-recovery", about: "search all nodes and epochs in the first recovery", toggle: func(*parser) error { return notYet("--wildcard-recovery") }},
		{letter: "x", name: "max-dynamic-threads", about: "most threads (accepted, without effect)", set: (*parser).setMaxThreads},
		{letter: "y", name: "myaddr", about: "the address that other nodes shall use (default: by the driver)", detail: myAddrHelp, set: (*parser).setMyAddr},
		{letter: "z", name: "zone", about: "failure domain of this node (default: from its address)", detail: zoneHelp, set: (*parser).setZone},
	}
}

// syntax returns what getopt has to know of the options.
func syntax(opts []option) []getopt.Option {
	known := make([]getopt.Option, len(opts))
	for i, o := range opts {
		known[i] = getopt.Option{
			Letter:   o.letter,
			Name:     o.name,
			Alias:    o.alias,
			Argument: o.set != nil,
			Whole:    o.letter == "", // ours must not make C's abbreviations ambiguous
		}
	}
	return known
}

func (p *parser) setBind(arg string) error {
	addr, err := netip.ParseAddr(arg)
	if err != nil || addr.Zone() != "" {
		return refuse("Bad address '%s'", arg)
	}
	p.cfg.bind = addr.Unmap()
	return nil
}

// resolveTimeout bounds the look-up of the name of this node.
const resolveTimeout = 10 * time.Second

func (p *parser) setMyAddr(arg string) error {
	addr, err := netip.ParseAddr(arg)
	if err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
		defer cancel()
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", arg)
		if err != nil || len(found) == 0 {
			return refuse("Invalid address: '%s'", arg)
		}
		addr = found[0]
	}
	if addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "" {
		return refuse("Invalid address: '%s'", arg)
	}
	p.cfg.myAddr = addr.Unmap()
	return nil
}

func (p *parser) setPort(arg string) error {
	n, ok := parseNumber(arg, 1, 65535)
	if !ok {
		return refuse("Invalid port number '%s'", arg)
	}
	p.cfg.port = uint16(n)
	return nil
}

func (p *parser) setPidFile(arg string) error {
	if arg == "" {
		return refuse("Invalid pid file ''")
	}
	path, err := p.absolute(arg)
	if err != nil {
		return refuse("failed to pid file '%s' - %s", arg, reason(err))
	}
	p.cfg.pidFile = path
	return nil
}

func (p *parser) setVNodes(arg string) error {
	n, ok := parseNumber(arg, 1, 65535)
	if !ok {
		return refuse("Invalid number of vnodes '%s': must be an integer between 1 and 65535", arg)
	}
	p.cfg.vnodes = uint16(n)
	return nil
}

func (p *parser) setZone(arg string) error {
	n, ok := parseNumber(arg, 0, 4294967295)
	if !ok {
		return refuse("Invalid zone id '%s': must be an integer between 0 and 4294967295", arg)
	}
	zone := uint32(n)
	p.zone = &zone
	return nil
}

func (p *parser) setMaxThreads(arg string) error {
	if _, ok := parseNumber(arg, 1, 4294967295); !ok {
		return refuse("Invalid number of threads '%s': must be an integer between 1 and 4294967295", arg)
	}
	return p.info("--max-dynamic-threads has no effect: this sheep has no pools of threads")
}
