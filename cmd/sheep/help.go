package main

import (
	"fmt"
	"strings"

	"sheepdog/cmd/internal/logging"
	"sheepdog/sheep"
)

// help returns what -h prints.
func help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Sheepdog daemon (version %s)\n", sheep.Version())
	fmt.Fprintf(&b, "Usage: sheep [OPTION]... [PATH] (default: %s)\nOptions:\n", defaultDir)
	for _, o := range options() {
		letter := "   "
		if o.letter != "" {
			letter = "-" + o.letter + ","
		}
		fmt.Fprintf(&b, "  %s --%-18s", letter, o.name)
		if len(o.name) >= 18 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s\n", o.about)
	}
	b.WriteString("\nMost options explain themselves when they come last and without their argument, e.g. 'sheep -c'.\n")
	return b.String()
}

// versionText returns what -v prints.
func versionText() string {
	return fmt.Sprintf("Sheepdog daemon version %s\n\n%s\tMiscellaneous: none\n", sheep.Version(), featuresText())
}

// featuresText lists the cluster drivers.
func featuresText() string {
	return "Supported features:\n\tCluster drivers: " + strings.Join(supportedDrivers(), " ") + "\n"
}

// levelsHelp lists the levels of the log.
func levelsHelp() string {
	var b strings.Builder
	b.WriteString("Available log levels:\n")
	fmt.Fprintf(&b, "  %-10s %s\n", "Level", "Description")
	for s := logging.Emerg; s.Valid(); s++ {
		fmt.Fprintf(&b, "  %-10s %s\n", s, s.About())
	}
	return b.String()
}

func logHelp() string {
	return `Items, separated by commas:
	level=   keep what is at least so severe (default: info)
	dir=     the directory of sheep.log (default: the store directory)
	format=  default, server or json (default: server)
	dst=     default (a file), syslog or stdout (default: default)

The format "default" is the message alone, "server" adds the time and the place in the
program, "json" is one object a line. With dst=stdout sheep stays in the foreground.
SIGHUP, or 500 MB, makes sheep start a new file; the old one gets the time in its name.

` + levelsHelp() + `
Example:
	$ sheep -l dir=/var/log/sheepdog,level=debug,format=json ...
`
}

// What the options say when their argument is missing.
const (
	bindHelp = `An IP address of this machine. Without this option sheep listens on all of them.

Example:
	$ sheep -b 192.168.1.1 ...
Clients and other nodes reach this sheep at 192.168.1.1 only. Unless --myaddr
says otherwise it is also the address that the other nodes are told.
`
	clusterHelp = `Drivers:
	local[:PATH]  all sheep of the cluster run on this machine and share PATH
	gossip[:SEED[:PORT],...]
	              the sheep of the cluster run on many machines; without a seed this one
	              begins a new cluster, unless its store directory knows of one
	corosync      not supported yet
	zookeeper:HOST:PORT[,HOST:PORT...][/PATH][,timeout=MS]
	              not supported yet

Example:
	$ sheep -c local:/tmp/second-cluster ...
Sheep that name different paths belong to different clusters.

	first$ sheep -c gossip ...
	other$ sheep -c gossip:192.168.1.1 ...
The others name one or more sheep of the cluster that live; later they remember. They
talk on TCP and UDP port 7900, or 900 above the port of -p. One machine is no majority of
two: three make a cluster that survives the death of any, and one may be a gateway (-g).
`
	clusterKeyHelp = `A file that only its owner may read, the same on all nodes, with at least 16 bytes.
Without the key nobody joins the cluster or understands what its nodes tell each other
to keep it together. What clients and nodes read and write of disks is not encrypted.

Example:
	$ openssl rand -base64 32 >/etc/sheepdog.key && chmod 600 /etc/sheepdog.key
	$ sheep -c gossip:192.168.1.1 --cluster-key /etc/sheepdog.key ...
`
	ioAddrHelp = `Items, separated by commas:
	host=  IP address for the traffic of objects between nodes
	port=  its port (default: 7000)

Example:
	$ sheep -i host=10.0.0.1,port=7002 ...
Objects travel between the nodes by way of 10.0.0.1, all else by way of the first address.
`
	journalHelp = `Items, separated by commas:
	size=  size of the journal, at least 64M
	dir=   the directory of the journal (default: the store directory)
	skip   do not replay the journal at the start

A journal elsewhere than in the store directory is not supported yet. Writes are always
journalled; --journal-size sets the size of the journal.
`
	httpHelp = `Items, separated by commas:
	host=    address to listen on (default: localhost)
	port=    port to listen on (default: 8000)
	buffer=  memory for transfers, 4M to 1024M (default: 32M)
	swift    offer the interface of OpenStack Swift

The HTTP service is not supported yet.
`
	nbdHelp = `Where to listen for NBD clients; the option may be repeated:
	ADDRESS:PORT  an IP address of this machine, e.g. 127.0.0.1:10809
	:PORT         all of them
	unix:PATH     a UNIX socket
	systemd       the sockets that the service manager passes on

Each disk is exported by its name; NAME@TAG and NAME:ID are its snapshots, read-only. At
addresses that other machines can reach, sheep wants TLS or --nbd-insecure.

Example:
	$ sheep --nbd 127.0.0.1:10809 --nbd unix:/run/sheepdog/nbd.sock ...
	$ qemu-img info nbd://127.0.0.1/Alice
`
	recoveryHelp = `Items, separated by commas:
	max=       recover at most so many objects in an interval
	interval=  length of the interval in milliseconds
	rate=      fetch at most so many bytes a second; K, M, G may follow

Of max and interval both have to be above zero. Recovery gives way to clients in any case,
and what a client asks for is not held back. 'dog node recovery set-throttle' changes the
limits later.

Example:
	$ sheep -R max=50,interval=1000,rate=100M ...
`
	scrubHelp = `off, or items, separated by commas:
	every=  time from the end of one pass to the next: 12h, 7d (default: 7d)
	rate=   most bytes of objects that are compared in a second, 0 for no limit (default: 32M)
	hours=  hours of the day in which to work, e.g. 22-6 (default: all)

Each node compares the copies of the objects whose first copy it has with those of other
nodes, and repairs what differs: by majority, else by the newest. It gives way to
clients and to recovery. 'dog node stat' tells what was found.

Example:
	$ sheep --scrub every=14d,rate=64M,hours=22-6 ...
`
	vnodesHelp = `The number of this node's points on the placement ring, 1 to 65535. A node with twice
the points stores twice the objects. All nodes of a cluster must have this option, or
none of them; without it the numbers follow from the sizes of the disks.

Example:
	$ sheep -V 128 ...
`
	myAddrHelp = `An IP address or a host name. The other nodes and their clients use it to reach
this sheep.

Example:
	$ sheep -y 192.168.1.1 ...
`
	zoneHelp = `A number, 0 to 4294967295. Copies of an object are kept in different zones: give
the nodes that may fail together (one machine, one rack) the same number.

Example:
	$ sheep -z 1 ...
`
)
