package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sheepdog/sheep/cluster"
	"sheepdog/sheep/cluster/gossip"
	"sheepdog/sheep/cluster/local"
)

// The cluster drivers.
const (
	driverLocal  = "local"
	driverGossip = "gossip"
)

// supportedDrivers returns the drivers that this program has.
func supportedDrivers() []string { return []string{driverLocal, driverGossip} }

// gossipDir is where, in the store directory, the gossip driver keeps its log.
const gossipDir = "gossip"

// portDistance lies between the port of a sheep and the default one of its
// cluster's traffic, so that several sheep of one machine do not meet.
const portDistance = gossip.DefaultPort - defaultPort

// A gossipConfig is what the command line says of the cluster's traffic.
type gossipConfig struct {
	seeds     []string       // "host:port"
	bind      netip.AddrPort // zero parts follow from other options
	advertise netip.AddrPort // likewise
	port      uint16         // 0 means by the port of the sheep
	key       string         // file, or empty
}

// joinMachines tells how a sheep that other machines reach, but that is alone
// with its own, joins them.
const joinMachines = "clients of other machines can reach this sheep, but its cluster is of this machine alone (-c local); " +
	"to join machines, start the first sheep with -c gossip and the others with -c gossip:ADDRESS-OF-THE-FIRST"

func newDriver(cfg config) (cluster.Driver, error) {
	switch cfg.driver {
	case driverLocal:
		if !cfg.bind.IsLoopback() {
			cfg.log.Info(joinMachines)
		}
		return local.New(cfg.driverOption, local.Config{Log: cfg.log}), nil
	case driverGossip:
		key, err := readClusterKey(cfg.gossip.key)
		if err != nil {
			return nil, err
		}
		return gossip.New(gossip.Config{
			Dir: filepath.Join(cfg.dir, gossipDir), Bind: cfg.gossip.bind, Advertise: cfg.gossip.advertise,
			Seeds: cfg.gossip.seeds, Key: key, Log: cfg.log,
		}), nil
	}
	return nil, fmt.Errorf("cluster driver %s: not supported yet", cfg.driver)
}

// gossipHealDelay is how long a cluster of machines waits for the copies of one
// that has left, unless it is told otherwise: most are back by then, because they
// were only started again.
const gossipHealDelay = 5 * time.Minute

// healDelay returns how long the copies of a node that has left are waited for. On
// one machine nobody starts again for long, and those who use the local driver, as
// C Sheepdog's tests do, expect healing at once.
func healDelay(cfg config) time.Duration {
	if cfg.driver == driverGossip {
		return gossipHealDelay
	}
	return 0
}

// readClusterKey returns the key in a file; what blanks surround it do not count.
func readClusterKey(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's key: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("read the cluster's key: others may read %s (mode %04o); make it 0600", file, mode)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's key: %w", err)
	}
	key := bytes.TrimSpace(b)
	if len(key) < gossip.MinKey {
		return nil, fmt.Errorf("read the cluster's key: %s has %d bytes, a key needs %d; "+
			"'openssl rand -base64 32' makes a good one", file, len(key), gossip.MinKey)
	}
	return key, nil
}

// setSeeds takes what follows "gossip:".
func (p *parser) setSeeds(arg string) error {
	p.cfg.gossip.seeds = nil
	for item := range strings.SplitSeq(arg, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		seed, ok := parseSeed(item)
		if !ok {
			return refuse("Invalid seed '%s': must be ADDRESS or ADDRESS:PORT", item)
		}
		p.cfg.gossip.seeds = append(p.cfg.gossip.seeds, seed)
	}
	return nil
}

