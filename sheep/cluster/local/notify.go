package local

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A notifier tells of changes in the directory by inotify. Where that is not
// to be had it tells nothing, and its users poll.
type notifier struct {
	file *os.File // nil without inotify
	path string
	log  int // watch descriptor of the log file
}

func newNotifier(path string) (*notifier, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return &notifier{path: path}, fmt.Errorf("inotify: %w", err)
	}
	n := &notifier{file: os.NewFile(uintptr(fd), "inotify"), path: path, log: -1}
	// A process that dies closes its member file, whatever it died of.
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_CLOSE_WRITE); err != nil {
		n.file.Close()
		return &notifier{path: path}, fmt.Errorf("inotify: %w", err)
	}
	return n, nil
}

// watchLog watches a log file instead of the one before. It must not be called
// concurrently with itself.
func (n *notifier) watchLog(name string) error {
	if n.file == nil {
		return nil
	}
	raw, err := n.file.SyscallConn()
	if err != nil {
		return err
	}
	var added error
	err = raw.Control(func(fd uintptr) {
		if n.log >= 0 {
			unix.InotifyRmWatch(int(fd), uint32(n.log)) // gone already if the file is
		}
		n.log, added = unix.InotifyAddWatch(int(fd), n.path+"/"+name, unix.IN_MODIFY)
	})
	return errors.Join(err, added)
}

// run calls logged when the log may have grown and died when a process may
// have died, until the notifier is closed.
func (n *notifier) run(logged, died func()) {
	if n.file == nil {
		return
	}
	buf := make([]byte, 16<<10)
	for {
		size, err := n.file.Read(buf)
		if err != nil {
			return
		}
		logged()
		if bytes.Contains(buf[:size], []byte(memberPrefix)) {
			died()
		}
	}
}

func (n *notifier) close() {
	if n.file != nil {
		n.file.Close()
	}
}
