package store

import (
	"errors"
	"fmt"
	"os"
)

// scrubFile is where the background scrub keeps how far it has come. What is in
// it is the scrub's own business.
const scrubFile = "scrub.state"

// ScrubState returns what SetScrubState has kept, nil if nothing.
func (s *Store) ScrubState() ([]byte, error) {
	b, err := readFile(s.fs, scrubFile, 1<<20)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state of the scrub: %w", err)
	}
	return b, nil
}

// SetScrubState keeps b, durably.
func (s *Store) SetScrubState(b []byte) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.meta.Lock()
	defer s.meta.Unlock()
	if err := replaceFile(s.fs, scrubFile, b); err != nil {
		return fmt.Errorf("state of the scrub: %w", err)
	}
	return nil
}
