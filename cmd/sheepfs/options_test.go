package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sheepdog/cmd/internal/logging"
)

func TestParse(t *testing.T) {
	for _, test := range []struct {
		about string
		args  string
		check func(config) bool
	}{
		{"the defaults", "sheepfs /mnt", func(c config) bool {
			return c.fs.Server == "127.0.0.1:7000" && c.point == "/mnt" && !c.foreground && !c.fs.PageCache && c.fs.Wait == 0 &&
				c.failure == 1 && c.logs.destination == toSyslog && c.fs.UID == uint32(os.Geteuid()) && c.fs.Mode == 0
		}},
		{"C's short options", "sheepfs -a 10.0.0.1 -p 7001 -k -f /mnt", func(c config) bool {
			return c.fs.Server == "10.0.0.1:7001" && c.fs.PageCache && c.foreground && c.logs.destination == toStdout
		}},
		{"C's long options", "sheepfs --address ::1 --port 7001 --pagecache --objectcache --foreground /mnt", func(c config) bool {
			return c.fs.Server == "[::1]:7001" && c.fs.PageCache && c.fs.ObjectCache && c.foreground
		}},
		{"debugging", "sheepfs -d /mnt", func(c config) bool {
			return c.foreground && c.fs.Debug && c.logs.severity == logging.Debug
		}},
		{"a source", "sheepfs host:7002 /mnt -o rw", func(c config) bool {
			return c.fs.Server == "host:7002" && c.failure == mountFailure && c.fs.Source == "host:7002"
		}},
		{"a source without a port", "sheepfs host /mnt", func(c config) bool { return c.fs.Server == "host:7000" }},
		{"a source of IPv6", "sheepfs [::1]:7002 /mnt", func(c config) bool { return c.fs.Server == "[::1]:7002" }},
		{"no real source", "sheepfs none /mnt -o address=h,port=9", func(c config) bool { return c.fs.Server == "h:9" }},
		{"mount's helper", "/sbin/mount.sheepfs h:1 mnt -s -f -n -v -N x -t sheepfs -o rw,nonsense", func(c config) bool {
			return c.fake && !c.foreground && c.failure == mountFailure && filepath.IsAbs(c.point)
		}},
		{"options of fstab", "mount.sheepfs h:1 /mnt -o rw,dev,suid,nofail,user=me,x-gvfs-show,auto,comment=x,relatime", func(c config) bool {
			return slices.Equal(c.fs.Options, []string{"dev", "suid"}) && !c.fs.ReadOnly
		}},
		{"ours", "mount.sheepfs h:1 /mnt -o ro,page_cache,object_cache,allow_other,umask=022,uid=5,gid=6,fsname=x", func(c config) bool {
			return c.fs.ReadOnly && c.fs.PageCache && c.fs.ObjectCache && c.fs.AllowOther && c.fs.Mode == 0o755 && c.fs.UID == 5 && c.fs.GID == 6 && c.fs.Source == "x"
		}},
		{"a mount over the network", "mount.sheepfs h:1 /mnt -o _netdev", func(c config) bool { return c.fs.Wait == netdevWait }},
		{"with its own time", "mount.sheepfs h:1 /mnt -o wait=5,_netdev,patience=7", func(c config) bool {
			return c.fs.Wait == 5*time.Second && c.fs.Patience == 7*time.Second
		}},
		{"without waiting", "mount.sheepfs h:1 /mnt -o _netdev,wait=0", func(c config) bool { return c.fs.Wait <= 0 }},
		{"several lists", "sheepfs -o ro -o page_cache,direct_io /mnt", func(c config) bool { return c.fs.ReadOnly && !c.fs.PageCache }},
		{"a log in a directory", "sheepfs -l level=debug,format=json,dir=/ /mnt", func(c config) bool {
			return c.logs == logConfig{severity: logging.Debug, format: logging.JSON, destination: toFile, dir: "/"}
		}},
		{"a log by mount options", "mount.sheepfs h:1 /mnt -o loglevel=err,logdir=/,logformat=server", func(c config) bool {
			return c.logs == logConfig{severity: logging.Err, format: logging.Server, destination: toFile, dir: "/"}
		}},
	} {
		c, err := parse(strings.Fields(test.args))
		if err != nil || !test.check(c) {
			t.Errorf("%s: %s: %+v, %v", test.about, test.args, c, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, test := range []struct{ args, says string }{
		{"sheepfs", "mount point"},
		{"sheepfs a b c", "mount point"},
		{"mount.sheepfs /mnt", "mount point"},
		{"sheepfs -p 0 /mnt", "Invalid port number '0'"},
		{"sheepfs -p 1a /mnt", "Invalid port number '1a'"},
		{"sheepfs h:99999 /mnt", "Invalid port number '99999'"},
		{"sheepfs :: /mnt", "HOST:PORT"},
		{"sheepfs :7000 /mnt", "Invalid address"},
		{"sheepfs -n /mnt", "--help"},
		{"sheepfs --nonsense /mnt", "--help"},
		{"sheepfs -o nonsense /mnt", "unknown mount option nonsense"},
		{"sheepfs -o umask=9 /mnt", "umask=9"},
		{"sheepfs -o umask=0777 /mnt", "nobody"},
		{"sheepfs -o uid=me /mnt", "uid=me"},
		{"sheepfs -o wait=soon /mnt", "seconds"},
		{"sheepfs -l level=loud /mnt", "Invalid log level 'loud'"},
		{"sheepfs -l format=xml /mnt", "invalid log format: xml"},
		{"sheepfs -l dst=moon /mnt", "invalid type of log destination: moon"},
		{"sheepfs -l dir=/nosuch /mnt", "log dir"},
		{"sheepfs -l dir=/,dst=syslog /mnt", "syslog"},
		{"sheepfs -l dst=default /mnt", "dir="},
		{"sheepfs -l colour=red /mnt", "colour"},
	} {
		if _, err := parse(strings.Fields(test.args)); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %v, want words like %q", test.args, err, test.says)
		}
	}
	for _, args := range []string{"sheepfs --help", "sheepfs -h", "sheepfs --version"} {
		_, err := parse(strings.Fields(args))
		if m, ok := err.(*misuse); !ok || !m.help || !strings.Contains(m.text, "Sheepdog file system") {
			t.Errorf("%s: %v", args, err)
		}
	}
}
