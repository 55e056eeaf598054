package cluster

import (
	"fmt"

	"sheepdog/sheep"
)

// A message is what a member proposes. Its effect on the state is its apply
// method; append and the decode function of its kind mirror each other.
type message interface {
	kind() messageKind
	append(b []byte) []byte

	// apply changes the state for the proposer m and returns what the proposer
	// is told. A message that returns an error has changed nothing.
	apply(s *state, m *member, e *Entry, fx *effects) error
}

type messageKind uint8

// The kinds of messages, as logs have them: never renumber.
const (
	kindContribute   messageKind = 1
	kindFormat       messageKind = 2
	kindShutdown     messageKind = 3
	kindForceRecover messageKind = 4
	kindSetRecovery  messageKind = 5
	kindUpdateNode   messageKind = 6
	kindAlterCluster messageKind = 7
	kindAlterVDI     messageKind = 8
	kindComplete     messageKind = 9
	kindAddVDI       messageKind = 10
	kindLock         messageKind = 11
	kindUnlock       messageKind = 12
	kindCoherence    messageKind = 13
	kindOwn          messageKind = 14
	kindHandOver     messageKind = 15
	kindDrained      messageKind = 16
	kindDisown       messageKind = 17
	kindPlan         messageKind = 18
	kindFreeze       messageKind = 19
	kindDone         messageKind = 20
	kindDoubt        messageKind = 21
	kindSetDelay     messageKind = 22
	kindMaintain     messageKind = 23
	kindDrain        messageKind = 24
	kindStart        messageKind = 25
	kindEndSession   messageKind = 26
	kindSetDeadline  messageKind = 27
)

// decode reads the body of a message of kind k.
func (k messageKind) decode(d *decoder) message {
	switch k {
	case kindContribute:
		return decodeContribute(d)
	case kindFormat:
		return formatMsg{d.settings()}
	case kindShutdown:
		return shutdownMsg{}
	case kindForceRecover:
		return forceRecoverMsg{d.u32()}
	case kindSetRecovery:
		return setRecoveryMsg{d.bool()}
	case kindUpdateNode:
		return updateNodeMsg{vnodes: d.u16(), space: d.u64()}
	case kindAlterCluster:
		return alterClusterMsg{d.u8()}
	case kindAlterVDI:
		return alterVDIMsg{vid: d.vid(), copies: d.u8()}
	case kindComplete:
		return completeMsg{sheep.Epoch(d.u32())}
	case kindAddVDI:
		return addVDIMsg{old: d.vid(), vdi: d.vdi(), used: d.bool()}
	case kindLock:
		return decodeLock(d)
	case kindUnlock:
		return unlockMsg{vid: d.vid(), shared: d.bool(), node: d.node()}
	case kindCoherence:
		return coherenceMsg{vid: d.vid(), validate: d.bool()}
	case kindOwn:
		return ownMsg{d.vid()}
	case kindHandOver:
		return handOverMsg{vid: d.vid(), gen: d.gen(), to: d.inc()}
	case kindDrained:
		return drainedMsg{vid: d.vid(), gen: d.gen()}
	case kindDisown:
		return disownMsg{vid: d.vid(), gen: d.gen()}
	case kindPlan:
		return planMsg{planKind: d.u8(), payload: d.bytes()}
	case kindFreeze:
		return decodeFreeze(d)
	case kindDone:
		return decodeDone(d)
	case kindDoubt:
		return doubtMsg{vid: d.vid(), since: d.u64()}
	case kindSetDelay:
		return setDelayMsg{int64(d.u64())}
	case kindMaintain:
		return maintainMsg{addr: d.addr(), on: d.bool(), duration: int64(d.u64())}
	case kindStart:
		return startMsg{}
	case kindEndSession:
		return endSessionMsg{d.u64()}
	case kindSetDeadline:
		return setDeadlineMsg{vid: d.vid(), value: int64(d.u64())}
	case kindDrain:
		return drainMsg{addr: d.addr(), on: d.bool()}
	}
	d.bad = true
	return nil
}

func (d *decoder) vid() sheep.VDIID            { return sheep.VDIID(d.u32()) }
func (d *decoder) gen() sheep.Generation       { return sheep.Generation(d.u64()) }
func (d *decoder) inc() sheep.Incarnation      { return sheep.Incarnation(d.u64()) }
func appendVID(b []byte, v sheep.VDIID) []byte { return le.AppendUint32(b, uint32(v)) }

// appendMessage appends a message as it is proposed:
//
//	offset  size  field
//	     0     1  kind
//	     1     8  sequence number of the proposer, from 1
//	     9        body, laid out by the kind
func appendMessage(b []byte, seq uint64, m message) []byte {
	b = append(b, byte(m.kind()))
	b = le.AppendUint64(b, seq)
	return m.append(b)
}

// decodeMessage is the inverse of appendMessage and refuses anything that
// appendMessage does not write.
func decodeMessage(b []byte) (seq uint64, m message, err error) {
	if len(b) > MaxMessage {
		return 0, nil, fmt.Errorf("%w: %d bytes", errMalformed, len(b))
	}
	d := &decoder{b: b}
	kind := messageKind(d.u8())
	seq = d.u64()
	m = kind.decode(d)
	if err := d.end(); err != nil {
		return 0, nil, fmt.Errorf("%w: kind %d", err, kind)
	}
	return seq, m, nil
}
