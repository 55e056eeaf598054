package cluster

import (
	"fmt"
	"slices"
	"strings"

	"sheepdog/sheep"
)

// Messages about the cluster as a whole and its members.

// formatMsg makes an empty cluster of the present members.
type formatMsg struct{ settings Settings }

func (formatMsg) kind() messageKind        { return kindFormat }
func (m formatMsg) append(b []byte) []byte { return appendSettings(b, m.settings) }

func (m formatMsg) apply(s *state, _ *member, e *Entry, fx *effects) error {
	if s.status == Shutdown || s.stopping {
		return sheep.ErrShutdown
	}
	if err := m.settings.valid(); err != nil {
		return fmt.Errorf("format: %w", err)
	}
	for _, other := range s.members {
		if !m.settings.fits(other.fixed) {
			return fmt.Errorf("format: %w: %s", sheep.ErrInvalid, strategyMismatch(other.node, m.settings))
		}
		other.owed = 0
	}
	s.dropOwners(fx)
	s.dropPlans(fmt.Errorf("%w: the cluster was formatted", sheep.ErrAgain), fx)
	s.vdis = newVDITable()
	s.settings, s.healing, s.deadlines = m.settings, newHealing(), deadlines{}
	s.status, s.started = OK, true
	s.epoch, s.forced = 0, 0
	fx.format = true
	s.beginEpoch(e.Time, fx)
	s.trustAll() // all stores are empty alike
	return nil
}

// valid returns an error if no cluster may have the settings.
func (s Settings) valid() error {
	if _, err := sheep.PolicyFromWire(s.Copies, s.CopyPolicy); err != nil {
		return err
	}
	if s.BlockShift < sheep.MinBlockShift || s.BlockShift > sheep.MaxBlockShift {
		return fmt.Errorf("%w: block size shift %d", sheep.ErrInvalid, s.BlockShift)
	}
	if s.Ctime == 0 || s.Store == "" || len(s.Store) > 15 || strings.ContainsRune(s.Store, 0) {
		return fmt.Errorf("%w: created %d, store %q", sheep.ErrInvalid, s.Ctime, s.Store)
	}
	if s.Flags&FlagDiskMode != 0 {
		return fmt.Errorf("%w: vnodes per disk", sheep.ErrNotSupported)
	}
	return nil
}

// shutdownMsg stops all daemons, after the open plan. A second one does not
// wait for the plan.
type shutdownMsg struct{}

func (shutdownMsg) kind() messageKind      { return kindShutdown }
func (shutdownMsg) append(b []byte) []byte { return b }

func (shutdownMsg) apply(s *state, _ *member, _ *Entry, fx *effects) error {
	if s.status == Shutdown {
		return nil
	}
	wait := !s.stopping && len(s.plans) > 0
	s.stopping = true
	if wait {
		s.dropQueue(sheep.ErrShutdown, fx)
		return nil
	}
	s.stop(fx)
	return nil
}

func (s *state) stop(fx *effects) {
	s.status = Shutdown
	fx.shutdown, fx.view = true, true
}

// forceRecoverMsg gives up the members of the newest epoch that are missing, and
// leaves out as many epochs as they may have gone on for without those that are
// present.
type forceRecoverMsg struct{ skip uint32 }

func (forceRecoverMsg) kind() messageKind        { return kindForceRecover }
func (m forceRecoverMsg) append(b []byte) []byte { return le.AppendUint32(b, m.skip) }

func (m forceRecoverMsg) apply(s *state, _ *member, e *Entry, fx *effects) error {
	switch {
	case s.status == Shutdown:
		return sheep.ErrShutdown
	case s.status != Wait:
		return fmt.Errorf("%w: the cluster is running", sheep.ErrInvalid)
	case s.epoch == 0:
		return sheep.ErrWaitForFormat
	case m.skip > maxSkip:
		return fmt.Errorf("%w: %d epochs left out", sheep.ErrInvalid, m.skip)
	case !s.ready():
		return fmt.Errorf("%w: members still tell their VDIs", sheep.ErrAgain)
	}
	s.status, s.started = OK, true
	s.healing.absences = nil // they are given up
	s.epoch += sheep.Epoch(m.skip)
	s.beginEpoch(e.Time, fx)
	s.forced = s.epoch
	s.resume(fx)
	return nil
}

// setRecoveryMsg switches recovery on or off.
type setRecoveryMsg struct{ on bool }

func (setRecoveryMsg) kind() messageKind        { return kindSetRecovery }
func (m setRecoveryMsg) append(b []byte) []byte { return appendBool(b, m.on) }

func (m setRecoveryMsg) apply(s *state, _ *member, _ *Entry, fx *effects) error {
	fx.view = fx.view || s.recoveryOff == m.on
	s.recoveryOff = !m.on
	return nil
}

// updateNodeMsg changes the proposer's weight or space. A zero leaves the value
// as it is.
type updateNodeMsg struct {
	vnodes uint16
	space  uint64
}

