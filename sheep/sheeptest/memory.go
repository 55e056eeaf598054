// Package sheeptest helps to test the links of the request path.
//
// Memory is the simplest implementation of sheep.Objects, a map in memory, and
// serves as the end of a chain under test and as the model that others are
// compared with. Objects is the conformance suite that every link passes.
// Neither is meant to be fast, and both keep nothing on disk.
package sheeptest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"sheepdog/sheep"
)

var (
	_ sheep.Objects = (*Memory)(nil)
	_ sheep.Flusher = (*Memory)(nil)
)

// Memory keeps objects in memory.
type Memory struct {
	// Fail, if set, is called before every request with what it is and may
	// return the error that the request shall end in. It is set before use.
	Fail func(op string, id sheep.ObjectID) error

	mu      sync.Mutex
	objects map[sheep.ObjectID][]byte // guarded by mu
	flushes map[sheep.VDIID]int       // guarded by mu
}

// NewMemory returns a Memory without objects.
func NewMemory() *Memory {
	return &Memory{objects: make(map[sheep.ObjectID][]byte), flushes: make(map[sheep.VDIID]int)}
}

// Read implements sheep.Objects.
func (m *Memory) Read(_ context.Context, ref sheep.Ref, p []byte, off uint32) error {
	if err := m.fail("read", ref.ID); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.objects[ref.ID]
	if !ok {
		return fmt.Errorf("read object %v: %w", ref.ID, sheep.ErrNoObject)
	}
	clear(p)
	if int(off) < len(b) {
		copy(p, b[off:])
	}
	return nil
}

// Write implements sheep.Objects.
func (m *Memory) Write(_ context.Context, ref sheep.Ref, w *sheep.Write) error {
	if err := m.fail("write", ref.ID); err != nil {
		return err
	}
	if w.From != nil {
		return errors.New("a write that copies has come below the gateway")
	}
	if uint64(w.Off)+uint64(w.Len()) > uint64(ref.Size) {
		return fmt.Errorf("write %d bytes at %d of object %v of %d bytes: %w", w.Len(), w.Off, ref.ID, ref.Size, sheep.ErrInvalid)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.Create {
		m.objects[ref.ID] = make([]byte, ref.Size)
	}
	b, ok := m.objects[ref.ID]
	if !ok {
		return fmt.Errorf("write object %v: %w", ref.ID, sheep.ErrNoObject)
	}
	if w.Zero != 0 {
		clear(b[w.Off : w.Off+w.Zero])
	} else {
		copy(b[w.Off:], w.Data)
	}
	return nil
}

// Remove implements sheep.Objects.
func (m *Memory) Remove(_ context.Context, ref sheep.Ref) error {
	if err := m.fail("remove", ref.ID); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, ref.ID)
	return nil
}

// Flush implements sheep.Flusher.
func (m *Memory) Flush(_ context.Context, vdi sheep.VDIID) error {
	if err := m.fail("flush", sheep.InodeObject(vdi)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushes[vdi]++
	return nil
}

// IDs returns the objects that exist, in order.
func (m *Memory) IDs() []sheep.ObjectID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.objects))
}

// Flushes returns how often vdi has been flushed.
func (m *Memory) Flushes(vdi sheep.VDIID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flushes[vdi]
}

func (m *Memory) fail(op string, id sheep.ObjectID) error {
	if m.Fail == nil {
		return nil
	}
	return m.Fail(op, id)
}
