package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"sheepdog/sheep"
)

// openDir opens the directory that the processes share, and makes it first if
// it does not exist. It must be ours alone.
func openDir(path string) (*os.Root, string, error) {
	if fi, err := os.Lstat(path); err == nil && fi.Mode().IsRegular() {
		path += ".d" // the shared file of C Sheepdog has the name
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, path, fmt.Errorf("local cluster: %w", err)
	}
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, path, fmt.Errorf("local cluster: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, path, fmt.Errorf("local cluster: %w", &fs.PathError{Op: "lstat", Path: path, Err: err})
	}
	switch {
	case !fi.IsDir():
		return nil, path, fmt.Errorf("local cluster: %w: %s is not a directory", sheep.ErrInvalid, path)
	case int(st.Uid) != os.Geteuid():
		return nil, path, fmt.Errorf("local cluster: %w: %s belongs to user %d; give each user's cluster a path of its own (-c local:PATH)",
			sheep.ErrInvalid, path, st.Uid)
	case fi.Mode().Perm()&0o022 != 0:
		return nil, path, fmt.Errorf("local cluster: %w: others may write to %s; its mode should be 0700", sheep.ErrInvalid, path)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, path, fmt.Errorf("local cluster: %w", err)
	}
	return root, path, nil
}
