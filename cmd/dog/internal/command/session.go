package command

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
	"sheepdog/sheep/remote"
	"sheepdog/sheep/size"
)

// Where the daemon is, unless options or the environment say otherwise.
const (
	defaultAddress = "127.0.0.1"
	defaultPort    = "7000"
)

// maxName is the most bytes of names, tags and attribute keys.
const maxName = 255

// A session is one command as it runs.
type session struct {
	app   *app
	group group
	cmd   command
	word  string // the third word of the command line, if it has been chosen
	known []option

	opts  options
	args  []string // what is neither the command's words nor options
	out   *output
	nodes remote.Membership // of commands that need it
	epoch sheep.Epoch       // the cluster's, likewise

	*remote.Cluster
}

func newSession(a *app, g group, c command) *session {
	return &session{
		app: a, group: g, cmd: c, known: optionsOf(g, c), out: a.out,
		opts: options{store: "plain", batch: defaultBatch, maxReclaim: -1},
	}
}

// main runs the command after its options have been parsed.
func (s *session) main(ctx context.Context, args []string) error {
	s.app.usage = s.printUsage
	started := s.app.env.Now()
	run, err := s.prepare(args)
	if err != nil {
		return err
	}
	s.connect()
	defer s.Close()
	err = s.start(ctx, run)
	if f, ok := err.(*failure); s.opts.elapsed && !(ok && f.status == ExitUsage) {
		fmt.Fprintf(s.out, "\nElapsed time: %.3f seconds\n", s.app.env.Now().Sub(started).Seconds())
	}
	return err
}

// prepare checks everything that can be checked without the cluster and
// returns what is to be run.
func (s *session) prepare(args []string) (word, error) {
	run := word{needs: s.cmd.needs, max: s.cmd.max, run: s.cmd.run, nodes: s.cmd.nodes}
	if len(s.cmd.words) > 0 {
		var ok bool
		if run, args, ok = s.pick(args); !ok {
			if len(args) == 0 {
				return word{}, &failure{status: ExitUsage, usage: true}
			}
			return word{}, badUsage("Invalid command '%s'", join(s.group.name, s.cmd.name, args[0]))
		}
		s.word = run.name
	}
	if err := s.environment(); err != nil {
		return word{}, err
	}
	s.args = args
	if len(args) < run.needs {
		return word{}, &failure{status: ExitUsage, usage: true}
	}
	if run.max >= 0 && len(args) > run.max {
		return word{}, badUsage("Unexpected argument '%s'", args[run.max])
	}
	if s.group.names && len(args) > 0 && !run.file {
		return run, checkName(args[0])
	}
	return run, nil
}

// pick returns the third word of the command and the arguments after it.
func (s *session) pick(args []string) (word, []string, bool) {
	for _, w := range s.cmd.words {
		if len(args) > 0 && args[0] == w.name {
			return w, args[1:], true
		}
		if len(args) == 0 && w.byDefault {
			return w, nil, true
		}
	}
	return word{}, args, false
}

// environment says where the daemon is if the options did not.
func (s *session) environment() error {
	if v := s.app.env.Getenv("SHEEPDOG_DOG_ADDR"); v != "" && s.opts.address == "" {
		if err := checkAddress(v); err != nil {
			return err
		}
		s.opts.address = v
	}
	if v := s.app.env.Getenv("SHEEPDOG_DOG_PORT"); v != "" && s.opts.port == "" {
		if err := checkPort(v); err != nil {
			return err
		}
		s.opts.port = v
	}
	s.opts.address = cmp.Or(s.opts.address, defaultAddress)
	s.opts.port = cmp.Or(strings.TrimLeft(s.opts.port, " \t+"), defaultPort)
	return nil
}

// connect makes the cluster, which dials when it is first asked.
func (s *session) connect() {
	s.Cluster = remote.New(s.app.env.Dial, s.entry(), func(e *remote.ConnectError) { s.warn("%v", e) })
}

// entry returns the address of the daemon that is asked.
func (s *session) entry() string {
	if strings.HasPrefix(s.opts.address, "unix:") {
		return s.opts.address
	}
	return net.JoinHostPort(s.opts.address, s.opts.port)
}

// start runs the command, with the list of nodes if it needs that.
func (s *session) start(ctx context.Context, run word) error {
	if run.nodes {
		var err error
		if s.nodes, err = s.Membership(ctx); err != nil {
			return fail(ExitSystem, "Failed to get node list")
		}
		s.epoch = s.nodes.Epoch
	}
	return run.run(ctx, s)
}

// checkName refuses names that VDIs cannot have.
func checkName(name string) error {
	if name == "" {
		return badUsage("The VDI name must not be empty")
	}
	if len(name) > maxName {
		return badUsage("The VDI name is longer than %d bytes", maxName)
	}
	return nil
}

// name returns the VDI that the command is about.
func (s *session) name() string { return s.args[0] }

// arg returns the i'th argument, or nothing.
func (s *session) arg(i int) string {
	if i < len(s.args) {
		return s.args[i]
	}
	return ""
}

// warn prints a line on standard error.
func (s *session) warn(format string, args ...any) {
	s.app.stderr.Lock()
	defer s.app.stderr.Unlock()
	fmt.Fprintf(s.app.env.Stderr, format+"\n", args...)
}

// print prints on standard output.
func (s *session) print(format string, args ...any) { fmt.Fprintf(s.out, format, args...) }

// size prints n as the options say.
func (s *session) size(n uint64) string {
	if s.opts.raw {
		return size.Raw(n)
	}
	return size.Human(n)
}

// parseSize parses a size argument.
func parseSize(arg string) (uint64, error) {
	n, err := size.Parse(arg)
	if err != nil {
		return 0, badUsage("Invalid size '%s'", arg).
			and("You may use B, K, M, G, T or P suffixes for bytes, kilobytes, megabytes, gigabytes, terabytes and petabytes.")
	}
	return n, nil
}

// time returns a wire time in the zone of this run.
func (s *session) time(wire uint64) time.Time {
	return proto.TimeFromWire(wire).In(s.app.env.Location)
}

// writeJSON prints v.
func (s *session) writeJSON(v any) error {
	e := json.NewEncoder(s.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// confirm prints a question and reads the answer. Anything but yes is a failure.
func (s *session) confirm(question string) error {
	s.print("%s", question)
	s.out.Show()
	line, _ := bufio.NewReader(s.app.env.Stdin).ReadString('\n') // no answer is no
	if len(line) >= 3 && strings.EqualFold(line[:3], "yes") {
		return nil
	}
	return fail(ExitFailure, "Aborted: nothing was changed")
}

// open looks up the VDI that the command is about and returns its header.
func (s *session) open(ctx context.Context, name string, v remote.Version) (*proto.InodeHeader, error) {
	id, err := s.Lookup(ctx, name, v)
	if err != nil {
		return nil, openFailed(name, v, err)
	}
	h, err := s.Header(ctx, id)
	if err != nil {
		return nil, failed(err, "Failed to read object %v %s", sheep.InodeObject(id), remote.Text(err))
	}
	return h, nil
}
