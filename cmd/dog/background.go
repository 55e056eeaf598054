package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// background starts this program again, in a session of its own, and returns
// when it has printed a line. If it ends before, what it said is the error.
func background(ctx context.Context, args []string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/" // keeps no file system busy
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	line, err := bufio.NewReader(io.LimitReader(r, 4096)).ReadString('\n')
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if strings.HasPrefix(line, "Watching ") && err == nil {
		return cmd.Process.Release()
	}
	return errors.Join(errors.New(strings.TrimSpace(line)), cmd.Wait())
}

// loadNBD loads the kernel's module.
func loadNBD(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "modprobe", "nbd").CombinedOutput(); err != nil {
		return fmt.Errorf("modprobe nbd: %w: %s", err, out)
	}
	return nil
}
