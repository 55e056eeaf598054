package command

import (
	"fmt"
	"log/syslog"
	"os"
)

// logInvocation records the command line if the environment asks for it: in
// the file that it names, or in the system's log. A record that cannot be made
// is told and otherwise forgotten.
func (a *app) logInvocation() {
	if a.env.Getenv("SHEEPDOG_DOG_LOG") == "" {
		return
	}
	line := join(append([]string{a.env.Program}, a.env.Args...)...)
	var err error
	if path := a.env.Getenv("SHEEPDOG_DOG_LOG_PATH"); path != "" {
		err = appendLine(path, fmt.Sprintf("%s :  %s\n", a.env.Now().In(a.env.Location).Format("2006 Jan 02 15:04:05"), line))
	} else {
		err = sysLog(line)
	}
	if err != nil {
		fmt.Fprintf(a.env.Stderr, "Failed to log the command: %v\n", err)
	}
}

func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(line); err != nil {
		f.Close() // the write's error is the one to tell
		return err
	}
	return f.Close()
}

func sysLog(line string) error {
	w, err := syslog.New(syslog.LOG_INFO|syslog.LOG_USER, "sheepdog admin operation")
	if err != nil {
		return err
	}
	if err := w.Info(line); err != nil {
		w.Close() // likewise
		return err
	}
	return w.Close()
}
