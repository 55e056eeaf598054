package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"sheepdog/cmd/internal/logging"
	"sheepdog/sheepfs"
)

// A config is everything that the command line says, checked.
type config struct {
	fs         sheepfs.Config
	point      string // absolute
	foreground bool
	fake       bool // check the command line only
	remount    bool // change a mount that there is
	failure    int  // exit status of a mount that fails
	logs       logConfig
}

// A logConfig says where the log goes.
type logConfig struct {
	severity    logging.Severity
	format      logging.Format
	destination string
	dir         string
}

// The places for the log.
const (
	toFile   = "default" // sheepfs.log in a directory
	toSyslog = "syslog"
	toStdout = "stdout" // in fact stderr, as with sheep
)

// A misuse is a command line that is not carried out.
type misuse struct {
	text string
	help bool // which was asked for
}

func (m *misuse) Error() string { return m.text }

func wrong(format string, args ...any) error {
	return &misuse{text: progName + ": " + fmt.Sprintf(format, args...)}
}

// tryHelp ends a message about the use of options.
const tryHelp = "\nTry 'sheepfs --help' for help."

// Where the sheep is, unless the command line says otherwise.
const (
	defaultAddress = "127.0.0.1"
	defaultPort    = "7000"
)

// The exit status of mount(8) for a mount that fails.
const mountFailure = 32

// A commandLine is what options set, before it is checked as a whole.
type commandLine struct {
	config
	address, port string
	lists         []string // of -o
	log           string
	sloppy        bool
	help, version bool
}

// parse returns what the command line says. An error is a *misuse.
func parse(args []string) (config, error) {
	c := &commandLine{config: config{failure: 1}}
	c.fs.UID, c.fs.GID = uint32(os.Geteuid()), uint32(os.Getegid())
	c.logs = logConfig{severity: logging.Info, format: logging.Server}
	helper := strings.HasPrefix(filepath.Base(args[0]), "mount.")
	flags := c.flags(helper)
	if err := flags.Parse(args[1:]); err != nil {
		return config{}, wrong("%s%s", err, tryHelp)
	}
	switch {
	case c.help:
		return config{}, &misuse{text: help(c.flags(false)), help: true}
	case c.version:
		return config{}, &misuse{text: versionText(), help: true}
	}
	return c.config, c.finish(flags.Args(), helper)
}

