package main

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"sheepdog/cmd/internal/logging"
	"sheepdog/nbd"
	"sheepdog/sheep"
	"sheepdog/sheep/scrub"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

// here is the working directory of the tests of the command line.
func here() (string, error) { return "/here", nil }

// plain returns the config of an empty command line.
func plain() config {
	return config{
		dir:    "/tmp",
		port:   7000,
		myAddr: netip.MustParseAddr("127.0.0.1"),
		zone:   16777343,
		driver: "local",
		nbd:    nbdConfig{maxConns: 256, maxMemory: 256 << 20, handshake: 10 * time.Second},
		scrub:  scrub.Config{Every: 7 * 24 * time.Hour, Rate: 32 << 20},
		logs:   logConfig{severity: logging.Info, format: logging.Server, destination: toFile, dir: "/tmp"},
	}
}

func TestParse(t *testing.T) {
	etc, err := filepath.EvalSymlinks("/etc")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		want func(c *config)
	}{
		{"nothing", nil, func(*config) {}},
		{"a directory", []string{"/srv/s1"}, func(c *config) { c.dir, c.logs.dir = "/srv/s1", "/srv/s1" }},
		{"a relative directory", []string{"s1/"}, func(c *config) { c.dir, c.logs.dir = "/here/s1", "/here/s1" }},
		{"a comma without a disk", []string{"/srv/s1,"}, func(c *config) { c.dir, c.logs.dir = "/srv/s1", "/srv/s1" }},
		{"options behind the directory", []string{"/srv/s1", "-z", "3", "-p7003", "-n"}, func(c *config) {
			c.dir, c.logs.dir, c.zone, c.port, c.noSync = "/srv/s1", "/srv/s1", 3, 7003, true
		}},
		{"the shape of the functional tests", strings.Fields("/srv/1 -z 1 -p 7001 -c local -n -y 127.0.0.1 -l level=debug"), func(c *config) {
			c.dir, c.logs.dir, c.zone, c.port, c.noSync = "/srv/1", "/srv/1", 1, 7001, true
			c.logs.severity = logging.Debug
		}},
		{"the shape of the distributions", strings.Fields("--pidfile /var/run/sheep.pid --cluster local --log dst=syslog --upgrade /var/lib/sheepdog"), func(c *config) {
			c.dir, c.logs.dir, c.pidFile = "/var/lib/sheepdog", "/var/lib/sheepdog", "/var/run/sheep.pid"
			c.logs.destination = toSyslog
			c.notices = notices("--upgrade: there is nothing to upgrade, every layout that can be read is used as it is")
		}},
		{"NBD", strings.Fields("--nbd 127.0.0.1:10809 --nbd=unix:nbd.sock --nbd systemd --nbd [::1]:1 --nbd-exports vm-*,Alice --nbd-read-only --nbd-max-inflight 1G"), func(c *config) {
			c.nbd.addrs = addresses("127.0.0.1:10809", "unix:/here/nbd.sock", "systemd", "[::1]:1")
			c.nbd.globs, c.nbd.readOnly, c.nbd.maxMemory = []string{"vm-*", "Alice"}, true, 1<<30
		}},
		{"NBD for everybody", strings.Fields("--nbd :10809 --nbd-insecure --nbd-default-export Alice --nbd-max-connections 9 --nbd-handshake-timeout 3"), func(c *config) {
			c.nbd.addrs, c.nbd.insecure, c.nbd.fallback = addresses(":10809"), true, "Alice"
			c.nbd.maxConns, c.nbd.handshake = 9, 3*time.Second
		}},
		{"NBD over TLS", strings.Fields("--nbd :10809 --nbd-tls require --nbd-tls-cert c.pem --nbd-tls-key /k.pem --nbd-tls-ca ca.pem"), func(c *config) {
			c.nbd.addrs = addresses(":10809")
			c.nbd.tls = nbdTLS{cert: "/here/c.pem", key: "/k.pem", ca: "/here/ca.pem", require: true}
		}},
		{"toggles", []string{"-fgn"}, func(c *config) { c.foreground, c.gateway, c.noSync = true, true, true }},
		{"long names", strings.Fields("--foreground --gateway --nosync"), func(c *config) {
			c.foreground, c.gateway, c.noSync = true, true, true
		}},
		{"shortened long names", strings.Fields("--fore --zo=4 --vn 5 --n"), func(c *config) {
			c.foreground, c.zone, c.vnodes, c.noSync = true, 4, 5, true
		}},
		{"around the page cache", []string{"-D"}, func(c *config) {
			c.notices = notices("--directio has no effect: objects are always read and written through the page cache")
		}},
		{"an address to listen on is also told", []string{"-b", "192.168.1.5"}, func(c *config) {
			c.bind, c.myAddr, c.zone = netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("192.168.1.5"), 0x0501a8c0
		}},
		{"all addresses are not told", []string{"-b", "0.0.0.0"}, func(c *config) { c.bind = netip.IPv4Unspecified() }},
		{"IPv6", []string{"-b", "::", "-y", "fd00::102"}, func(c *config) {
			c.bind, c.myAddr, c.zone = netip.IPv6Unspecified(), netip.MustParseAddr("fd00::102"), 0x02010000
		}},
		{"an IPv4 address in IPv6 clothes", []string{"-y", "::ffff:10.0.0.1"}, func(c *config) {
			c.myAddr, c.zone = netip.MustParseAddr("10.0.0.1"), 0x0100000a
		}},
		{"a host name", []string{"-b", "0.0.0.0", "-y", "localhost", "-z", "0"}, func(c *config) { c.bind, c.zone = netip.IPv4Unspecified(), 0 }},
		{"numbers as C reads them", []string{"-p", " +7010", "-z", "\t4294967295", "-V", "+065535"}, func(c *config) {
			c.port, c.zone, c.vnodes = 7010, 4294967295, 65535
		}},
		{"the last one counts", strings.Fields("-p 1 -p 2 -l level=debug -l level=err"), func(c *config) { c.port, c.logs.severity = 2, logging.Err }},
		{"a cluster file", []string{"-c", "local:/tmp/c"}, func(c *config) { c.driverOption = "/tmp/c" }},
		{"a relative cluster file", []string{"-c", "local:c/d"}, func(c *config) { c.driverOption = "/here/c/d" }},
		{"a cluster of machines", strings.Fields("-c gossip -y 10.0.0.1"), func(c *config) {
			c.driver, c.myAddr, c.zone = "gossip", netip.MustParseAddr("10.0.0.1"), sheep.DefaultZone(netip.MustParseAddr("10.0.0.1"))
			c.gossip = gossipConfig{
				bind: netip.AddrPortFrom(netip.Addr{}, 7900), advertise: netip.MustParseAddrPort("10.0.0.1:7900"), port: 7900,
			}
		}},
		{"a cluster of machines with everything said", strings.Fields("--cluster gossip:10.0.0.2,h:8000,[fd00::1]:9,fd00::2,[fd00::3], -b 10.0.0.1 -p 7001 -z 1 " +
			"--cluster-key k --cluster-bind 0.0.0.0:8100 --cluster-advertise 10.0.0.9"), func(c *config) {
			c.driver, c.bind, c.myAddr, c.port, c.zone = "gossip", netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.1"), 7001, 1
			c.gossip = gossipConfig{
				seeds: []string{"10.0.0.2:7900", "h:8000", "[fd00::1]:9", "[fd00::2]:7900", "[fd00::3]:7900"},
				bind:  netip.MustParseAddrPort("0.0.0.0:8100"), advertise: netip.MustParseAddrPort("10.0.0.9:8100"),
				port: 7901, key: "/here/k",
			}
		}},
		{"another port of the cluster's", strings.Fields("-c gossip -b 10.0.0.1 -z 1 --cluster-port 5"), func(c *config) {
			c.driver, c.bind, c.myAddr, c.zone = "gossip", netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.1"), 1
			at := netip.MustParseAddrPort("10.0.0.1:5")
			c.gossip = gossipConfig{bind: at, advertise: at, port: 5}
		}},
		{"a cluster file without a name", []string{"-c", "local:"}, func(*config) {}},
		{"a relative pid file", []string{"-P", "s.pid"}, func(c *config) { c.pidFile = "/here/s.pid" }},
		{"a second address", []string{"-i", "host=10.0.0.1"}, func(c *config) { c.ioAddr = netip.MustParseAddrPort("10.0.0.1:7000") }},
		{"a second address with its port", []string{"-i", "port=7002,host=fd00::1"}, func(c *config) { c.ioAddr = netip.MustParseAddrPort("[fd00::1]:7002") }},
		{"all of the log", []string{"-l", "level=notice,dir=/etc,,format=json,dst=default,"}, func(c *config) {
			c.logs = logConfig{logging.Notice, logging.JSON, toFile, etc}
		}},
		{"the log on the terminal keeps sheep in the foreground", []string{"-l", "dst=stdout"}, func(c *config) {
			c.logs.destination, c.foreground = toStdout, true
		}},
		{"a throttle", []string{"-R", "max=50,interval=1500"}, func(c *config) { c.recovery = recoveryThrottle{50, 1500 * time.Millisecond, 0} }},
		{"a rate of recovery", []string{"-R", "rate=64M"}, func(c *config) { c.recovery = recoveryThrottle{rate: 64 << 20} }},
		{"all limits of recovery", []string{"-R", "rate=1K,max=1,interval=2"}, func(c *config) { c.recovery = recoveryThrottle{1, 2 * time.Millisecond, 1024} }},
		{"a scrub", []string{"--scrub", "every=2d,rate=64M,hours=22-6"}, func(c *config) {
			c.scrub = scrub.Config{Every: 48 * time.Hour, Rate: 64 << 20, Hours: scrub.Hours{From: 22, To: 6}}
		}},
		{"a scrub by defaults", []string{"--scrub", "every=30m"}, func(c *config) {
			c.scrub = scrub.Config{Every: 30 * time.Minute, Rate: 32 << 20}
		}},
		{"no scrub", []string{"--scrub", "off"}, func(c *config) { c.scrub = scrub.Config{} }},
		{"half a throttle", []string{"-R", "max=50"}, func(c *config) {
			c.notices = notices("--recovery has no effect: a throttle needs a maximum and an interval above zero")
		}},
		{"the size of the journal", []string{"--journal-size", "256M"}, func(c *config) { c.journalSize = 256 << 20 }},
		{"the size of the journal in parts", []string{"--journal-size=0.5g"}, func(c *config) { c.journalSize = 512 << 20 }},
		{"threads", strings.Fields("-w net=4,gway=0,remove_peer=1 -x 12"), func(c *config) {
			c.notices = notices("--wq-threads has no effect: this sheep has no pools of threads",
				"--max-dynamic-threads has no effect: this sheep has no pools of threads")
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := parse(test.args, here)
			if err != nil {
				t.Fatal(err)
			}
			want := plain()
			test.want(&want)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// addresses returns what is listened at.
func addresses(texts ...string) []nbd.Address {
	all := make([]nbd.Address, len(texts))
	for i, text := range texts {
		var err error
		if all[i], err = nbd.ParseAddress(text); err != nil {
			panic(err)
		}
	}
	return all
}

// notices returns what is to be logged at level info.
func notices(texts ...string) []notice {
	var all []notice
	for _, text := range texts {
		all = append(all, notice{text: text})
	}
	return all
}

func TestFurtherArgumentsAreMentioned(t *testing.T) {
	got, err := parse([]string{"/srv/s1", "/srv/s2", "x"}, here)
	if err != nil {
		t.Fatal(err)
	}
	if got.dir != "/srv/s1" || len(got.notices) != 1 || !strings.HasSuffix(got.notices[0].text, "/srv/s2 x") {
		t.Errorf("got %s and notices %v", got.dir, got.notices)
	}
}

const levels = "Available log levels:\n" // the start of a table

func TestParseRefuses(t *testing.T) {
	const (
		try    = "\nTry 'sheep --help' for more information."
		zone   = "Invalid zone id '%s': must be an integer between 0 and 4294967295"
		vnodes = "Invalid number of vnodes '%s': must be an integer between 1 and 65535"
		xs     = "Invalid number of threads '%s': must be an integer between 1 and 4294967295"
		units  = "\nYou may use B, K, M, G, T or P suffixes for bytes, kilobytes, megabytes, gigabytes, terabytes and petabytes."
	)
	long := strings.Repeat("9", 40)
	type test struct {
		args   []string
		stderr string // %s stands for the last argument
		stdout string // its start
	}
	var tests []test
	bad := func(option, stderr string, values ...string) {
		for _, v := range values {
			tests = append(tests, test{args: []string{option, v}, stderr: stderr})
		}
	}
	numbers := []string{"", "a", "1a", "-", "+", "-1", "1 ", "1.5", "0x10", "1e3", "++1", "+ 1", long}
	bad("-p", "Invalid port number '%s'", append(numbers, "0", "65536", "7000,7001")...)
	bad("--port", "Invalid port number '%s'", numbers...)
	bad("-z", zone, append(numbers, "4294967296")...)
	bad("-V", vnodes, append(numbers, "0", "65536")...)
	bad("-x", xs, append(numbers, "0", "4294967296")...)
	bad("-b", "Bad address '%s'", "", "foo", "localhost", "1.2.3", "1.2.3.4:7000", "fe80::1%eth0", "256.1.1.1")
	bad("-y", "Invalid address: '%s'", "", "bad..name", "0.0.0.0", "::", "224.0.0.1", "fe80::1%eth0", "1.2.3.4:7000")
	bad("-P", "Invalid pid file '%s'", "")
	bad("--nbd", "Invalid NBD address '%s': must be ADDRESS:PORT, :PORT, unix:PATH or systemd", "", "1:2:3", ":", ":x", ":65536", "unix:")
	bad("--nbd", "NBD address %s can be reached from other machines, and without TLS everybody could read and write every disk: "+
		"use --nbd-tls=require with a certificate, or say --nbd-insecure", ":10809", "0.0.0.0:10809", "[::]:10809", "192.168.1.5:1", "a.b:10809")
	bad("--nbd-exports", "Invalid pattern of NBD exports '%s'", "", "[", "a,,b")
	bad("--nbd-tls", "Invalid use of TLS '%s': must be require or allow", "", "yes")
	bad("--nbd-tls", "NBD over TLS needs --nbd-tls-cert and --nbd-tls-key", "require")
	bad("--nbd-tls-ca", "NBD over TLS needs --nbd-tls-cert and --nbd-tls-key", "/ca.pem")
	bad("--nbd-tls-key", "NBD over TLS needs both --nbd-tls-cert and --nbd-tls-key", "/key.pem")
	bad("--nbd-tls-cert", "Invalid NBD certificate '%s': no path", "")
	bad("--nbd-max-connections", "Invalid number of NBD connections '%s': must be an integer between 1 and 100000", append(numbers, "0")...)
	bad("--nbd-max-inflight", "Invalid size of NBD requests in flight '%s': must be at least 128M", "0", "127M")
	bad("--nbd-handshake-timeout", "Invalid time of the NBD handshake '%s': must be an integer between 1 and 3600 (seconds)", append(numbers, "0", "3601")...)
	bad("-i", "Bad addr: '(null)'", "", "port=7", "host=", "host=,port=7")
	bad("--ioaddr", "invalid option %s", "foo", "nonblock", "hostname", "host", "port", "transport=tcp", "hostx=1.2.3.4")
	bad("-R", "invalid option %s", "foo", "max", "interval", "maximum=3", " max=3")
	bad("-l", "invalid option %s", "foo", "info", "level", "levels=debug", " level=info")
	bad("-w", "invalid option %s", "foo", "net", "gway_=3", "nett=1")
	bad("-W", "--wildcard-recovery: not supported yet", "/tmp")
	bad("-j", "you must specify size for journal", "", "dir=/tmp", "skip")
	bad("-j", "invalid option %s", "size", "foo", "skip=1")
	bad("-r", "'%s' is not a valid driver name", "foo", "swiftly")
	bad("-r", "--http: not supported yet", "", "swift", "host=h,port=8000,buffer=32M,swift")
	bad("--journal-size", "Invalid size '%s'"+units, "", "x", "M", "1GB", "-1", "1e", "1.2.3M", "inf", "nan", "1_0")
	bad("--journal-size", "Invalid journal size '%s': must be between 4M and 1T", "0", "1", "4194303", "1025G", "9999999P")
	bad("-c", "cluster driver 'corosync': not supported yet", "corosync")
	bad("-c", "cluster driver 'zookeeper': not supported yet", "zookeeper:127.0.0.1:2181,h:1/path,timeout=3")
	bad("-c", "You must specify zookeeper servers.", "zookeeper", "zookeeper:")
	bad("", "several disks (%s): not supported yet", "/srv/s1,/srv/d1", "/srv/s1,/srv/d1,/srv/d2")
	for _, seed := range []string{"h:0", "h:x", "a b", "0.0.0.0", "/tmp/x", ":7900"} {
		bad("-c", "Invalid seed '"+seed+"': must be ADDRESS or ADDRESS:PORT", "gossip:"+seed)
	}
	bad("--cluster-bind", "Invalid address '%s': must be ADDRESS or ADDRESS:PORT", "h", "10.0.0.1:0", "1.2.3.4:x")
	bad("--cluster-advertise", "Invalid address '%s': must be ADDRESS or ADDRESS:PORT", "0.0.0.0", "h:1", "224.0.0.1")
	bad("--cluster-port", "Invalid port number '%s'", "0", "65536", "x")
	tests = append(tests, []test{
		{strings.Fields("--cluster-port 5"), "The options --cluster-... need the driver gossip (-c gossip)", ""},
		{strings.Fields("-c gossip -b 10.0.0.1 -p 65000"), "Choose the port of the cluster's traffic with --cluster-port: port 65000 leaves no room for it", ""},
		{strings.Fields("-g -V 3"), "Options '-g' and '-V' can not be both specified", ""},
		{strings.Fields("-V 3 --gateway"), "Options '-g' and '-V' can not be both specified", ""},
		{strings.Fields("-c foo"), "Invalid cluster driver 'foo'", "\nSupported features:\n\tCluster drivers: local gossip\n"},
		{strings.Fields("-c localfoo"), "Invalid cluster driver 'localfoo'", "\nSupported features:\n"},
		{[]string{"-c", ""}, "Invalid cluster driver ''", "\nSupported features:\n"},
		{strings.Fields("-i host=foo"), "Bad addr: 'foo'", ""},
		{strings.Fields("-i host=0.0.0.0"), "Bad addr: '0.0.0.0'", ""},
		{strings.Fields("-i host=1.2.3.4,port=a"), "Bad port 'a'", ""},
		{strings.Fields("-i host=1.2.3.4,port=0"), "Bad port '0'", ""},
		{strings.Fields("-i host=1.2.3.4,nonblock"), "invalid option nonblock", ""},
		{strings.Fields("--scrub every=1ms"), "Invalid time '1ms': must be like 7d, 12h or 30m, and at least a second", ""},
		{strings.Fields("--scrub every=d"), "Invalid time 'd': must be like 7d, 12h or 30m, and at least a second", ""},
		{strings.Fields("--scrub hours=6"), "Invalid hours '6': must be like 22-6", ""},
		{strings.Fields("--scrub hours=1-25"), "Invalid hours '1-25': must be like 22-6", ""},
		{strings.Fields("-R max=a,interval=1"), "Invalid recovery throttle 'max=a': must be an integer between 0 and 4294967295", ""},
		{strings.Fields("-R max=1,interval=-1"), "Invalid recovery throttle 'interval=-1': must be an integer between 0 and 4294967295", ""},
		{strings.Fields("-l level=x"), "Invalid log level 'x'", levels},
		{strings.Fields("-l level="), "Invalid log level ''", levels},
		{strings.Fields("-l dir=/no/such"), "log dir: /no/such: No such file or directory", ""},
		{strings.Fields("-l dir="), "log dir: : No such file or directory", ""},
		{strings.Fields("-l dir=/dev/null"), "log dir: /dev/null is not a directory", ""},
		{strings.Fields("-l dst=x"), "invalid type of log destination: x", ""},
		{strings.Fields("-l format=x"), "invalid log format: x\nvalid options are:\n\tdefault\n\tserver\n\tjson", ""},
		{strings.Fields("-l dst=syslog,dir=/"), "logdir (/) is specified but logging destination is syslog", ""},
		{strings.Fields("-l dst=stdout,dir=/"), "logdir (/) is specified but logging destination is stdout", ""},
		{strings.Fields("-l level=info,foo"), "invalid option foo", ""},
		{strings.Fields("-w size=200G,dir=/cache,directio"), "object cache (-w size=200G,dir=/cache,directio): not supported yet", ""},
		{strings.Fields("--cache size=200G"), "object cache (-w size=200G): not supported yet", ""},
		{strings.Fields("-w net=1,io=x"), "Invalid number of threads 'io=x': must be an integer between 0 and 4294967295", ""},
		{strings.Fields("-j size=10M"), "invalid size 10M, must be bigger than 64(M)", ""},
		{strings.Fields("-j size=x"), "Invalid size 'x'" + units, ""},
		{strings.Fields("-j size=1G,dir=/j,skip"), "--journal (writes are always journalled; --journal-size sets the size): not supported yet", ""},
		{strings.Fields("-r port=x"), "Invalid port number 'x'", ""},
		{strings.Fields("-r buffer=2M"), "Invalid buffer option '2M': size must be between 4M and 1024M", ""},
		{strings.Fields("-r buffer=2000M"), "Invalid buffer option '2000M': size must be between 4M and 1024M", ""},
		{[]string{""}, "cannot create the directory  (No such file or directory)", ""},
		{[]string{","}, "cannot create the directory , (No such file or directory)", ""},
		{strings.Fields("-Q"), "sheep: invalid option -- 'Q'" + try, ""},
		{strings.Fields("-fQ"), "sheep: invalid option -- 'Q'" + try, ""},
		{strings.Fields("--foo"), "sheep: unrecognized option '--foo'" + try, ""},
		{strings.Fields("--foo -v"), "sheep: unrecognized option '--foo'" + try, ""},
		{strings.Fields("--p 3"), "sheep: option '--p' is ambiguous; possibilities: '--port' '--pidfile'" + try, ""},
		{strings.Fields("--foreground=1"), "sheep: option '--foreground' doesn't allow an argument" + try, ""},
		{strings.Fields("-p a -Q"), "Invalid port number 'a'", ""},
		{strings.Fields("-p"), "sheep: option requires an argument -- 'p'" + try, ""},
		{strings.Fields("-P"), "sheep: option requires an argument -- 'P'" + try, ""},
		{strings.Fields("-w"), "sheep: option requires an argument -- 'w'" + try, ""},
		{strings.Fields("-x"), "sheep: option requires an argument -- 'x'" + try, ""},
		{strings.Fields("--journal-size"), "sheep: option '--journal-size' requires an argument" + try, ""},
		{strings.Fields("-fc"), "sheep: option requires an argument -- 'c'", "Drivers:\n"},
		{strings.Fields("--cluster"), "sheep: option '--cluster' requires an argument", "Drivers:\n"},
		{strings.Fields("--j"), "sheep: option '--journal' requires an argument", "Items,"},
	}...)
	for _, test := range tests {
		args := test.args
		want := strings.ReplaceAll(test.stderr, "%s", args[len(args)-1])
		if args[0] == "" && len(args) > 1 {
			args = args[1:]
		}
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			_, err := parse(args, here)
			e, ok := errors.AsType[*exit](err)
			if !ok {
				t.Fatalf("got %v, want an exit", err)
			}
			if e.stderr != want || e.code != 1 {
				t.Errorf("got %q, status %d\nwant %q, status 1", e.stderr, e.code, want)
			}
			if !strings.HasPrefix(e.stdout, test.stdout) || e.stdout != "" && test.stdout == "" {
				t.Errorf("on the standard output got %q, want %q", e.stdout, test.stdout)
			}
		})
	}
}

func TestHelpAndVersionEndAtOnce(t *testing.T) {
	tests := []struct{ args, stdout string }{
		{"-h", "Sheepdog daemon (version " + sheep.Version() + ")\nUsage: sheep [OPTION]... [PATH] (default: /tmp)\nOptions:\n"},
		{"--help --foo", "Sheepdog daemon (version "},
		{"-hQ", "Sheepdog daemon (version "},
		{"-v", "Sheepdog daemon version " + sheep.Version() + "\n\nSupported features:\n\tCluster drivers: local gossip\n\tMiscellaneous: none\n"},
		{"--vers", "Sheepdog daemon version "},
		{"/srv/s1 -v -p bad", "Sheepdog daemon version "},
	}
	for _, test := range tests {
		t.Run(test.args, func(t *testing.T) {
			_, err := parse(strings.Fields(test.args), here)
			e, ok := errors.AsType[*exit](err)
			if !ok || e.code != 0 || e.stderr != "" || !strings.HasPrefix(e.stdout, test.stdout) {
				t.Errorf("got %+v, want status 0 and %q", err, test.stdout)
			}
		})
	}
}

func TestHelpIsAsReviewed(t *testing.T) {
	texts := []string{strings.ReplaceAll(help(), sheep.Version(), "VERSION")}
	for _, o := range options() {
		if o.detail != "" {
			texts = append(texts, "=== sheep -"+o.letter+"\n"+o.detail)
		}
	}
	golden(t, "help.txt", strings.Join(texts, "\n"))
}

func TestWhichOptionsExplainThemselves(t *testing.T) {
	var letters []string
	for _, o := range options() {
		if o.detail != "" {
			letters = append(letters, o.letter)
		}
		if (o.set == nil) == (o.toggle == nil) {
			t.Errorf("option %s needs one of set and toggle", o.name)
		}
	}
	if got, want := strings.Join(letters, ""), "bcijlrRVyz"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWithoutWorkingDirectory(t *testing.T) {
	gone := func() (string, error) { return "", os.ErrNotExist }
	if _, err := parse([]string{"/srv/s1"}, gone); err != nil {
		t.Errorf("absolute paths need none: %v", err)
	}
	for _, args := range []string{"s1", "-P x /s", "-c local:x /s", "-l dir=x /s"} {
		if _, err := parse(strings.Fields(args), gone); err == nil {
			t.Errorf("%s: no error", args)
		}
	}
}

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}
