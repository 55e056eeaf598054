package proto

import (
	"encoding/binary"
	"fmt"

	"sheepdog/sheep"
)

// Limits of the answer to GET_WAITING.
const (
	MaxWaiting       = 256 // objects that are told
	MaxWaitingReason = 400 // bytes of the reason for each
	WaitingRoom      = 4 + MaxWaiting*(18+MaxWaitingReason)
)

// A WaitingList is the answer to GET_WAITING: the objects whose copies on the
// answering node cannot be made current yet.
//
//	offset  size  field
//	     0     4  number of such objects, of which not all need follow
//	     4        objects that follow, each:
//	           8  id; 0 stands for objects of which no present node may know
//	           8  since when it waits: seconds since 1970
//	           2  length of the reason
//	              reason, for people
type WaitingList struct {
	Total   uint32
	Objects []WaitingObject
}

// A WaitingObject is one of a WaitingList.
type WaitingObject struct {
	ID     sheep.ObjectID
	Since  int64
	Reason string
}

// Append appends the list to b, reasons and list cut to their limits.
func (w WaitingList) Append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, w.Total)
	for _, o := range w.Objects[:min(len(w.Objects), MaxWaiting)] {
		reason := o.Reason[:min(len(o.Reason), MaxWaitingReason)]
		b = le.AppendUint64(b, uint64(o.ID))
		b = le.AppendUint64(b, uint64(o.Since))
		b = le.AppendUint16(b, uint16(len(reason)))
		b = append(b, reason...)
	}
	return b
}

// DecodeWaitingList decodes b.
func DecodeWaitingList(b []byte) (WaitingList, error) {
	le := binary.LittleEndian
	if len(b) < 4 {
		return WaitingList{}, short("list of waiting objects", len(b), 4)
	}
	w := WaitingList{Total: le.Uint32(b)}
	for b = b[4:]; len(b) > 0; {
		if len(b) < 18 || len(b) < 18+int(le.Uint16(b[16:])) || le.Uint16(b[16:]) > MaxWaitingReason || len(w.Objects) == MaxWaiting {
			return WaitingList{}, fmt.Errorf("%w: list of waiting objects", ErrMalformed)
		}
		n := 18 + int(le.Uint16(b[16:]))
		w.Objects = append(w.Objects, WaitingObject{ID: sheep.ObjectID(le.Uint64(b)), Since: int64(le.Uint64(b[8:])), Reason: string(b[18:n])})
		b = b[n:]
	}
	return w, nil
}
