// Sheep is the daemon of Sheepdog: one node of a cluster that keeps virtual
// disks.
//
// This directory turns the command line into a config, checked before anything
// is started, and looks after the process: the daemon and its pid file, the
// log, the signals, and the second life of a node that the cluster expelled.
// What a node is made of is in node.go.
//
// A daemon tells the truth about its start: the process that was started by
// hand returns when the node is a member of the cluster and answers, with
// status 0, or when it is certain that it will not, with the reason and
// status 1.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// progName is the name of this program in logs.
const progName = "sheep"

func main() {
	p := program{args: os.Args, stdout: os.Stdout, stderr: os.Stderr, node: runNode}
	os.Exit(p.main())
}

// A program is one run of sheep.
type program struct {
	args           []string // with the program's name
	stdout, stderr io.Writer
	node           func(ctx context.Context, cfg config, ready func()) error // runNode, but for tests
}

// main does everything and returns the exit status.
func (p *program) main() int {
	st, err := takeStage()
	if err != nil {
		fmt.Fprintln(p.stderr, err)
		return 1
	}
	cfg, err := parse(p.args[1:], st.directory)
	if e, ok := errors.AsType[*exit](err); ok {
		return p.exit(e)
	}
	if err != nil {
		fmt.Fprintln(p.stderr, err)
		return 1
	}
	if err := makeDir(cfg.dir); err != nil {
		p.complain(cfg, err.Error())
		return 1
	}
	if !cfg.foreground && !st.Settled {
		return p.daemonise(cfg, st)
	}
	return p.serve(cfg, st)
}

// exit prints what e says. Errors come first, as C's users see them in merged
// output.
func (p *program) exit(e *exit) int {
	if e.stderr != "" {
		fmt.Fprintln(p.stderr, e.stderr)
	}
	io.WriteString(p.stdout, e.stdout)
	return e.code
}

// complain shows text to the one who started sheep, in the layout of the log.
func (p *program) complain(cfg config, text string) {
	log := openStream(p.stderr, cfg)
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		log.Error(line)
	}
}

// makeDir makes the store directory if it does not exist. Its parent must.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o750)
	if err == nil {
		return nil
	}
	if info, statErr := os.Stat(dir); statErr == nil && info.IsDir() && errors.Is(err, fs.ErrExist) {
		return nil
	}
	return fmt.Errorf("cannot create the directory %s (%s)", dir, reason(err))
}
