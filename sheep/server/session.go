package server

import (
	"sync"
	"sync/atomic"

	"sheepdog/sheep"
	"sheepdog/sheep/proto"
)

// A Session is what outlives a request on a connection: the VDIs that were
// written to without being durable. They are flushed when the client goes,
// because qemu-img convert never flushes.
type Session struct {
	peer atomic.Pointer[peer] // who is at the other end, once it has said so

	mu       sync.Mutex
	deferred map[sheep.VDIID]struct{} // guarded by mu
	locks    uint64                   // guarded by mu; the number that its locks end with; 0 if it has taken none
}

// A peer is the sheep at the other end of a connection.
type peer struct {
	hello proto.Hello
	owner Owner // serves what it forwards; may be nil
}

// number returns the number that the locks of the session end with, made by next
// if there is none yet.
func (s *Session) number(next func() uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks == 0 {
		s.locks = next()
	}
	return s.locks
}

// locking returns the number that number has returned, or 0.
func (s *Session) locking() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.locks
}

// Deferred notes that a write to vdi was answered that may not be durable.
func (s *Session) Deferred(vdi sheep.VDIID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deferred == nil {
		s.deferred = make(map[sheep.VDIID]struct{})
	}
	s.deferred[vdi] = struct{}{}
}

// Flushing notes that vdi is about to be flushed.
func (s *Session) Flushing(vdi sheep.VDIID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.deferred, vdi)
}

// Unflushed returns the VDIs that Deferred named and Flushing did not.
func (s *Session) Unflushed() []sheep.VDIID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []sheep.VDIID
	for id := range s.deferred {
		ids = append(ids, id)
	}
	return ids
}
