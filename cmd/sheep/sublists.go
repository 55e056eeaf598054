package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sheepdog/cmd/internal/logging"
	"sheepdog/sheep/size"
)

// items splits the argument of an option at its commas and calls set for each
// item that is not empty: with the name and what follows its equals sign.
// An item that is none of the names is refused; a name that ends in an equals
// sign wants a value.
func items(arg string, names []string, set func(name, value string) error) error {
	for item := range strings.SplitSeq(arg, ",") {
		if item == "" {
			continue
		}
		name, value, valued := strings.Cut(item, "=")
		if valued {
			name += "="
		}
		if !slices.Contains(names, name) {
			return refuse("invalid option %s", item)
		}
		if err := set(strings.TrimSuffix(name, "="), value); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) setCluster(arg string) error {
	driver, option, _ := strings.Cut(arg, ":")
	switch driver {
	case driverGossip:
		p.cfg.driver, p.cfg.driverOption = driver, ""
		return p.setSeeds(option)
	case driverLocal:
		p.cfg.driver, p.cfg.driverOption = driver, ""
		if option == "" {
			return nil
		}
		path, err := p.absolute(option)
		if err != nil {
			return refuse("Invalid cluster driver '%s': %s", arg, reason(err))
		}
		p.cfg.driverOption = path
		return nil
	case "corosync":
		return notYet("cluster driver 'corosync'")
	case "zookeeper":
		if option == "" {
			return refuse("You must specify zookeeper servers.")
		}
		return notYet("cluster driver 'zookeeper'")
	}
	return &exit{stderr: "Invalid cluster driver '" + arg + "'", stdout: "\n" + featuresText(), code: 1}
}

func (p *parser) setIOAddr(arg string) error {
	var host, port string
	err := items(arg, []string{"host=", "port="}, func(name, value string) error {
		if name == "host" {
			host = value
			return nil
		}
		if _, ok := parseNumber(value, 1, 65535); !ok {
			return refuse("Bad port '%s'", value)
		}
		port = value
		return nil
	})
	if err != nil {
		return err
	}
	if host == "" {
		return refuse("Bad addr: '(null)'")
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" || addr.IsUnspecified() {
		return refuse("Bad addr: '%s'", host)
	}
	n := uint64(7000)
	if port != "" {
		n, _ = parseNumber(port, 1, 65535)
	}
	p.cfg.ioAddr = netip.AddrPortFrom(addr.Unmap(), uint16(n))
	return nil
}

// minJournal is the smallest size of the journal that C Sheepdog takes.
const minJournal = 64 << 20

func (p *parser) setJournal(arg string) error {
	sized := false
	err := items(arg, []string{"size=", "dir=", "skip"}, func(name, value string) error {
		if name != "size" {
			return nil
		}
		sized = true
		n, err := parseSize(value)
		if err == nil && n < minJournal {
			return refuse("invalid size %s, must be bigger than 64(M)", value)
		}
		return err
	})
	if err != nil {
		return err
	}
	if !sized {
		return refuse("you must specify size for journal")
	}
	return notYet("--journal (writes are always journalled; --journal-size sets the size)")
}

// The journal's size has bounds: a small one stands still all the time, and a
// huge one is a typing error.
const (
	minJournalSize = 4 << 20
	maxJournalSize = 1 << 40
)

func (p *parser) setJournalSize(arg string) error {
	n, err := parseSize(arg)
	if err != nil {
		return err
	}
	if n < minJournalSize || n > maxJournalSize {
		return refuse("Invalid journal size '%s': must be between 4M and 1T", arg)
	}
	p.cfg.journalSize = int64(n)
	return nil
}

func (p *parser) setLog(arg string) error {
	logs := &p.cfg.logs
	return items(arg, []string{"level=", "dir=", "format=", "dst="}, func(name, value string) error {
		var err error
		switch name {
		case "level":
			if logs.severity, err = logging.ParseSeverity(value); err != nil {
				return &exit{stderr: "Invalid log level '" + value + "'", stdout: levelsHelp(), code: 1}
			}
		case "dir":
			logs.dir, err = p.logDir(value)
		case "format":
			logs.format = logging.Format(value)
			if !slices.Contains(logging.Formats(), logs.format) {
				return refuse("invalid log format: %s\nvalid options are:\n\tdefault\n\tserver\n\tjson", value)
			}
		case "dst":
			logs.destination = destination(value)
			if !slices.Contains([]destination{toFile, toSyslog, toStdout}, logs.destination) {
				return refuse("invalid type of log destination: %s", value)
			}
		}
		return err
	})
}

// logDir checks the directory for the log file.
func (p *parser) logDir(arg string) (string, error) {
	path, err := p.absolute(arg)
	if err != nil {
		return "", refuse("log dir: %s: %s", arg, reason(err))
	}
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return "", refuse("log dir: %s: %s", arg, reason(err))
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", refuse("log dir: %s: %s", arg, reason(err))
	}
	if !info.IsDir() {
		return "", refuse("log dir: %s is not a directory", arg)
	}
	return path, nil
}

