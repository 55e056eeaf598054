package proto

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"time"

	"sheepdog/sheep"
)

// Limits of the answer to GET_SLOW.
const (
	MaxSlow      = 512 // requests that are told
	maxSlowNodes = sheep.MaxCopies
	maxSlowText  = 400 // bytes of each text
	slowSize     = 24

	// SlowRoom is the most that the answer takes.
	SlowRoom = 4 + MaxSlow*(slowSize+maxSlowNodes*addrSize+5*(2+maxSlowText))
)

// SlowAge is how long a request must have been in flight to be told.
const SlowAge = time.Second

// A SlowList is the answer to GET_SLOW: the requests of clients that have been in
// flight on the answering node for SlowAge or longer. Integers are little-endian.
//
//	offset  size  field
//	     0     4  number of such requests, of which not all need follow
//	     4        requests that follow, the oldest first, each:
//	           8  object
//	           8  age in nanoseconds
//	           4  epoch in which it waits, or 0
//	           1  1 if its client does not wait any more
//	           1  zero
//	           2  number of nodes whose answers it waits for
//	              those nodes: address (16), port (2)
//	              texts, each after its length (2): name of the VDI, operation,
//	              state, client, reason
type SlowList struct {
	Total    uint32
	Requests []SlowRequest
}

// A SlowRequest is one of a SlowList.
type SlowRequest struct {
	ID      sheep.ObjectID
	Age     time.Duration
	Epoch   sheep.Epoch
	GivenUp bool
	Nodes   []netip.AddrPort
	Name    string // of the VDI
	Op      string
	State   string // what it waits for, see package flight
	Client  string
	Reason  string // may be empty
}

// texts returns the texts in the order of the wire.
func (r *SlowRequest) texts() [5]*string {
	return [...]*string{&r.Name, &r.Op, &r.State, &r.Client, &r.Reason}
}

// Append appends the list to b, list and texts cut to their limits.
func (l SlowList) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, l.Total)
	for _, r := range l.Requests[:min(len(l.Requests), MaxSlow)] {
		b = r.append(b)
	}
	return b
}

func (r SlowRequest) append(b []byte) []byte {
	le := binary.LittleEndian
	nodes := r.Nodes[:min(len(r.Nodes), maxSlowNodes)]
	b = le.AppendUint64(b, uint64(r.ID))
	b = le.AppendUint64(b, uint64(max(r.Age, 0)))
	b = le.AppendUint32(b, uint32(r.Epoch))
	b = append(b, bit(r.GivenUp), 0)
	b = le.AppendUint16(b, uint16(len(nodes)))
	for _, n := range nodes {
		b = appendAddr(b, n)
	}
	for _, p := range r.texts() {
		text := (*p)[:min(len(*p), maxSlowText)]
		b = append(le.AppendUint16(b, uint16(len(text))), text...)
	}
	return b
}

// DecodeSlowList decodes b.
func DecodeSlowList(b []byte) (SlowList, error) {
	if len(b) < 4 {
		return SlowList{}, short("list of slow requests", len(b), 4)
	}
	l := SlowList{Total: binary.LittleEndian.Uint32(b)}
	for b = b[4:]; len(b) > 0; {
		r, n, ok := decodeSlow(b)
		if !ok || len(l.Requests) == MaxSlow {
			return SlowList{}, fmt.Errorf("%w: list of slow requests", ErrMalformed)
		}
		l.Requests = append(l.Requests, r)
		b = b[n:]
	}
	return l, nil
}

// decodeSlow decodes the request at the start of b, and returns its length.
func decodeSlow(b []byte) (r SlowRequest, n int, ok bool) {
	le := binary.LittleEndian
	if len(b) < slowSize || le.Uint64(b[8:]) > math.MaxInt64 || b[20] > 1 || b[21] != 0 {
		return r, 0, false
	}
	r = SlowRequest{
		ID: sheep.ObjectID(le.Uint64(b)), Age: time.Duration(le.Uint64(b[8:])), Epoch: sheep.Epoch(le.Uint32(b[16:])),
		GivenUp: b[20] != 0,
	}
	nodes := int(le.Uint16(b[22:]))
	n = slowSize
	if nodes > maxSlowNodes || len(b) < n+nodes*addrSize {
		return r, 0, false
	}
	for range nodes {
		r.Nodes = append(r.Nodes, decodeAddr(b[n:]))
		n += addrSize
	}
	for _, p := range r.texts() {
		if len(b) < n+2 || int(le.Uint16(b[n:])) > maxSlowText || len(b) < n+2+int(le.Uint16(b[n:])) {
			return r, 0, false
		}
		size := int(le.Uint16(b[n:]))
		*p = string(b[n+2 : n+2+size])
		n += 2 + size
	}
	return r, n, true
}
