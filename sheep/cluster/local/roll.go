package local

import (
	"maps"
	"slices"

	"sheepdog/sheep"
)

// A roll is who has joined and not left, as the log tells it, with the latest
// heartbeat that each one logged to say that it is back; 0 if it never did.
type roll map[sheep.Incarnation]int64

const rollEntry = 16

// marshal returns the roll as files have it: for each member, ascending, eight
// bytes of incarnation and eight of heartbeat.
func (r roll) marshal() []byte {
	b := make([]byte, 0, len(r)*rollEntry)
	for _, inc := range slices.Sorted(maps.Keys(r)) {
		b = le.AppendUint64(b, uint64(inc))
		b = le.AppendUint64(b, uint64(r[inc]))
	}
	return b
}

func decodeRoll(b []byte) roll {
	r := roll{}
	for ; len(b) >= rollEntry; b = b[rollEntry:] {
		r[sheep.Incarnation(le.Uint64(b))] = int64(le.Uint64(b[8:]))
	}
	return r
}

// leaving is what a leave record tells:
//
//	offset  size  field
//	     0     8  incarnation of who leaves
//	     8     8  its last heartbeat, if it was expelled for lack of a newer one, else 0
//	    16        reason, for people
type leaving struct {
	who    sheep.Incarnation
	beat   int64
	reason string
}

func (l leaving) append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(l.who))
	b = le.AppendUint64(b, uint64(l.beat))
	return append(b, l.reason...)
}

func decodeLeaving(b []byte) (leaving, bool) {
	if len(b) < 16 {
		return leaving{}, false
	}
	return leaving{sheep.Incarnation(le.Uint64(b)), int64(le.Uint64(b[8:])), string(b[16:])}, true
}

// leave strikes who leaves off the roll. An expulsion is void if the member
// had logged before it that it is back.
func (r roll) leave(l leaving) bool {
	back, joined := r[l.who]
	if !joined || l.beat != 0 && back > l.beat {
		return false
	}
	delete(r, l.who)
	return true
}

// wake notes the heartbeat that a member logged.
func (r roll) wake(who sheep.Incarnation, data []byte) {
	if old, joined := r[who]; joined && len(data) == 8 {
		r[who] = max(old, int64(le.Uint64(data)))
	}
}
