package sheepfs

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"sheepdog/sheep"
	"sheepdog/sheep/remote"
)

// maxShown bounds how many volumes may be shown by hand.
const maxShown = 1 << 16

// shown are the volumes that somebody has asked to be listed, by vdi/mount.
type shown struct {
	mu    sync.Mutex
	names map[string]bool // guarded by mu
}

// list returns the names of the volumes, in order.
func (s *shown) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.names))
}

func (s *shown) add(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names == nil {
		s.names = make(map[string]bool)
	}
	if len(s.names) >= maxShown {
		return refuse(syscall.ENOSPC, "%d volumes are mounted", maxShown)
	}
	s.names[name] = true
	return nil
}

// remove reports whether the volume was shown.
func (s *shown) remove(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.names[name]
	delete(s.names, name)
	return was
}

// A selection is the disk or the snapshot that the name of a volume stands for.
type selection struct {
	name    string // of the disk
	version remote.Version
}

// selections returns what the name of a volume may stand for, the first that
// exists being meant. A disk's name may have any bytes, so what looks like a
// snapshot is first looked for as a disk.
func selections(volume string) []selection {
	all := []selection{{name: volume}}
	if i := strings.LastIndexByte(volume, '@'); i > 0 && i+1 < len(volume) {
		all = append(all, selection{volume[:i], remote.Version{Tag: volume[i+1:]}})
	}
	if i := strings.LastIndexByte(volume, ':'); i > 0 {
		if id, err := strconv.ParseUint(volume[i+1:], 10, 32); err == nil && id != 0 {
			all = append(all, selection{volume[:i], remote.Version{ID: uint32(id)}})
		}
	}
	return all
}

// volume returns what a volume's name stands for.
func (t *FS) volume(ctx context.Context, name string) (selection, error) {
	c := t.remote()
	defer c.Close()
	for _, sel := range selections(name) {
		if checkName(sel.name) != nil || len(sel.version.Tag) > maxName {
			continue
		}
		_, err := c.Lookup(ctx, sel.name, sel.version)
		if err == nil {
			return sel, nil
		}
		if !errors.Is(err, sheep.ErrNoVDI) && !errors.Is(err, sheep.ErrNoTag) {
			return selection{}, err
		}
	}
	return selection{}, refuse(syscall.ENOENT, "there is no disk and no snapshot %q", name)
}

// mountVolume lists the volume of a disk or a snapshot: NAME, NAME@TAG or
// NAME:ID. That it is listed already is as well.
func (t *FS) mountVolume(ctx context.Context, line string) error {
	if err := checkVolume(line); err != nil {
		return err
	}
	if _, err := t.volume(ctx, line); err != nil {
		return err
	}
	return t.shown.add(line)
}

// unmountVolume undoes mountVolume. What has the volume open goes on.
func (t *FS) unmountVolume(_ context.Context, line string) error {
	if !t.shown.remove(line) {
		return refuse(syscall.EINVAL, "%q is not mounted", line)
	}
	return nil
}

// checkVolume refuses names that no file in the directory of volumes can have.
func checkVolume(name string) error {
	switch {
	case name == "":
		return refuse(syscall.EINVAL, "the name is empty")
	case !fileName(name):
		return refuse(syscall.EINVAL, "no file can have the name %q", name)
	}
	return nil
}
