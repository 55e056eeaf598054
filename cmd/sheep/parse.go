package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"

	"sheepdog/cmd/internal/logging"
	"sheepdog/cmd/sheep/internal/getopt"
	"sheepdog/sheep"
	"sheepdog/sheep/scrub"
)

// An exit ends the program while it looks at the command line: with the
// outcome of -h, or with what is wrong.
type exit struct {
	stdout string // whole lines
	stderr string // lines, the last without its newline
	code   int
}

func (e *exit) Error() string { return e.stderr }

// refuse returns an error that ends the program with the text.
func refuse(format string, args ...any) *exit {
	return &exit{stderr: fmt.Sprintf(format, args...), code: 1}
}

// notYet refuses what C Sheepdog has and this program does not.
func notYet(what string) *exit { return refuse("%s: not supported yet", what) }

// A parser collects a config from the command line.
type parser struct {
	cfg config
	cwd func() (string, error) // where relative paths start

	zone *uint32 // nil: from the address
}

const (
	defaultDir  = "/tmp"
	defaultPort = 7000
)

// parse returns what the command line says. Relative paths start at what cwd
// returns. An error is an *exit.
func parse(args []string, cwd func() (string, error)) (config, error) {
	p := &parser{cwd: cwd, cfg: config{
		port:   defaultPort,
		driver: driverLocal,
		nbd:    defaultNBD(),
		scrub:  scrub.DefaultConfig(),
		logs:   logConfig{severity: logging.Info, format: logging.Server, destination: toFile},
	}}
	opts := options()
	rest, err := getopt.Parse(args, syntax(opts), func(name, value string) error {
		for _, o := range opts {
			if o.name == name && o.toggle != nil {
				return o.toggle(p)
			}
			if o.name == name {
				return o.set(p, value)
			}
		}
		return refuse("option '--%s' has no meaning", name)
	})
	if e, ok := errors.AsType[*getopt.Error](err); ok {
		return config{}, misuse(e, opts)
	}
	if err != nil {
		return config{}, err
	}
	return p.cfg, p.finish(rest)
}

// misuse words a mistake in the use of options. An option that lacks its
// argument explains itself if it can.
func misuse(e *getopt.Error, opts []option) *exit {
	text := "sheep: " + e.Text
	for _, o := range opts {
		if o.name == e.Option && o.detail != "" {
			return &exit{stderr: text, stdout: o.detail, code: 1}
		}
	}
	return refuse("%s\nTry 'sheep --help' for more information.", text)
}

// finish checks what concerns several options, and fills in what depends on
// others.
func (p *parser) finish(rest []string) error {
	cfg := &p.cfg
	if cfg.gateway && cfg.vnodes != 0 {
		return refuse("Options '-g' and '-V' can not be both specified")
	}
	if cfg.logs.dir != "" && cfg.logs.destination != toFile {
		return refuse("logdir (%s) is specified but logging destination is %s", cfg.logs.dir, cfg.logs.destination)
	}
	if err := cfg.nbd.check(); err != nil {
		return err
	}
	if cfg.logs.destination == toStdout {
		cfg.foreground = true
	}
	path := defaultDir
	if len(rest) > 0 {
		path = rest[0]
	}
	if err := p.setPath(path); err != nil {
		return err
	}
	if len(rest) > 1 {
		p.warn("only the first argument is the store directory, ignored: " + strings.Join(rest[1:], " "))
	}
	if cfg.logs.dir == "" {
		cfg.logs.dir = cfg.dir
	}
	p.setAddress()
	return p.finishCluster()
}

// setPath takes PATH: the store directory and, after commas, disks.
func (p *parser) setPath(arg string) error {
	dirs := strings.FieldsFunc(arg, func(r rune) bool { return r == ',' })
	if len(dirs) == 0 {
		return refuse("cannot create the directory %s (%s)", arg, reason(syscall.ENOENT))
	}
	if len(dirs) > 1 {
		return notYet("several disks (" + arg + ")")
	}
	path, err := p.absolute(dirs[0])
	if err != nil {
		return refuse("cannot create the directory %s (%s)", dirs[0], reason(err))
	}
	p.cfg.dir = path
	return nil
}

// setAddress chooses the address of this node if it was not given, and its zone.
func (p *parser) setAddress() {
	cfg := &p.cfg
	switch {
	case cfg.myAddr.IsValid():
	case cfg.bind.IsValid() && !cfg.bind.IsUnspecified():
		cfg.myAddr = cfg.bind
	case cfg.driver == driverGossip:
		cfg.myAddr = ownAddress(cfg.gossip.seeds)
	default:
		cfg.myAddr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	cfg.zone = sheep.DefaultZone(cfg.myAddr)
	if p.zone != nil {
		cfg.zone = sheep.ZoneID(*p.zone)
	}
}

// absolute returns the absolute form of a path.
func (p *parser) absolute(path string) (string, error) {
	if path == "" {
		return "", syscall.ENOENT
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path), nil
	}
	dir, err := p.cwd()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, path), nil
}

// info has the text logged once the log is open. It returns nil.
func (p *parser) info(text string) error {
	p.cfg.notices = append(p.cfg.notices, notice{slog.LevelInfo, text})
	return nil
}

// warn is like info for what an operator should mend.
func (p *parser) warn(text string) {
	p.cfg.notices = append(p.cfg.notices, notice{slog.LevelWarn, text})
}

// reason returns the bare reason of a failed system call, in C's spelling.
func reason(err error) string {
	text := err.Error()
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		text = e.Err.Error()
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		text = e.Error()
	}
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}
