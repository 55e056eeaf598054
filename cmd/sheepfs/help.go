package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"sheepdog/sheep"
)

// help returns what --help prints.
func help(flags *pflag.FlagSet) string {
	return fmt.Sprintf(`Sheepdog file system (version %s)
Usage: sheepfs [OPTION]... [HOST:PORT] MOUNTPOINT
       mount -t sheepfs HOST:PORT MOUNTPOINT [-o OPTIONS]
Options:
%s
Mount options:
  page_cache          as --pagecache
  wait=SECONDS        wait so long for the sheep to be up; _netdev means 60
  patience=SECONDS    how long an operation may take (default 60)
  allow_other         let all users use the tree, as the permissions say
  umask=MODE,uid=N,gid=N
                      the permissions of all files (default 077), and the owner
  ro, dev, suid, noexec, fsname=TEXT
                      as of other file systems
  loglevel=L, logdir=D, logformat=F, logdst=default|syslog|stdout
                      the log (default: the system's, or stderr with -f)
`, sheep.Version(), flags.FlagUsages())
}

// versionText returns what --version prints.
func versionText() string {
	return fmt.Sprintf("Sheepdog file system version %s\n", sheep.Version())
}
