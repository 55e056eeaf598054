package store

import (
	"context"
	"errors"
	"fmt"
	"path"

	"sheepdog/sheep/proto"
	"sheepdog/sheep/store/journal"
)

// Format removes all objects, epochs and intents, and gives the store a new
// configuration. If it is interrupted the store counts as unformatted.
func (s *Store) Format(cfg proto.StoreConfig) error {
	s.gate.Lock()
	defer s.gate.Unlock()
	s.meta.Lock()
	defer s.meta.Unlock()
	if err := s.format(cfg); err != nil {
		return fmt.Errorf("format: %w", err)
	}
	return nil
}

func (s *Store) format(cfg proto.StoreConfig) error {
	// The order keeps a crash safe: the store is unformatted first, then no
	// record counts any more, then the files go.
	if err := s.setConfig(proto.StoreConfig{Space: s.config.Space}); err != nil {
		return err
	}
	seq, err := s.journal.Append(&journal.Record{Kind: journal.Void})
	if err == nil {
		err = s.journal.Wait(context.Background(), seq)
	}
	if err == nil {
		err = s.table.closeAll()
	}
	if err != nil {
		return err
	}
	s.table.forget()
	for _, dir := range []string{objectDir, staleDir, epochDir, damagedDir} {
		if err := s.empty(dir); err != nil {
			return err
		}
	}
	for _, name := range []string{completeFile, badFile, intentsFile, scrubFile} {
		if err := s.fs.Remove(name); err != nil && !isMissing(err) {
			return err
		}
	}
	if err := s.fs.SyncDir("."); err != nil {
		return err
	}
	s.latest, s.state = 0, copyState{}
	return s.setConfig(cfg)
}

// forget empties the table's memory of what is not open.
func (t *table) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.removed)
	clear(t.bad)
	clear(t.hot)
	t.hotOrder.Init()
}

// empty removes all files of a directory, if it exists.
func (s *Store) empty(dir string) error {
	names, err := s.fs.List(dir)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if name := path.Join(dir, name); name != staleDir {
			err = errors.Join(err, s.fs.Remove(name))
		}
	}
	return errors.Join(err, s.fs.SyncDir(dir))
}
