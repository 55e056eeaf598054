package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestTheParentTellsTheTruth(t *testing.T) {
	tests := []struct {
		behaviour string
		args      string
		errs      []string // on the standard error output
		log       []string // in the log file
	}{
		{"refused", "ST", []string{" ERROR [main] ", ") failed to join Sheepdog\n"}, []string{"failed to join Sheepdog"}},
		{"locked", "ST", []string{") another sheep daemon is using ", "/st\n", ") locking directory: ", "/st failed\n"}, []string{"another sheep daemon"}},
		{"busy", "ST", []string{"failed to bind server socket: Address already in use", "failed to create a listening port\n"}, []string{"failed to create a listening port"}},
		{"silent", "ST", []string{"sheep died while it started (exit status 7); look into ", "/st/sheep.log\n"}, nil},
		{"crash", "ST", []string{"sheep died while it started (exit status 2)"}, []string{"panic: the node panics", ".fakeNode"}},
		{"expelled at the door", "ST", []string{"expelled from the cluster"}, nil},
		{"joins", "-P none/9 ST", []string{"failed to pid file '", "/none/9' - No such file or directory\n"}, []string{"failed to pid file"}},
		{"joins", "none/st", []string{"cannot create the directory ", "/none/st (No such file or directory)\n"}, nil},
		{"joins", "/dev/null", []string{"cannot create the directory /dev/null (File exists)\n"}, nil},
		{"joins", "-l format=json /dev/null", []string{`"msg": "cannot create the directory /dev/null (File exists)"} }`}, nil},
		{"joins", "-l format=default /dev/null", []string{"cannot create the directory /dev/null (File exists)\n"}, nil},
	}
	for _, test := range tests {
		for _, foreground := range []bool{false, true} {
			if foreground && (test.behaviour == "silent" || test.behaviour == "crash") {
				continue // there is no parent
			}
			t.Run(fmt.Sprintf("%s %s %v", test.behaviour, test.args, foreground), func(t *testing.T) {
				args := strings.Fields(test.args)
				if foreground {
					args = append(args, "-f")
				}
				r := sheepIn(t, test.behaviour, args...)
				if got := r.status(); got != 1 {
					t.Errorf("status %d, want 1", got)
				}
				r.contains("stderr", r.errs.String(), test.errs...)
				r.contains("the log", r.log(), test.log...)
				if r.out.Len() != 0 {
					t.Errorf("stdout: %s", &r.out)
				}
			})
		}
	}
}

func TestBadCommandLine(t *testing.T) {
	r := sheepIn(t, "joins", "ST", "-p", "a")
	if got := r.status(); got != 1 || r.errs.String() != "Invalid port number 'a'\n" || r.out.Len() != 0 {
		t.Errorf("status %d, stdout %q, stderr %q", got, &r.out, &r.errs)
	}
	if _, err := os.Stat(r.dir); err == nil {
		t.Error("the store directory was made")
	}
}