// parseSeed returns the "host:port" that s stands for.
func parseSeed(s string) (string, bool) {
	port := strconv.Itoa(gossip.DefaultPort)
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return net.JoinHostPort(addr.Unmap().String(), port), !addr.IsUnspecified()
	}
	host, number, err := net.SplitHostPort(s)
	if err != nil {
		host, number = s, port
	}
	if _, ok := parseNumber(number, 1, 65535); !ok {
		return "", false
	}
	if _, err := netip.ParseAddr(host); err != nil && (host == "" || strings.ContainsAny(host, ":/[] ")) {
		return "", false
	}
	return net.JoinHostPort(host, number), true
}

// parsePlace returns the address, and the port if there is one, of
// ADDRESS[:PORT].
func parsePlace(s string) (netip.AddrPort, bool) {
	if addr, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && addr.Zone() == "" {
		return netip.AddrPortFrom(addr.Unmap(), 0), true
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Addr().Zone() != "" || ap.Port() == 0 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true
}

func (p *parser) setClusterBind(arg string) error {
	at, ok := parsePlace(arg)
	if !ok {
		return refuse("Invalid address '%s': must be ADDRESS or ADDRESS:PORT", arg)
	}
	p.cfg.gossip.bind = at
	return nil
}

func (p *parser) setClusterAdvertise(arg string) error {
	at, ok := parsePlace(arg)
	if !ok || at.Addr().IsUnspecified() || at.Addr().IsMulticast() {
		return refuse("Invalid address '%s': must be ADDRESS or ADDRESS:PORT", arg)
	}
	p.cfg.gossip.advertise = at
	return nil
}

func (p *parser) setClusterPort(arg string) error {
	n, ok := parseNumber(arg, 1, 65535)
	if !ok {
		return refuse("Invalid port number '%s'", arg)
	}
	p.cfg.gossip.port = uint16(n)
	return nil
}

// finishCluster fills in what was not said of the cluster's traffic.
func (p *parser) finishCluster() error {
	cfg, g := &p.cfg, &p.cfg.gossip
	if cfg.driver != driverGossip {
		if g.bind.IsValid() || g.advertise.IsValid() || g.port != 0 || g.key != "" {
			return refuse("The options --cluster-... need the driver gossip (-c gossip)")
		}
		return nil
	}
	if g.port == 0 {
		if g.port = cfg.port + portDistance; g.port < cfg.port {
			return refuse("Choose the port of the cluster's traffic with --cluster-port: port %d leaves no room for it", cfg.port)
		}
	}
	if !g.bind.Addr().IsValid() {
		g.bind = netip.AddrPortFrom(cfg.bind, 0)
	}
	if g.bind.Port() == 0 {
		g.bind = netip.AddrPortFrom(g.bind.Addr(), g.port)
	}
	if !g.advertise.Addr().IsValid() {
		g.advertise = netip.AddrPortFrom(cfg.myAddr, 0)
	}
	if g.advertise.Port() == 0 {
		g.advertise = netip.AddrPortFrom(g.advertise.Addr(), g.bind.Port())
	}
	if cfg.myAddr.IsLoopback() {
		p.warn(fmt.Sprintf("the other nodes are told the address %v, which no other machine can reach; --myaddr sets it", cfg.myAddr))
	}
	return nil
}

// routePatience bounds the look-up of a seed's name.
const routePatience = 5 * time.Second

// ownAddress returns the address from which this machine reaches the first
// seed that it has a route to, or else the world.
func ownAddress(seeds []string) netip.Addr {
	for _, to := range append(seeds[:len(seeds):len(seeds)], "192.0.2.1:9", "[2001:db8::1]:9") {
		conn, err := net.DialTimeout("udp", to, routePatience) // sends nothing
		if err != nil {
			continue
		}
		addr := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		conn.Close()
		if !addr.IsLoopback() && addr.Zone() == "" {
			return addr
		}
	}
	return firstAddress()
}

// firstAddress returns the first address that other machines may reach, or that
// of the loopback.
func firstAddress() netip.Addr {
	addrs, err := net.InterfaceAddrs()
	if err == nil {
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
				return p.Addr().Unmap()
			}
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}
