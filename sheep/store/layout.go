package store

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"sheepdog/sheep"
	"sheepdog/sheep/store/vfs"
)

// What is in a store directory. The first group is C Sheepdog's, the second is
// ours.
const (
	configFile = "config"
	lockFile   = "lock"
	epochDir   = "epoch"
	objectDir  = "obj"
	staleDir   = "obj/.stale"

	journalDir   = "journal"
	completeFile = "complete"
	badFile      = "damaged.list"
	intentsFile  = "intents.list" // only between a clean stop and the next start
	damagedDir   = "damaged"
)

// tempSuffix marks files that are being made. C deletes them when it starts,
// as we do.
const tempSuffix = ".tmp"

// epochAttr is the extended attribute of an object's file that holds the epoch
// of the latest write, four bytes little-endian.
const epochAttr = "user.sheep.epoch"

// objectPath returns the file of an object. The tree layout and several disks
// belong here.
func objectPath(id sheep.ObjectID) string { return objectDir + "/" + id.String() }

// tempPath returns a name under which to make the file of an object.
func (s *Store) tempPath(id sheep.ObjectID) string {
	return objectPath(id) + "." + strconv.FormatUint(s.temps.Add(1), 16) + tempSuffix
}

// checkLayout makes the directories that are missing and refuses what we
// cannot handle.
func (s *Store) checkLayout() error {
	for _, dir := range []string{epochDir, objectDir, staleDir, journalDir} {
		if err := s.fs.Mkdir(dir); err != nil {
			return err
		}
	}
	if err := errors.Join(s.fs.SyncDir("."), s.fs.SyncDir(objectDir)); err != nil {
		return err
	}
	switch s.config.Store {
	case "", "plain":
	case "tree":
		return errors.New("the store has the tree layout, which is not supported yet")
	default:
		return fmt.Errorf("the store has the unknown layout %q", s.config.Store)
	}
	for _, name := range []string{"journal_file0", "journal_file1"} {
		size, err := s.fileSize(name)
		if err != nil {
			return err
		}
		if size > 0 {
			return fmt.Errorf("the journal %s of C Sheepdog is left: start and stop that once so that it replays it, "+
				"or remove the file if its content may be lost", name)
		}
	}
	return s.probeAttr()
}

// fileSize returns the size of a file, 0 if it does not exist.
func (s *Store) fileSize(name string) (int64, error) {
	f, err := s.fs.Open(name, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Size()
}

// probeAttr finds out whether the disk can keep extended attributes.
func (s *Store) probeAttr() error {
	name := path.Join(objectDir, "xattr"+tempSuffix)
	f, err := s.fs.Open(name, os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	err = f.SetAttr(epochAttr, []byte{1, 0, 0, 0})
	if errors.Is(err, syscall.EOPNOTSUPP) {
		err = fmt.Errorf("the file system does not keep user extended attributes: mount it with user_xattr or use another one: %w", err)
	}
	return errors.Join(err, f.Close(), s.fs.Remove(name))
}

// sweep removes what was being made when the store was left.
func (s *Store) sweep() error {
	for _, dir := range []string{".", epochDir, objectDir, staleDir} {
		names, err := s.fs.List(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			if strings.HasSuffix(name, tempSuffix) {
				if err := s.fs.Remove(path.Join(dir, name)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// sweepEmpty removes objects without size: a crash came between their creation,
// which was never answered, and the sync of the file.
func (s *Store) sweepEmpty() error {
	ids, err := s.ids(0)
	if err != nil {
		return err
	}
	for _, id := range ids {
		size, err := s.fileSize(objectPath(id))
		if err == nil && size == 0 {
			err = s.fs.Remove(objectPath(id))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// replaceFile gives the file name the content data, atomically and durably.
func replaceFile(fs vfs.FS, name string, data []byte) error {
	temp := name + tempSuffix
	f, err := fs.Open(temp, os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fs.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("replace %s: %w", name, err), fs.Remove(temp))
	}
	return fs.SyncDir(path.Dir(name))
}

// readFile returns the content of a file of at most limit bytes.
func readFile(fs vfs.FS, name string, limit int64) ([]byte, error) {
	f, err := fs.Open(name, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are expected", name, size, limit)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && size > 0 {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// failure turns an error of the disk into one that the callers of the store
// know.
func failure(op string, id sheep.ObjectID, err error) error {
	return fmt.Errorf("%s %v: %w", op, id, diskError(err))
}

func diskError(err error) error {
	switch {
	case errors.Is(err, sheep.ErrIO), errors.Is(err, sheep.ErrNoSpace):
		return err
	case isMissing(err):
		return fmt.Errorf("%w: %w", sheep.ErrNoObject, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", sheep.ErrNoSpace, err)
	}
	return fmt.Errorf("%w: %w", sheep.ErrIO, err)
}