func (updateNodeMsg) kind() messageKind { return kindUpdateNode }

func (m updateNodeMsg) append(b []byte) []byte {
	b = le.AppendUint16(b, m.vnodes)
	return le.AppendUint64(b, m.space)
}

func (m updateNodeMsg) apply(s *state, from *member, e *Entry, fx *effects) error {
	if from.node.VNodes == 0 {
		return fmt.Errorf("%w: %v is a gateway", sheep.ErrInvalid, from.node)
	}
	if m.vnodes != 0 && s.settings.Flags&FlagAutoVNode != 0 {
		return fmt.Errorf("%w: the cluster has automatic weights", sheep.ErrInvalid)
	}
	before := from.node
	if m.vnodes != 0 {
		from.node.VNodes = m.vnodes
	}
	if m.space != 0 {
		from.node.Space = m.space
	}
	if from.node == before {
		return nil
	}
	fx.view = true
	if s.status == OK {
		s.beginEpoch(e.Time, fx)
	}
	return nil
}

// alterClusterMsg changes the default number of copies of new VDIs.
type alterClusterMsg struct{ copies uint8 }

func (alterClusterMsg) kind() messageKind        { return kindAlterCluster }
func (m alterClusterMsg) append(b []byte) []byte { return append(b, m.copies) }

func (m alterClusterMsg) apply(s *state, _ *member, _ *Entry, fx *effects) error {
	if err := s.serving(); err != nil {
		return err
	}
	if m.copies == 0 || m.copies > sheep.MaxCopies || s.settings.CopyPolicy != 0 {
		return fmt.Errorf("%w: %d copies", sheep.ErrInvalid, m.copies)
	}
	s.settings.Copies = m.copies
	fx.view = true
	return nil
}

// completeMsg says that the proposer has recovered all that it lacked.
type completeMsg struct{ epoch sheep.Epoch }

func (completeMsg) kind() messageKind        { return kindComplete }
func (m completeMsg) append(b []byte) []byte { return le.AppendUint32(b, uint32(m.epoch)) }

func (m completeMsg) apply(s *state, from *member, _ *Entry, fx *effects) error {
	if m.epoch != s.epoch || s.status == Wait {
		return &sheep.StaleEpochError{Sent: m.epoch, Current: s.epoch}
	}
	from.complete = m.epoch
	if s.status == OK && s.allComplete() { // a shutdown lets members go within an epoch
		s.trustAll()
	}
	fx.view = true
	return nil
}

// allComplete reports whether all members that store data are complete for the
// epoch.
func (s *state) allComplete() bool {
	return !slices.ContainsFunc(s.members, func(m *member) bool { return m.complete < s.epoch && m.node.VNodes > 0 })
}

// A contributeMsg tells VDIs that the proposer's store knows. While the cluster
// waits, what the newest copy of an inode says counts. Later only VDIs are news
// that nobody has heard of: a cluster whose newest epoch had few members starts
// with the inodes that these have.
type contributeMsg struct{ vdis []KnownVDI }

func (contributeMsg) kind() messageKind { return kindContribute }

func (m contributeMsg) append(b []byte) []byte {
	b = le.AppendUint32(b, uint32(len(m.vdis)))
	for _, v := range m.vdis {
		b = appendVDI(b, v.VDI)
		b = le.AppendUint32(b, uint32(v.Epoch))
	}
	return b
}

func decodeContribute(d *decoder) message {
	vdis := make([]KnownVDI, d.count(vdiSize+4))
	for i := range vdis {
		vdis[i] = KnownVDI{VDI: d.vdi(), Epoch: sheep.Epoch(d.u32())}
	}
	return contributeMsg{vdis}
}

func (m contributeMsg) apply(s *state, from *member, e *Entry, fx *effects) error {
	if from.owed == 0 {
		return nil
	}
	for _, v := range m.vdis {
		if validVDI(v.VDI) == nil && (s.status == Wait || s.vdis.all[v.VDI.ID] == nil) {
			s.vdis.contribute(v)
		}
	}
	from.owed -= min(from.owed, uint32(len(m.vdis)))
	fx.view = from.owed == 0
	s.start(e.Time, fx)
	return nil
}

// validVDI returns an error if there cannot be such a VDI.
func validVDI(v sheep.VDI) error {
	if v.ID == 0 || v.ID >= sheep.MaxVDIs || v.Parent >= sheep.MaxVDIs {
		return fmt.Errorf("%w: VDI %v with parent %v", sheep.ErrInvalid, v.ID, v.Parent)
	}
	if len(v.Name) > 255 || strings.ContainsRune(v.Name, 0) {
		return fmt.Errorf("%w: name %q of VDI %v", sheep.ErrInvalid, v.Name, v.ID)
	}
	if p, err := sheep.PolicyFromWire(v.Policy.Wire()); err != nil || p != v.Policy {
		return fmt.Errorf("%w: policy %+v of VDI %v", sheep.ErrInvalid, v.Policy, v.ID)
	}
	return nil
}
