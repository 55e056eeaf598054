package local

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sheepdog/sheep"
)

const (
	logMagic   = "SHEEPLOG"
	logVersion = 1
	logHeader  = 64

	maxSnapshot = 1 << 30
)

// errUnusable means that a log file is torn, of another version, or of an
// earlier boot of the machine.
var errUnusable = errors.New("log unusable")

// A logFile is one generation of the log, open for appending. It begins with
//
//	offset  size  field
//	     0     8  "SHEEPLOG"
//	     8     4  version
//	    12     4  CRC-32C of all that follows up to the first record
//	    16    16  boot id of the machine
//	    32     4  salt of the records' checksums
//	    36     4  zero
//	    40     8  index of the last entry before the first record
//	    48     4  length of the roll
//	    52     4  length of the snapshot
//	    56     8  zero
//	    64        roll: who has joined, see roll
//	              snapshot: the machine's state
type logFile struct {
	file       *os.File
	generation uint64
	salt       uint32
	index      uint64
	roll       []byte
	snapshot   []byte
	start      int64 // of the first record
}

func logName(generation uint64) string { return "log." + strconv.FormatUint(generation, 10) }

// createLog makes generation g of the log, and reports whether it has: somebody
// else may have made it.
func createLog(dir *os.Root, g uint64, self sheep.Incarnation, boot [16]byte, index uint64, roll, snapshot []byte) (bool, error) {
	if len(snapshot) > maxSnapshot {
		return false, fmt.Errorf("%w: snapshot of %d bytes", sheep.ErrCluster, len(snapshot))
	}
	b := make([]byte, 0, logHeader+len(roll)+len(snapshot))
	b = append(b, logMagic...)
	b = le.AppendUint32(b, logVersion)
	b = le.AppendUint32(b, 0)
	b = append(b, boot[:]...)
	b = le.AppendUint32(b, rand.Uint32())
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, index)
	b = le.AppendUint32(b, uint32(len(roll)))
	b = le.AppendUint32(b, uint32(len(snapshot)))
	b = le.AppendUint64(b, 0)
	b = append(b, roll...)
	b = append(b, snapshot...)
	le.PutUint32(b[12:], crc32.Checksum(b[16:], castagnoli()))

	tmp := fmt.Sprintf("log.%x.tmp", uint64(self))
	if err := dir.WriteFile(tmp, b, 0o600); err != nil {
		return false, fmt.Errorf("create %s: %w", logName(g), err)
	}
	err := dir.Link(tmp, logName(g))
	made := err == nil
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	return made, errors.Join(err, dir.Remove(tmp))
}

// openLog opens generation g. The error is errUnusable if what is there is no
// log of this boot, and then the file returned has no more than its index, as
// far as that can be guessed.
func openLog(dir *os.Root, g uint64, boot [16]byte) (*logFile, error) {
	f, err := dir.OpenFile(logName(g), os.O_RDWR|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	l, err := readLog(f, g, boot)
	if err != nil {
		f.Close()
		return l, fmt.Errorf("open %s: %w", logName(g), err)
	}
	return l, nil
}

func readLog(f *os.File, g uint64, boot [16]byte) (*logFile, error) {
	l := &logFile{file: f, generation: g}
	var h [logHeader]byte
	if _, err := f.ReadAt(h[:], 0); errors.Is(err, io.EOF) {
		return l, errUnusable
	} else if err != nil {
		return l, err
	}
	if string(h[:8]) != logMagic || le.Uint32(h[8:]) != logVersion {
		return l, errUnusable
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return l, err
	}
	// No record is smaller than a byte, so that this is past any index used.
	l.index = le.Uint64(h[40:]) + uint64(size)
	rollLen, snapLen := int64(le.Uint32(h[48:])), int64(le.Uint32(h[52:]))
	l.start = logHeader + rollLen + snapLen
	if [16]byte(h[16:32]) != boot || l.start > size {
		return l, errUnusable
	}
	body := make([]byte, l.start-16)
	if _, err := f.ReadAt(body, 16); err != nil {
		return l, err
	}
	if crc32.Checksum(body, castagnoli()) != le.Uint32(h[12:]) {
		return l, errUnusable
	}
	l.salt, l.index = le.Uint32(h[32:]), le.Uint64(h[40:])
	l.roll, l.snapshot = body[logHeader-16:][:rollLen], body[logHeader-16+rollLen:]
	return l, nil
}

// write appends b with a single write(2). A part of b that was written all the
// same is garbage that readers skip.
func (l *logFile) write(b []byte) error {
	for {
		n, err := unix.Write(int(l.file.Fd()), b)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("append to %s: %w", l.file.Name(), err)
		case n < len(b):
			return fmt.Errorf("append to %s: %w", l.file.Name(), io.ErrShortWrite)
		}
		return nil
	}
}

// generations returns the numbers of the log files in dir, in no order.
func generations(dir *os.Root) ([]uint64, error) {
	names, err := readNames(dir)
	if err != nil {
		return nil, err
	}
	var gens []uint64
	for _, name := range names {
		digits, ok := strings.CutPrefix(name, "log.")
		if g, err := strconv.ParseUint(digits, 10, 64); ok && err == nil && logName(g) == name {
			gens = append(gens, g)
		}
	}
	return gens, nil
}

func readNames(dir *os.Root) ([]string, error) {
	d, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// bootID returns what the kernel calls this boot of the machine.
func bootID() ([16]byte, error) {
	var id [16]byte
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id, fmt.Errorf("boot id: %w", err)
	}
	h := crc32.NewIEEE()
	for i := range 4 { // fold the text into 16 bytes
		h.Write(bytes.TrimSpace(b))
		le.PutUint32(id[4*i:], h.Sum32())
	}
	return id, nil
}