// flags returns the options: those of a user, or those of mount(8).
func (c *commandLine) flags(helper bool) *pflag.FlagSet {
	f := pflag.NewFlagSet(progName, pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() {}
	f.StringArrayVarP(&c.lists, "options", "o", nil, "mount options, separated by commas")
	if helper {
		var ignored bool
		var word string
		c.failure = mountFailure
		f.BoolVarP(&c.sloppy, "sloppy", "s", false, "ignore unknown mount options")
		f.BoolVarP(&c.fake, "fake", "f", false, "do not mount")
		f.BoolVarP(&ignored, "no-mtab", "n", false, "ignored")
		f.BoolVarP(&ignored, "verbose", "v", false, "ignored")
		f.StringVarP(&word, "types", "t", "", "ignored")
		f.StringVarP(&word, "namespace", "N", "", "ignored")
		return f
	}
	f.StringVarP(&c.address, "address", "a", "", "address of a sheep (default "+defaultAddress+")")
	f.StringVarP(&c.port, "port", "p", "", "port of the sheep (default "+defaultPort+")")
	f.BoolVarP(&c.fs.Debug, "debug", "d", false, "log every request of the kernel, stay in the foreground")
	f.BoolVarP(&c.foreground, "foreground", "f", false, "stay in the foreground, log on stderr")
	f.BoolVarP(&c.fs.PageCache, "pagecache", "k", false, "let the kernel keep volumes in memory (default: direct I/O)")
	f.BoolVar(&c.fs.ObjectCache, "objectcache", false, "accepted, and without effect: sheep have no object cache")
	f.StringVarP(&c.log, "log", "l", "", "level=L,dir=D,format=F,dst=default|syslog|stdout, as of sheep")
	f.BoolVarP(&c.version, "version", "v", false, "print the version")
	f.BoolVarP(&c.help, "help", "h", false, "print this help")
	return f
}

// finish checks what concerns several options, and the arguments.
func (c *commandLine) finish(args []string, helper bool) error {
	for _, list := range c.lists {
		if err := c.mountOptions(list); err != nil {
			return err
		}
	}
	if err := c.setLog(); err != nil {
		return err
	}
	source := ""
	switch {
	case len(args) == 2:
		source, args = args[0], args[1:]
		c.failure = mountFailure // called as mount helpers are
	case len(args) != 1 || helper:
		return wrong("a mount point, and nothing else, has to be given%s", tryHelp)
	}
	if err := c.setServer(source); err != nil {
		return err
	}
	point, err := filepath.Abs(args[0])
	if err != nil {
		return wrong("%v", err)
	}
	c.point = point
	return nil
}

// setServer says which sheep is asked: by SRC of a mount, or by the options.
func (c *commandLine) setServer(source string) error {
	address, port := defaultAddress, defaultPort
	if source != "" && source != progName && source != "none" {
		host, p, err := net.SplitHostPort(source)
		switch {
		case err == nil:
			address, port = host, p
		case strings.Contains(err.Error(), "missing port"):
			address = strings.Trim(source, "[]")
		default:
			return wrong("%q is not HOST:PORT", source)
		}
	}
	if c.address != "" {
		address = strings.Trim(c.address, "[]")
	}
	if c.port != "" {
		port = c.port
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return wrong("Invalid port number '%s'", port)
	}
	if address == "" {
		return wrong("Invalid address ''")
	}
	c.fs.Server = net.JoinHostPort(address, port)
	if c.fs.Source == "" {
		c.fs.Source = source
	}
	return nil
}

// setLog reads the option --log and chooses where the log goes if nobody has.
func (c *commandLine) setLog() error {
	if c.log != "" {
		for item := range strings.SplitSeq(c.log, ",") {
			name, value, _ := strings.Cut(item, "=")
			if err := c.logItem(name, value); err != nil {
				return err
			}
		}
	}
	if c.fs.Debug {
		c.foreground, c.logs.severity = true, logging.Debug
	}
	switch {
	case c.logs.destination == toStdout:
		c.foreground = true
	case c.logs.dir != "" && c.logs.destination == "":
		c.logs.destination = toFile
	case c.logs.dir != "" && c.logs.destination != toFile:
		return wrong("logdir (%s) is specified but logging destination is %s", c.logs.dir, c.logs.destination)
	case c.logs.destination == toFile && c.logs.dir == "":
		return wrong("the log needs a directory, dir=")
	case c.logs.destination == "" && c.foreground:
		c.logs.destination = toStdout
	case c.logs.destination == "":
		c.logs.destination = toSyslog
	}
	return nil
}

func (c *commandLine) logItem(name, value string) (err error) {
	switch name {
	case "level":
		if c.logs.severity, err = logging.ParseSeverity(value); err != nil {
			return wrong("Invalid log level '%s'", value)
		}
	case "dir":
		path, err := filepath.Abs(value)
		if err != nil {
			return wrong("log dir: %v", err)
		}
		if info, err := os.Stat(path); err != nil {
			return wrong("log dir: %v", err)
		} else if !info.IsDir() {
			return wrong("log dir: %s is not a directory", value)
		}
		c.logs.dir = path
	case "format":
		c.logs.format = logging.Format(value)
		if slices.Contains(logging.Formats(), c.logs.format) {
			return nil
		}
		return wrong("invalid log format: %s", value)
	case "dst":
		if value != toFile && value != toSyslog && value != toStdout {
			return wrong("invalid type of log destination: %s", value)
		}
		c.logs.destination = value
	default:
		return wrong("invalid item of --log: %s", name)
	}
	return nil
}

// seconds parses a number of seconds.
func seconds(value string) (time.Duration, error) {
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return 0, errors.New("not a number of seconds")
	}
	return time.Duration(n) * time.Second, nil
}
