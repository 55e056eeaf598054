package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path"
	"strconv"
	"time"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// openVersion is the version of the format that the config file carries while
// the store is open and after a crash. C refuses it.
const openVersion = 0x0106

// openConfig reads the config file, or makes that of a new store, and returns
// the version that it carried.
func (s *Store) openConfig() (version uint16, err error) {
	b, err := readFile(s.fs, configFile, 1<<10)
	if errors.Is(err, os.ErrNotExist) {
		_, free, err := s.fs.Space()
		if err != nil {
			return 0, err
		}
		s.config = proto.StoreConfig{Version: proto.StoreVersion, Space: free}
		return proto.StoreVersion, s.saveConfig(s.config, proto.StoreVersion)
	}
	if err != nil {
		return 0, err
	}
	c, err := proto.DecodeStoreConfig(b)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", configFile, err)
	}
	version = c.Version
	switch version {
	case proto.StoreVersion:
	case openVersion:
		if names, err := s.fs.List(journalDir); err != nil || len(names) == 0 {
			return 0, errors.Join(errors.New("the store was not closed clean and its journal is missing"), err)
		}
	default:
		return 0, fmt.Errorf("the store has version %d of the format, only %d is supported", version, proto.StoreVersion)
	}
	c.Version = proto.StoreVersion
	s.config = c
	return version, nil
}

// saveConfig replaces the config file. Its caller holds meta or is alone.
func (s *Store) saveConfig(c proto.StoreConfig, version uint16) error {
	c.Version = version
	return replaceFile(s.fs, configFile, c.Append(nil))
}

// Config returns the content of the config file, with the version that C
// accepts.
func (s *Store) Config() proto.StoreConfig {
	s.meta.Lock()
	defer s.meta.Unlock()
	return s.config
}

// SetConfig replaces the config file durably. The version in c is ignored.
func (s *Store) SetConfig(c proto.StoreConfig) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.meta.Lock()
	defer s.meta.Unlock()
	return s.setConfig(c)
}

// setConfig is SetConfig for callers that hold meta.
func (s *Store) setConfig(c proto.StoreConfig) error {
	if err := s.saveConfig(c, openVersion); err != nil {
		return fmt.Errorf("set config: %w", err)
	}
	c.Version = proto.StoreVersion
	s.config = c
	return nil
}

// epochPath returns the file that records the members of an epoch.
func epochPath(e sheep.Epoch) string { return fmt.Sprintf("%s/%08d", epochDir, uint32(e)) }

// openEpochs finds the latest epoch.
func (s *Store) openEpochs() error {
	names, err := s.fs.List(epochDir)
	if err != nil {
		return err
	}
	for _, name := range names {
		n, err := strconv.ParseUint(name, 10, 32)
		if err != nil || epochPath(sheep.Epoch(n)) != path.Join(epochDir, name) {
			continue
		}
		s.latest = max(s.latest, sheep.Epoch(n))
	}
	return nil
}

// LatestEpoch returns the newest epoch that was logged, 0 if none was.
func (s *Store) LatestEpoch() sheep.Epoch {
	s.meta.Lock()
	defer s.meta.Unlock()
	return s.latest
}

// Epoch returns the members of an epoch and when it began. The error matches
// os.ErrNotExist if it was not logged.
func (s *Store) Epoch(e sheep.Epoch) ([]sheep.Node, time.Time, error) {
	b, err := readFile(s.fs, epochPath(e), 8+proto.MaxNodes*proto.NodeSize)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read epoch %d: %w", e, err)
	}
	nodes, began, err := proto.DecodeEpochLog(b)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read epoch %d: %w", e, err)
	}
	return nodes, began, nil
}

// LogEpoch records the members of an epoch durably, replacing what was
// recorded of it.
func (s *Store) LogEpoch(e sheep.Epoch, nodes []sheep.Node, began time.Time) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.meta.Lock()
	defer s.meta.Unlock()
	if err := replaceFile(s.fs, epochPath(e), proto.AppendEpochLog(nil, nodes, began)); err != nil {
		return fmt.Errorf("log epoch %d: %w", e, err)
	}
	s.latest = max(s.latest, e)
	return nil
}

// Of the file "complete". Integers are little-endian.
//
//	offset  size  field
//	     0     8  magic
//	     8     4  CRC-32C of the bytes from 12 on
//	    12     4  the last epoch for which all copies were current
//	    16     4  the latest epoch when this was written
//	    20     4  the last epoch for which all copies of all nodes were current
//	    24     4  the last epoch that was forced
const (
	completeMagic = "SHEEPCUR"
	completeSize  = 28
)

// openComplete reads the file "complete". If the store was closed clean since,
// C may have run on it: if the epoch has moved on, it did, and it has no notion
// of a copy that is not current.
func (s *Store) openComplete(clean bool) error {
	b, err := readFile(s.fs, completeFile, 1<<10)
	if errors.Is(err, os.ErrNotExist) {
		if !clean || s.latest == 0 {
			return nil
		}
		s.state = copyState{complete: s.latest, healed: s.latest}
		return s.saveState(s.state)
	}
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	if len(b) != completeSize || string(b[:8]) != completeMagic || le.Uint32(b[8:]) != sum(b[12:]) {
		return fmt.Errorf("%s is damaged: remove it, and all copies of this node count as out of date", completeFile)
	}
	s.state = copyState{
		complete: sheep.Epoch(le.Uint32(b[12:])),
		healed:   sheep.Epoch(le.Uint32(b[20:])),
		forced:   sheep.Epoch(le.Uint32(b[24:])),
	}
	if clean && sheep.Epoch(le.Uint32(b[16:])) != s.latest {
		s.state = copyState{complete: s.latest, healed: s.latest}
		return s.saveState(s.state)
	}
	return nil
}

// A copyState is what the file "complete" says.
type copyState struct{ complete, healed, forced sheep.Epoch }

// Complete returns the last epoch for which all copies of this store were
// known to be current.
func (s *Store) Complete() sheep.Epoch {
	s.meta.Lock()
	defer s.meta.Unlock()
	return s.state.complete
}

// SetComplete records durably that all copies of this store are current in
// epoch e.
func (s *Store) SetComplete(e sheep.Epoch) error {
	return s.setState(func(c *copyState) { c.complete = e })
}

// Healed returns the last epoch for which all copies of all nodes of the
// cluster were known to be current, and the last that an operator forced.
func (s *Store) Healed() (healed, forced sheep.Epoch) {
	s.meta.Lock()
	defer s.meta.Unlock()
	return s.state.healed, s.state.forced
}

// SetHealed records durably what Healed returns from then on.
func (s *Store) SetHealed(healed, forced sheep.Epoch) error {
	return s.setState(func(c *copyState) { c.healed, c.forced = healed, forced })
}

func (s *Store) setState(change func(*copyState)) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.meta.Lock()
	defer s.meta.Unlock()
	state := s.state
	change(&state)
	if err := s.saveState(state); err != nil {
		return fmt.Errorf("record which epochs are complete: %w", err)
	}
	s.state = state
	return nil
}

func (s *Store) saveState(c copyState) error {
	le := binary.LittleEndian
	b := make([]byte, 12, completeSize)
	copy(b, completeMagic)
	for _, e := range []sheep.Epoch{c.complete, s.latest, c.healed, c.forced} {
		b = le.AppendUint32(b, uint32(e))
	}
	le.PutUint32(b[8:], sum(b[12:]))
	return replaceFile(s.fs, completeFile, b)
}

func sum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
