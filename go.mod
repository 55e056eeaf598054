module sheepdog

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.3.1 // tests: whether a history of operations is linearizable
	github.com/hanwen/go-fuse/v2 v2.12.1 // FUSE: sheepfs, and a disk for the tests that forgets what was not synced
	github.com/mdlayher/genetlink v1.4.0 // the kernel's nbd client is driven through generic netlink
	github.com/mdlayher/netlink v1.11.2 // likewise: the attributes of its messages
	github.com/pojntfx/go-nbd v0.3.2 // constants of the NBD protocol; "latest" of this module is refused by the proxy, keep the version
	github.com/spf13/cobra v1.10.2 // the command tree, help and completion of dog
	github.com/spf13/pflag v1.0.10 // long options of sheep
	golang.org/x/sys v0.49.0 // system calls that package syscall lacks: fallocate, xattrs, OFD locks, inotify
	golang.org/x/term v0.47.0 // the width of a terminal, for progress bars
)

require (
	github.com/hashicorp/go-hclog v1.6.3 // raft's interface for logs, led into ours
	github.com/hashicorp/memberlist v0.7.0 // nodes of a cluster find each other by gossip
	github.com/hashicorp/raft v1.8.0 // the order of the cluster's log among machines
	go.etcd.io/bbolt v1.5.0 // keeps raft's log; raft-boltdb does not build with raft 1.8
)

require (
	github.com/BurntSushi/toml v1.4.1-0.20240526193622-a339e1f7089c // indirect
	github.com/fatih/color v1.13.0 // indirect
	github.com/google/btree v1.1.3 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/hashicorp/errwrap v1.1.0 // indirect
	github.com/hashicorp/go-immutable-radix v1.3.1 // indirect
	github.com/hashicorp/go-metrics v0.7.0 // indirect
	github.com/hashicorp/go-msgpack/v2 v2.1.5 // indirect
	github.com/hashicorp/go-multierror v1.1.1 // indirect
	github.com/hashicorp/go-sockaddr v1.0.7 // indirect
	github.com/hashicorp/golang-lru v1.0.2 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/mattn/go-colorable v0.1.12 // indirect
	github.com/mattn/go-isatty v0.0.14 // indirect
	github.com/mdlayher/socket v0.6.0 // indirect
	github.com/miekg/dns v1.1.73 // indirect
	github.com/sean-/seed v0.0.0-20170313163322-e2103e2c3529 // indirect
	golang.org/x/exp/typeparams v0.0.0-20231108232855-2478ac86f678 // indirect
	golang.org/x/mod v0.42.0 // indirect
	golang.org/x/net v0.61.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/telemetry v0.0.0-20261009151841-97e8ea77aa2a // indirect
	golang.org/x/tools v0.52.0 // indirect
	honnef.co/go/tools v0.8.2 // indirect
)

tool (
	golang.org/x/tools/cmd/deadcode
	honnef.co/go/tools/cmd/staticcheck
)
