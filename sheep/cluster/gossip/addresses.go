package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/raft"
)

// seeds returns the seeds that are not this node itself.
func (d *Driver) seeds(ctx context.Context) []string {
	var others []string
	for _, seed := range d.cfg.Seeds {
		if !d.isSelf(ctx, seed) {
			others = append(others, seed)
		}
	}
	return others
}

// resolvePatience bounds the look-up of a seed's name.
const resolvePatience = 5 * time.Second

func (d *Driver) isSelf(ctx context.Context, seed string) bool {
	own := d.mux.advertise
	if seed == own.String() {
		return true
	}
	host, number, err := net.SplitHostPort(seed)
	if err != nil || number != fmt.Sprint(own.Port()) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, resolvePatience)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return false
	}
	locals, err := net.InterfaceAddrs()
	for _, a := range addrs {
		if a.Unmap() == own.Addr() || err == nil && isLocal(a.Unmap(), locals) {
			return true
		}
	}
	return false
}

func isLocal(a netip.Addr, locals []net.Addr) bool {
	for _, l := range locals {
		if p, err := netip.ParsePrefix(l.String()); err == nil && p.Addr().Unmap() == a {
			return true
		}
	}
	return false
}

// addresses tells Raft where a node is now: what gossip says, because a node
// that has moved cannot tell Raft before it is found.
type addresses struct{ d *Driver }

var errUnknownAddress = errors.New("address unknown")

// ServerAddr implements raft.ServerAddressProvider. With an error Raft takes
// the address of its configuration.
func (a addresses) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if addr := a.d.addressOf(string(id)); addr != "" {
		return raft.ServerAddress(addr), nil
	}
	return "", errUnknownAddress
}

// addressOf returns where gossip finds a node, or an empty string.
func (d *Driver) addressOf(id string) string {
	if id == d.data.id {
		return d.mux.advertise.String()
	}
	return d.discovery.addressOf(id)
}

// servers returns the servers of Raft's configuration.
func (d *Driver) servers() []raft.Server {
	f := d.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}
