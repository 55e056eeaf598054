// Package command is the command line of dog, the administration client.
//
// A command is two words (vdi list) and for some a third (vdi object map); the
// words come first, options and arguments follow in any order. The tables in
// table.go are the whole tree: what a command is called, which options it
// takes, in which order its usage shows them. Each command is a function in a
// file of its own.
//
// Scripts and drivers of other projects have read the output of dog for years,
// so most of what it prints is fixed: columns, texts and exit statuses are those
// of C Sheepdog wherever somebody may depend on them. Where C's tool harmed its
// users (exit status 0 after a failure, data lost on bad input, sizes misread)
// this one does better, and README.md beside the program says so. Results go to
// standard output, which is buffered if it is not a terminal, messages to
// standard error.
//
// Nothing in the package touches the process: what a run needs from outside is
// its Env, and its result is the exit status.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"sheepdog/nbd/attach"
	"sheepdog/sheep/remote"
)

// The exit statuses of dog.
const (
	ExitSuccess = 0
	ExitFailure = 1  // the command reached the cluster and failed, or an option has a bad value
	ExitSystem  = 2  // no daemon could be reached, or the local system failed
	ExitExists  = 3  // an attribute exists already
	ExitMissing = 5  // a VDI, a key or an attribute was not found
	ExitUsage   = 64 // the command line is wrong
)

// An Env is what a run needs from outside. The functions but Dial, and Location,
// may be nil.
type Env struct {
	Program string   // what dog is called here
	Version string   // of the program
	Args    []string // without the program's name

	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer

	StdoutWidth int // columns of the terminal that standard output is, or 0
	StderrWidth int // likewise of standard error

	Getenv   func(string) string
	Now      func() time.Time
	Location *time.Location // of printed times; nil is UTC

	// Pause waits for the time, or until the context ends; nil does.
	Pause func(context.Context, time.Duration) error

	Dial remote.Dialer

	Host attach.Host // whose kernel gets block devices

	// Background starts dog again, as a process that outlives this one, and
	// returns when that has printed its first line; nil cannot.
	Background func(ctx context.Context, args []string) error
}

// Run runs dog and returns its exit status.
func Run(ctx context.Context, env Env) int {
	if env.Location == nil {
		env.Location = time.UTC
	}
	if env.Getenv == nil {
		env.Getenv = func(string) string { return "" }
	}
	if env.Now == nil {
		env.Now = time.Now
	}
	if env.Pause == nil {
		env.Pause = pause
	}
	out := newOutput(env.Stdout, env.StdoutWidth > 0)
	a := &app{env: env, out: out, groups: groups()}
	a.logInvocation()
	err := a.dispatch(ctx)
	if err != nil && ctx.Err() != nil {
		if _, ok := errors.AsType[*failure](err); !ok {
			err = interrupted()
		}
	}
	status := a.report(err)
	if err := out.Flush(); err != nil && status == ExitSuccess {
		fmt.Fprintf(env.Stderr, "Failed to write the output: %v\n", err)
		status = ExitSystem
	}
	return status
}

// An app is one run.
type app struct {
	env    Env
	out    *output
	groups []group

	usage func() // prints the usage of the command that runs

	stderr sync.Mutex // held while a line is printed: requests that run at once may warn
}

// dispatch finds the command that the first words name and runs it.
func (a *app) dispatch(ctx context.Context) error {
	args := a.env.Args
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		a.overview()
		return nil
	}
	switch args[0] {
	case "completion":
		if len(args) < 2 || !slices.Contains([]string{"bash", "zsh", "fish", "powershell", "-h", "--help"}, args[1]) {
			return fail(ExitUsage, "Please name the shell: bash, zsh, fish or powershell")
		}
		return a.cobra(ctx)
	case cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
		return a.cobra(ctx)
	}
	i := slices.IndexFunc(a.groups, func(g group) bool { return g.name == args[0] })
	if i < 0 {
		return fail(ExitUsage, "Invalid command '%s'", args[0]).and("Try '%s --help' for more information.", a.env.Program)
	}
	if len(args) == 1 || slices.Contains([]string{"help", "-h", "--help"}, args[1]) {
		return a.available(a.groups[i])
	}
	if !slices.ContainsFunc(a.groups[i].commands, func(c command) bool { return c.name == args[1] }) {
		f := a.available(a.groups[i])
		f.lines = append([]string{fmt.Sprintf("Invalid command '%s %s'", args[0], args[1])}, f.lines...)
		return f
	}
	return a.cobra(ctx)
}

// available lists the commands of a group, on standard error.
func (a *app) available(g group) *failure {
	f := fail(ExitUsage, "Available %s commands:", g.name)
	for _, c := range g.commands {
		f.and("  %s %s", g.name, c.name)
	}
	return f
}

// cobra hands the command line to a tree of cobra commands, which parses the
// options and knows how to complete.
func (a *app) cobra(ctx context.Context) error {
	root := &cobra.Command{Use: a.env.Program, SilenceErrors: true, SilenceUsage: true}
	for _, g := range a.groups {
		branch := &cobra.Command{Use: g.name, Short: g.about, Run: func(*cobra.Command, []string) {}}
		for _, c := range g.commands {
			branch.AddCommand(a.leaf(g, c))
		}
		root.AddCommand(branch)
	}
	root.SetHelpCommand(&cobra.Command{Use: "no-help", Hidden: true})
	root.SetArgs(a.env.Args)
	root.SetIn(a.env.Stdin)
	root.SetOut(a.out)
	root.SetErr(a.env.Stderr)
	return root.ExecuteContext(ctx)
}

// leaf returns the cobra command of c.
func (a *app) leaf(g group, c command) *cobra.Command {
	s := newSession(a, g, c)
	leaf := &cobra.Command{
		Use:               c.name,
		Short:             c.about,
		Args:              cobra.ArbitraryArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		ValidArgsFunction: s.complete,
		RunE: func(leaf *cobra.Command, args []string) error {
			return s.main(leaf.Context(), args)
		},
	}
	s.addFlags(leaf.Flags())
	leaf.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		a.usage = s.printUsage
		return flagFailure(a.env.Program, err)
	})
	leaf.SetHelpFunc(func(*cobra.Command, []string) { s.printUsage() })
	return leaf
}

// report prints what a failed run has to say and returns its exit status.
func (a *app) report(err error) int {
	if err == nil {
		return ExitSuccess
	}
	f, ok := errors.AsType[*failure](err)
	if !ok {
		f = fail(ExitFailure, "%s", remote.Text(err))
		if unreachable(err) {
			f = &failure{status: ExitSystem}
		}
	}
	for _, line := range f.lines {
		fmt.Fprintln(a.env.Stderr, line)
	}
	if f.usage && a.usage != nil {
		a.usage()
	}
	return f.status
}

// overview prints what dog can do.
func (a *app) overview() {
	fmt.Fprintf(a.out, "Sheepdog administrator utility (version %s)\n", a.env.Version)
	fmt.Fprintf(a.out, "Usage: %s <command> <subcommand> [options]\n\nAvailable commands:\n", a.env.Program)
	for _, g := range a.groups {
		for _, c := range g.commands {
			fmt.Fprintf(a.out, "  %-24s%s\n", g.name+" "+c.name, c.about)
		}
	}
	fmt.Fprintf(a.out, "  %-24s%s\n", "completion SHELL", "print a script that completes command lines in bash, zsh, fish or powershell")
	fmt.Fprintf(a.out, "\nFor more information, run '%s <command> <subcommand> --help'.\n", a.env.Program)
}

// join is strings.Join with blanks.
func join(words ...string) string { return strings.Join(words, " ") }