func TestADaemonLives(t *testing.T) {
	r := sheepIn(t, "joins", "ST", "-P", "pid", "-z", "1")
	pidPath := filepath.Join(filepath.Dir(r.dir), "pid")
	if err := os.WriteFile(pidPath, []byte("a long text that was left behind\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	pid := r.daemon()

	if r.out.Len()+r.errs.Len() != 0 {
		t.Errorf("printed %q, %q", &r.out, &r.errs)
	}
	if got, err := os.ReadFile(pidPath); err != nil || string(got) != fmt.Sprintln(pid) {
		t.Errorf("pid file: %q, %v, want %d", got, err, pid)
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if want := "sheep\x00" + r.dir + "\x00-P\x00pid\x00-z\x001\x00"; err != nil || string(cmdline) != want {
		t.Errorf("command line %q, %v, want %q", cmdline, err, want)
	}
	if got := r.lives()[0]; got.dir != "/" || got.stage != "" {
		t.Errorf("works in %s with stage %q, want / and none", got.dir, got.stage)
	}
	if sid, _, _ := syscall.RawSyscall(syscall.SYS_GETSID, uintptr(pid), 0, 0); int(sid) != pid {
		t.Errorf("session %d, want its own, %d", sid, pid)
	}
	for fd := range 3 {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err != nil || to != os.DevNull {
			t.Errorf("file %d is %s, %v, want /dev/null", fd, to, err)
		}
	}
	r.contains("the log", r.log(), "  INFO [main] ", "sheepdog daemon (version ", ") started\n")

	second := sheepIn(t, "joins", "ST", "-P", pidPath)
	if got := second.status(); got != 1 {
		t.Errorf("a second sheep with the same pid file: status %d, want 1", got)
	}
	second.contains("stderr", second.errs.String(), "failed to pid file '"+pidPath+"' - Another process holds it")
	if got, _ := os.ReadFile(pidPath); string(got) != fmt.Sprintln(pid) {
		t.Errorf("the second sheep changed the pid file to %q", got)
	}

	for _, s := range []syscall.Signal{syscall.SIGPIPE, syscall.SIGUSR1} {
		if err := syscall.Kill(pid, s); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.wait("the end of the daemon", func() bool { return !alive(pid) })
	r.contains("the log", r.log(), "stopping signal=terminated\n", ") shutdown\n")
	if _, err := os.Stat(pidPath); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pid file is still there: %v", err)
	}
}

func TestHangupRotatesTheLog(t *testing.T) {
	r := sheepIn(t, "joins", "ST")
	pid := r.daemon()
	if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	var old []string
	r.wait("a rotated log", func() bool {
		old, _ = filepath.Glob(filepath.Join(r.dir, "sheep.log.2*"))
		return len(old) == 1 && r.exists("sheep.log")
	})
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.wait("the end of the daemon", func() bool { return !alive(pid) })
	r.contains("the new log", r.log(), ") shutdown\n")
	first, err := os.ReadFile(old[0])
	if err != nil {
		t.Fatal(err)
	}
	r.contains("the old log", string(first), ") started\n")
}

func TestForegroundEndsWithStatus(t *testing.T) {
	tests := []struct {
		behaviour string
		args      []string
		signals   []syscall.Signal
		mark      string // what the node makes when it is time for the first signal; the second waits for "draining"
		want      int
		errs      []string
	}{
		{"joins", []string{"-f"}, []syscall.Signal{syscall.SIGTERM}, "lives", 0, nil},
		{"joins", []string{"-f"}, []syscall.Signal{syscall.SIGINT}, "lives", 0, nil},
		{"joins", []string{"-l", "dst=stdout"}, []syscall.Signal{syscall.SIGTERM}, "lives", 0, []string{") started\n", ") shutdown\n"}},
		{"slow", []string{"-f"}, []syscall.Signal{syscall.SIGTERM}, "joining", 0, nil},
		{"stubborn", []string{"-l", "dst=stdout"}, []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}, "lives", 1, []string{"second signal"}},
		{"fails when ready", []string{"-f"}, nil, "", 1, []string{"the disk is gone"}},
		{"crash when ready", []string{"-f"}, nil, "", 2, []string{"the node panics late"}},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.behaviour, test.args, test.signals), func(t *testing.T) {
			r := sheepIn(t, test.behaviour, append(test.args, "ST")...)
			if err := r.cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for i, s := range test.signals {
				r.wait("the node", func() bool { return r.exists([]string{test.mark, "draining"}[i]) })
				if err := r.cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			_ = r.cmd.Wait() // the status says it all
			if got := r.cmd.ProcessState.ExitCode(); got != test.want {
				t.Errorf("status %d, want %d\n%s", got, test.want, &r.errs)
			}
			r.contains("stderr", r.errs.String(), test.errs...)
		})
	}
}

func TestACrashIsInTheLog(t *testing.T) {
	for _, destination := range []string{"dst=default", "dst=syslog"} {
		r := sheepIn(t, "crash when ready", "-f", "-l", destination, "ST")
		if got := r.status(); got != 2 {
			t.Errorf("%s: status %d, want 2", destination, got)
		}
		r.contains("the log", r.log(), "panic: the node panics late", "goroutine ")
	}
}

func TestThePidFileOfACrashIsNotInTheWay(t *testing.T) {
	r := sheepIn(t, "crash when ready", "-f", "ST", "-P", "ST.pid")
	r.status()
	if _, err := os.Stat(r.dir + ".pid"); err != nil {
		t.Errorf("the pid file of a crash stays: %v", err)
	}
	again := sheepIn(t, "fails when ready", "-f", "ST", "-P", r.dir+".pid")
	if again.status(); strings.Contains(again.errs.String(), "pid file") {
		t.Errorf("the pid file of a crash is in the way: %s", &again.errs)
	}
}

func TestStoppedWhileItStarts(t *testing.T) {
	r := sheepIn(t, "slow", "ST", "-P", "pid")
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.wait("the node", func() bool { return r.exists("joining") })
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil { // the parent
		t.Fatal(err)
	}
	_ = r.cmd.Wait() // the status says it all
	if got := r.cmd.ProcessState.ExitCode(); got != 1 {
		t.Errorf("status %d, want 1", got)
	}
	r.contains("stderr", r.errs.String(), "sheep was stopped before it was ready\n")
	r.contains("the log", r.log(), "shutdown\n")
	if _, err := os.Stat(filepath.Join(filepath.Dir(r.dir), "pid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pid file is still there: %v", err)
	}
}

func TestAnExpelledNodeBeginsAgain(t *testing.T) {
	for _, foreground := range []bool{false, true} {
		t.Run(fmt.Sprintf("foreground %v", foreground), func(t *testing.T) {
			r := sheepIn(t, "expelled once", "st", "-P", "pid", "-l", "dir=.")
			pid := 0
			if foreground {
				r.cmd.Args = append(r.cmd.Args, "-f")
				if err := r.cmd.Start(); err != nil {
					t.Fatal(err)
				}
				pid = r.cmd.Process.Pid
			} else {
				pid = r.daemon()
			}
			r.wait("a second life", func() bool { return r.exists("lives") && len(r.lives()) == 2 })
			if lives := r.lives(); lives[1].pid != lives[0].pid || lives[1].pid != pid {
				t.Errorf("process ids %v, want %d twice", lives, pid)
			}
			home := filepath.Dir(r.dir)
			pidPath := filepath.Join(home, "pid")
			if got, err := os.ReadFile(pidPath); err != nil || string(got) != fmt.Sprintln(pid) {
				t.Errorf("pid file: %q, %v, want %d", got, err, pid)
			}
			if _, err := lockPidFile(pidPath); !errors.Is(err, errPidLocked) {
				t.Errorf("lock of the pid file: %v, want %v", err, errPidLocked)
			}
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if foreground {
				if err := r.cmd.Wait(); err != nil {
					t.Errorf("the end of the second life: %v", err)
				}
			}
			r.wait("the end of sheep", func() bool { return !alive(pid) })
			if _, err := os.Stat(pidPath); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the pid file is still there: %v", err)
			}
			log, err := os.ReadFile(filepath.Join(home, "sheep.log"))
			if err != nil {
				t.Fatal(err)
			}
			r.contains("the log", string(log), "expelled from the cluster, and will rejoin it", `err="expelled from the cluster: slept too long"`, ") shutdown\n")
			if got := strings.Count(string(log), ") started\n"); got != 2 {
				t.Errorf("started %d times, want 2:\n%s", got, log)
			}
		})
	}
}

func TestANodeThatIsExpelledAgainWaits(t *testing.T) {
	r := sheepIn(t, "expelled always", "ST", "-P", "ST.pid")
	pid := r.daemon()
	r.wait("the pause", func() bool { return strings.Contains(r.log(), "pause=1s") })
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.wait("the end of sheep", func() bool { return !alive(pid) })
	r.contains("the log", r.log(), "pause=0s", ") shutdown\n")
	if _, err := os.Stat(r.dir + ".pid"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pid file is still there: %v", err)
	}
}
