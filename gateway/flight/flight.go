// Package flight knows the requests of clients that are in flight on this node.
//
// A Door stands where requests come in. It enters each into a Table for as long
// as it is carried out; a Table tells which requests take long, and the links
// below note in a request's Flight what it waits for at the moment: an operator
// sees the object, the node and the epoch of what hangs. A Flight is the
// context of its request, so that it costs no allocation and no lock that
// requests share.
//
// A Door also keeps the deadlines of clients. A client that has waited for so
// long gets an error, and to its request it is as if the client had gone, see
// sheep.Caller: what has not begun is given up, and what copies may have taken in
// part goes on to its end, in its place among the requests to the object.
package flight

import (
	"context"
	"sync"
	"time"

	"sheepdog/sheep"
)

// An Op says what a request does.
type Op uint8

// The operations.
const (
	Read Op = iota
	Write
	Remove
	Discard
	Flush
)

func (o Op) String() string { return [...]string{"read", "write", "remove", "discard", "flush"}[o] }

// changes reports whether o is to be finished once it has begun.
func (o Op) changes() bool { return o != Read && o != Flush }

// A State says what a request waits for.
type State uint8

// The states of a request.
const (
	Working  State = iota // for nothing
	Log                   // for the cluster's log, which needs a majority where there is one
	HandOver              // for the gateway before to finish with the VDI
	Owner                 // for the gateway that owns the VDI to answer
	Line                  // for an earlier request to the same range
	Epoch                 // for the cluster to serve, or for its next epoch
	Peers                 // for nodes to answer that hold copies
	Recovery              // for this node's copy to be made current
)

func (s State) String() string {
	return [...]string{"working", "log", "hand-over", "owner", "line", "epoch", "peer", "recovery"}[s]
}

// A Flight is one request in flight, and the context of what is done for it. The
// methods by which links note what it waits for do nothing to a nil Flight: not
// every request is a client's.
type Flight struct {
	context.Context // with a deadline it, or its sheep.Caller, ends at that

	// Set while the request is entered, and not changed.
	shard *shard
	op    Op
	id    sheep.ObjectID
	since time.Time
	limit limit

	next, prev *Flight // guarded by shard.mu

	mu     sync.Mutex
	state  State         // guarded by mu
	epoch  sheep.Epoch   // guarded by mu; in which it waits, 0 if that does not matter
	reason error         // guarded by mu; why, may be nil
	turn   uint32        // guarded by mu; grows with each question to nodes
	asked  []*sheep.Node // guarded by mu; nil where the answer is there
	self   int           // guarded by mu; this node among asked, or -1
	owner  sheep.Node    // guarded by mu; asked, if state is Owner
}

type flightKey struct{}

// Value implements context.Context.
func (f *Flight) Value(key any) any {
	if key == (flightKey{}) {
		return f
	}
	return f.Context.Value(key)
}

// Of returns the Flight of the request that ctx is for, or nil.
func Of(ctx context.Context) *Flight {
	if f, ok := ctx.(*Flight); ok {
		return f
	}
	f, _ := ctx.Value(flightKey{}).(*Flight)
	return f
}

// Waits notes that the request waits. Epoch and reason may be missing.
func (f *Flight) Waits(s State, e sheep.Epoch, reason error) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state, f.epoch, f.reason = s, e, reason
	f.asked = f.asked[:0]
	f.turn++
}

// AsksOwner notes that the request has been sent to the owner of the VDI.
func (f *Flight) AsksOwner(owner sheep.Node) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state, f.epoch, f.reason, f.owner = Owner, 0, nil, owner
	f.asked = append(f.asked[:0], &f.owner)
	f.self = -1
	f.turn++
}

// Asks notes that the request has been sent to those of nodes that the indexes
// name; self is the index of this node, or -1. It returns what Answered needs.
// nodes must not change any more.
func (f *Flight) Asks(e sheep.Epoch, nodes []sheep.Node, indexes []int, self int) (turn uint32) {
	if f == nil {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state, f.epoch, f.reason, f.self = Peers, e, nil, -1
	f.asked = f.asked[:0]
	for k, i := range indexes {
		f.asked = append(f.asked, &nodes[i])
		if i == self {
			f.self = k
		}
	}
	f.turn++
	return f.turn
}

// Answered notes that the k'th node that was asked in the turn has answered.
func (f *Flight) Answered(turn uint32, k int) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if turn == f.turn && k < len(f.asked) {
		f.asked[k] = nil
	}
}

// A Request is what a Flight was at one moment.
type Request struct {
	Op      Op
	ID      sheep.ObjectID
	Client  sheep.Client
	Age     time.Duration
	State   State
	Epoch   sheep.Epoch  // 0 if it does not matter
	Nodes   []sheep.Node // who has not answered
	Reason  error        // may be nil
	GivenUp bool         // the client does not wait any more
}

// request returns what f is at the time now. The caller holds shard.mu.
func (f *Flight) request(now time.Time) Request {
	r := Request{Op: f.op, ID: f.id, Age: now.Sub(f.since), GivenUp: f.limit.passed()}
	r.Client, _ = sheep.ClientOf(f.Context)
	f.mu.Lock()
	defer f.mu.Unlock()
	r.State, r.Epoch, r.Reason = f.state, f.epoch, f.reason
	own := false
	for k, n := range f.asked {
		if n != nil {
			r.Nodes = append(r.Nodes, *n)
			own = own || k == f.self
		}
	}
	switch {
	case r.State != Peers:
	case len(r.Nodes) == 0:
		r.State = Working
	case own && len(r.Nodes) == 1:
		r.State = Recovery
	}
	return r
}
