package sheepfs

import (
	"slices"
	"strings"
	"sync"
	"syscall"
)

// maxReasons bounds how many files' reasons are remembered.
const maxReasons = 4096

// reasons are why the last write to files has failed, by the path of the file.
type reasons struct {
	mu    sync.Mutex
	words map[string]string // guarded by mu
	order []string          // guarded by mu; of the keys, the oldest first
}

// of returns the line for the file, or nothing.
func (r *reasons) of(path string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.words[path]
}

// set remembers why a write to the file has failed, or that it has not.
func (r *reasons) set(path string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		if _, ok := r.words[path]; ok {
			delete(r.words, path)
			r.order = slices.DeleteFunc(r.order, func(p string) bool { return p == path })
		}
		return
	}
	if r.words == nil {
		r.words = make(map[string]string)
	}
	if _, ok := r.words[path]; !ok {
		r.order = append(r.order, path)
	}
	r.words[path] = "error: " + printable(err.Error()) + "\n"
	for len(r.order) > maxReasons {
		delete(r.words, r.order[0])
		r.order = r.order[1:]
	}
}

// printable returns s in one line without characters that terminals act on.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < 0x20 || c == 0x7f {
			return '?'
		}
		return c
	}, s)
}

// failed notes the outcome of a write to the file, and returns its number.
func (t *FS) failed(path string, err error) syscall.Errno {
	t.reasons.set(path, err)
	if err == nil {
		return 0
	}
	errno := errnoOf(err)
	t.log.Info("refused", "file", path, "err", printable(err.Error()), "errno", int(errno))
	return errno
}
