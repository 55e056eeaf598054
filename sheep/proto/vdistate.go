package proto

import (
	"encoding/binary"
	"fmt"

	"sheepdog/sheep"
)

// VDIStateSize is the length of a VDIState.
const VDIStateSize = 1428

const maxParticipants = 31

// A VDIState is what GET_VDI_COPIES and the checkpoints tell of one VDI.
//
//	offset  size  field
//	     0     4  VDI
//	     4     1  copies
//	     5     1  1 if it is a snapshot
//	     6     1  1 if it is deleted
//	     7     1  copy policy
//	     8     1  block size shift
//	     9     3  padding
//	    12     4  parent VDI
//	    16     4  lock state
//	    20    40  node id of the lock's owner
//	    60     4  number of participants
//	    64   124  state of each participant, 31 of 4 bytes
//	   188  1240  node id of each participant, 31 of 40 bytes
type VDIState struct {
	VDI        sheep.VDIID
	Copies     uint8
	Snapshot   bool
	Deleted    bool
	CopyPolicy uint8
	BlockShift uint8
	Parent     sheep.VDIID
	Lock       sheep.Lock // its nodes have nothing but their addresses
}

// VDIStateOf returns the state of v, locked as lock says; the zero lock is an
// open one.
func VDIStateOf(v sheep.VDI, lock sheep.Lock) VDIState {
	s := VDIState{
		VDI:        v.ID,
		Snapshot:   v.Snapshot,
		Deleted:    v.Deleted,
		BlockShift: v.BlockShift,
		Parent:     v.Parent,
		Lock:       lock,
	}
	s.Lock.State = max(lock.State, sheep.Unlocked)
	s.Copies, s.CopyPolicy = v.Policy.Wire()
	return s
}

// DecodeVDIState decodes the record at the start of b.
func DecodeVDIState(b []byte) (VDIState, error) {
	if len(b) < VDIStateSize {
		return VDIState{}, short("VDI state", len(b), VDIStateSize)
	}
	le := binary.LittleEndian
	n := le.Uint32(b[60:])
	if n > maxParticipants {
		return VDIState{}, fmt.Errorf("%w: VDI state with %d participants", ErrMalformed, n)
	}
	owner, err := DecodeNodeID(b[20:])
	if err != nil {
		return VDIState{}, err
	}
	s := VDIState{
		VDI:        sheep.VDIID(le.Uint32(b[0:])),
		Copies:     b[4],
		Snapshot:   b[5] != 0,
		Deleted:    b[6] != 0,
		CopyPolicy: b[7],
		BlockShift: b[8],
		Parent:     sheep.VDIID(le.Uint32(b[12:])),
		Lock:       sheep.Lock{State: sheep.LockState(le.Uint32(b[16:])), Owner: owner},
	}
	for i := range int(n) {
		node, err := DecodeNodeID(b[188+i*NodeIDSize:])
		if err != nil {
			return VDIState{}, err
		}
		state := sheep.ShareState(le.Uint32(b[64+4*i:]))
		s.Lock.Participants = append(s.Lock.Participants, sheep.Participant{Node: node, State: state})
	}
	return s, nil
}

// Append appends the record's 1428 bytes to b; of more than 31 participants
// the first 31 are written.
func (s VDIState) Append(b []byte) []byte {
	le := binary.LittleEndian
	shared := s.Lock.Participants[:min(len(s.Lock.Participants), maxParticipants)]
	b = le.AppendUint32(b, uint32(s.VDI))
	b = append(b, s.Copies, bit(s.Snapshot), bit(s.Deleted), s.CopyPolicy, s.BlockShift, 0, 0, 0)
	b = le.AppendUint32(b, uint32(s.Parent))
	b = le.AppendUint32(b, uint32(s.Lock.State))
	b = AppendNodeID(b, s.Lock.Owner)
	b = le.AppendUint32(b, uint32(len(shared)))
	for _, p := range shared {
		b = le.AppendUint32(b, uint32(p.State))
	}
	b = append(b, make([]byte, 4*(maxParticipants-len(shared)))...)
	for _, p := range shared {
		b = AppendNodeID(b, p.Node)
	}
	return append(b, make([]byte, NodeIDSize*(maxParticipants-len(shared)))...)
}

// DecodeVDIStates decodes b, which must be a whole number of records, at most
// one for each VDI.
func DecodeVDIStates(b []byte) ([]VDIState, error) {
	if len(b)%VDIStateSize != 0 {
		return nil, fmt.Errorf("%w: VDI states of %d bytes", ErrMalformed, len(b))
	}
	states := make([]VDIState, 0, len(b)/VDIStateSize)
	for ; len(b) > 0; b = b[VDIStateSize:] {
		s, err := DecodeVDIState(b)
		if err != nil {
			return nil, err
		}
		states = append(states, s)
	}
	return states, nil
}
