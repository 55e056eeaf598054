package command

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"sheepdog/sheep/proto"
)

// nodeFormat chooses the store of a node that does not run, whatever the
// cluster says.
func nodeFormat(_ context.Context, s *session) error {
	if len(s.args) < 2 {
		return badUsage("specify store format")
	}
	dir, store := s.args[0], s.args[1]
	if store != "plain" && store != "tree" {
		return fail(ExitSystem, "expected store format: plain, tree")
	}
	path := filepath.Join(dir, "node_config")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if errors.Is(err, fs.ErrExist) {
		return fail(ExitSystem, "config file already exists: %s", path)
	}
	if err != nil {
		return fail(ExitSystem, "failed to create a config file (%s): %v", path, errors.Unwrap(err))
	}
	record := make([]byte, proto.StoreNameSize)
	copy(record, store)
	_, err = f.Write(record)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fail(ExitSystem, "failed to create a config file (%s): %v", path, errors.Join(err, os.Remove(path)))
	}
	return nil
}