func (p *parser) setHTTP(arg string) error {
	for item := range strings.SplitSeq(arg, ",") {
		name, value, _ := strings.Cut(item, "=")
		switch name {
		case "", "host", "swift":
		case "port":
			if _, ok := parseNumber(value, 1, 65535); !ok {
				return refuse("Invalid port number '%s'", value)
			}
		case "buffer":
			if n, err := parseSize(value); err != nil || n < 4<<20 || n > 1024<<20 {
				return refuse("Invalid buffer option '%s': size must be between 4M and 1024M", value)
			}
		default:
			return refuse("'%s' is not a valid driver name", item)
		}
	}
	return notYet("--http")
}

func (p *parser) setRecovery(arg string) error {
	var most, interval, rate uint64
	err := items(arg, []string{"max=", "interval=", "rate="}, func(name, value string) (err error) {
		if name == "rate" {
			rate, err = parseSize(value)
			return err
		}
		n, ok := parseNumber(value, 0, 4294967295)
		if !ok {
			return refuse("Invalid recovery throttle '%s=%s': must be an integer between 0 and 4294967295", name, value)
		}
		if name == "max" {
			most = n
		} else {
			interval = n
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.cfg.recovery = recoveryThrottle{rate: rate}
	if most > 0 && interval > 0 {
		p.cfg.recovery.max, p.cfg.recovery.interval = uint32(most), time.Duration(interval)*time.Millisecond
	} else if rate == 0 || most > 0 || interval > 0 {
		return p.info("--recovery has no effect: a throttle needs a maximum and an interval above zero")
	}
	return nil
}

// setThreads takes the numbers of threads of today's -w and recognises the
// object cache of its older meaning.
func (p *parser) setThreads(arg string) error {
	for item := range strings.SplitSeq(arg, ",") {
		if strings.HasPrefix(item, "size=") || strings.HasPrefix(item, "dir=") || item == "directio" {
			return notYet("object cache (-w " + arg + ")")
		}
	}
	names := []string{"net=", "gway=", "io=", "peer=", "reclaim=", "gway_fwd=", "remove=", "remove_peer=", "recovery=", "async="}
	err := items(arg, names, func(name, value string) error {
		if _, ok := parseNumber(value, 0, 4294967295); !ok {
			return refuse("Invalid number of threads '%s=%s': must be an integer between 0 and 4294967295", name, value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return p.info("--wq-threads has no effect: this sheep has no pools of threads")
}

// blanks are what C skips before a number.
const blanks = " \t\n\v\f\r"

// parseNumber returns the decimal number s if it is within the bounds. Leading
// blanks and a plus sign are allowed, and nothing behind it.
func parseNumber(s string, low, high uint64) (uint64, bool) {
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.TrimLeft(s, blanks), "+"), 10, 64)
	return n, err == nil && n >= low && n <= high
}

// parseSize returns the number of bytes that s stands for.
func parseSize(s string) (uint64, error) {
	n, err := size.Parse(s)
	if err != nil {
		return 0, refuse("Invalid size '%s'\nYou may use B, K, M, G, T or P suffixes for bytes, kilobytes, megabytes, gigabytes, terabytes and petabytes.", s)
	}
	return n, nil
}
