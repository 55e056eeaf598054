package cluster

import (
	"fmt"
	"maps"
	"slices"

	"sheepdog/sheep"
)

// A vdiState is what is known of one VDI.
type vdiState struct {
	vdi   sheep.VDI
	used  bool        // its number is taken
	epoch sheep.Epoch // of the inode that told of it at the start, else 0
	lock  sheep.Lock

	orphaned bool // an owner has died since every copy was known to be current
	doubt    Doubt
}

// A vdiTable holds the VDIs by number and by name.
type vdiTable struct {
	all   map[sheep.VDIID]*vdiState
	named map[string][]sheep.VDIID // each ascending
}

func newVDITable() vdiTable {
	return vdiTable{all: map[sheep.VDIID]*vdiState{}, named: map[string][]sheep.VDIID{}}
}

// put adds a VDI or replaces what was known of it but the lock. A number that
// is taken stays taken.
func (t *vdiTable) put(v sheep.VDI, used bool) *vdiState {
	st := t.all[v.ID]
	if st == nil {
		st = &vdiState{lock: sheep.Lock{State: sheep.Unlocked}}
		t.all[v.ID] = st
	} else {
		t.unname(st.vdi)
	}
	st.vdi = v
	st.used = st.used || used
	ids := t.named[v.Name]
	i, _ := slices.BinarySearch(ids, v.ID)
	t.named[v.Name] = slices.Insert(ids, i, v.ID)
	return st
}

func (t *vdiTable) drop(id sheep.VDIID) {
	if st := t.all[id]; st != nil {
		t.unname(st.vdi)
		delete(t.all, id)
	}
}

func (t *vdiTable) unname(v sheep.VDI) {
	ids := t.named[v.Name]
	if i, found := slices.BinarySearch(ids, v.ID); found {
		ids = slices.Delete(ids, i, i+1)
	}
	if len(ids) == 0 {
		delete(t.named, v.Name)
		return
	}
	t.named[v.Name] = ids
}

// contribute merges what a store knows: the newest copy of an inode counts.
func (t *vdiTable) contribute(k KnownVDI) {
	if st := t.all[k.VDI.ID]; st != nil && st.epoch >= k.Epoch {
		return
	}
	t.put(k.VDI, true).epoch = k.Epoch
}

// sorted returns the numbers of all VDIs, ascending.
func (t *vdiTable) sorted() []sheep.VDIID {
	return slices.Sorted(maps.Keys(t.all))
}

// bitmap returns a bit for each number, set where want says so.
func (t *vdiTable) bitmap(want func(*vdiState) bool) []byte {
	b := make([]byte, sheep.MaxVDIs/8)
	for id, st := range t.all {
		if want(st) {
			b[id/8] |= 1 << (id % 8)
		}
	}
	return b
}

// addVDIMsg registers a VDI, and makes old, if there is one, its snapshot.
type addVDIMsg struct {
	old  sheep.VDIID
	vdi  sheep.VDI
	used bool
}

func (addVDIMsg) kind() messageKind { return kindAddVDI }

func (m addVDIMsg) append(b []byte) []byte {
	b = appendVID(b, m.old)
	b = appendVDI(b, m.vdi)
	return appendBool(b, m.used)
}

func (m addVDIMsg) apply(s *state, _ *member, _ *Entry, _ *effects) error {
	if err := validVDI(m.vdi); err != nil {
		return err
	}
	if old := s.vdis.all[m.old]; old != nil {
		old.vdi.Snapshot = true
	}
	s.vdis.put(m.vdi, m.used)
	return nil
}

// alterVDIMsg changes the number of copies of a replicated VDI. It begins an
// epoch, so that every node looks for the copies that it should now have.
type alterVDIMsg struct {
	vid    sheep.VDIID
	copies uint8
}

func (alterVDIMsg) kind() messageKind        { return kindAlterVDI }
func (m alterVDIMsg) append(b []byte) []byte { return append(appendVID(b, m.vid), m.copies) }

func (m alterVDIMsg) apply(s *state, _ *member, e *Entry, fx *effects) error {
	if err := s.serving(); err != nil {
		return err
	}
	st := s.vdis.all[m.vid]
	if st == nil {
		return sheep.ErrNoVDI
	}
	if m.copies == 0 || m.copies > sheep.MaxCopies || st.vdi.Policy.Erasure() {
		return fmt.Errorf("%w: %d copies of VDI %v (%v)", sheep.ErrInvalid, m.copies, m.vid, st.vdi.Policy)
	}
	if st.vdi.Policy == sheep.Replicated(m.copies) {
		return nil
	}
	st.vdi.Policy = sheep.Replicated(m.copies)
	s.beginEpoch(e.Time, fx)
	return nil
}
