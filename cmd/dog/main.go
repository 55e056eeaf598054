// Command dog administers a Sheepdog cluster.
//
// It is a client of any daemon of the cluster: it makes, copies and deletes
// virtual disks, shows and checks them and their copies, shows the nodes and
// their history, and formats and stops the cluster. It works with our daemons
// and with C Sheepdog's, and prints what C's dog prints. Installed under the
// name collie it is the same program.
//
// Run it without arguments for the list of commands; README.md beside this file
// tells where it differs from C's.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/term"

	"sheepdog/cmd/dog/internal/command"
	"sheepdog/nbd/attach"
	"sheepdog/sheep"
	"sheepdog/sheep/client"
	"sheepdog/sheep/remote"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	os.Exit(command.Run(ctx, command.Env{
		Program:     program(),
		Version:     sheep.Version(),
		Args:        os.Args[1:],
		Stdin:       os.Stdin,
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
		StdoutWidth: width(os.Stdout),
		StderrWidth: width(os.Stderr),
		Getenv:      os.Getenv,
		Location:    time.Local,
		Dial:        dial,
		Host:        attach.Host{Load: loadNBD},
		Background:  background,
	}))
}

// program returns the name that messages use: that of the command, if it is one
// of ours.
func program() string {
	if filepath.Base(os.Args[0]) == "collie" {
		return "collie"
	}
	return "dog"
}

// width returns the columns of the terminal that f is, or 0.
func width(f *os.File) int {
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	if w == 0 {
		return 80 // a terminal that does not know
	}
	return w
}

// dial connects to a daemon.
func dial(ctx context.Context, addr string) (remote.Conn, error) {
	conn, err := client.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return conn, nil
}
