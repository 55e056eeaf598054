package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sheepdog/sheep"
)

const (
	memberMagic  = "SHEEPMEM"
	memberPrefix = "member."
	memberSize   = 32
)

// A memberFile is the file of one process. The process holds a lock on it for
// as long as it lives.
//
//	offset  size  field
//	     0     8  "SHEEPMEM"
//	     8     4  version of the log files that the process understands
//	    12     4  1 once the process uses the log, before that 0
//	    16     8  incarnation
//	    24     8  heartbeat: nanoseconds of CLOCK_BOOTTIME
type memberFile struct {
	file *os.File
}

func memberName(inc sheep.Incarnation) string { return memberPrefix + inc.String() }

// createMember makes and locks the file of this process. It appears locked.
func createMember(dir *os.Root, inc sheep.Incarnation, beat int64) (*memberFile, error) {
	tmp := memberName(inc) + ".tmp"
	f, err := dir.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	b := []byte(memberMagic)
	b = le.AppendUint32(b, logVersion)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, uint64(inc))
	b = le.AppendUint64(b, uint64(beat))
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = dir.Rename(tmp, memberName(inc))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", memberName(inc), err), f.Close(), dir.Remove(tmp))
	}
	return &memberFile{f}, nil
}

func openMember(dir *os.Root, inc sheep.Incarnation) (*memberFile, error) {
	f, err := dir.Open(memberName(inc))
	if err != nil {
		return nil, err
	}
	return &memberFile{f}, nil
}

// beat writes a heartbeat.
func (m *memberFile) beat(t int64) error {
	_, err := m.file.WriteAt(le.AppendUint64(nil, uint64(t)), 24)
	return err
}

// use notes that the process uses the log.
func (m *memberFile) use() error {
	_, err := m.file.WriteAt(le.AppendUint32(nil, 1), 12)
	return err
}

// read returns the process's heartbeat, and whether it uses the log.
func (m *memberFile) read() (beat int64, uses bool, err error) {
	var b [memberSize]byte
	if _, err := m.file.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, false, err
	}
	return int64(le.Uint64(b[24:])), le.Uint32(b[12:]) != 0, nil
}

// alive reports whether the process that made the file lives. It never blocks.
func (m *memberFile) alive() bool {
	for {
		err := unix.Flock(int(m.file.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		if err == unix.EINTR {
			continue
		}
		// A dead process's lock is ours now; closing the file gives it back.
		return err != nil
	}
}

func (m *memberFile) close() { m.file.Close() }

// memberFiles returns the incarnations that have files.
func memberFiles(dir *os.Root) ([]sheep.Incarnation, error) {
	names, err := readNames(dir)
	if err != nil {
		return nil, err
	}
	var incs []sheep.Incarnation
	for _, name := range names {
		var inc uint64
		digits, ok := strings.CutPrefix(name, memberPrefix)
		if !ok || len(digits) != 16 {
			continue
		}
		if _, err := fmt.Sscanf(digits, "%x", &inc); err == nil && memberName(sheep.Incarnation(inc)) == name {
			incs = append(incs, sheep.Incarnation(inc))
		}
	}
	return incs, nil
}

// othersAlive reports whether another process lives that uses the log.
func othersAlive(dir *os.Root, self sheep.Incarnation) (bool, error) {
	incs, err := memberFiles(dir)
	if err != nil {
		return false, err
	}
	for _, inc := range incs {
		if inc == self {
			continue
		}
		m, err := openMember(dir, inc)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		_, uses, err := m.read()
		alive := m.alive()
		m.close()
		if err != nil || alive && uses {
			return true, err
		}
	}
	return false, nil
}

// boottime returns the nanoseconds since the machine started, those that it
// slept included.
func boottime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return int64(time.Since(time.Time{})) // cannot happen: the clock exists since Linux 2.6.39
	}
	return ts.Nano()
}
