module sheepdog

go 1.26.0

require (
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
	github.com/BurntSushi/toml v1.4.1-0.20240526193622-a339e1f7089c // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/mdlayher/socket v0.6.0 // indirect
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
