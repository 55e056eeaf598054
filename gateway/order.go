package gateway

import (
	"context"
	"fmt"
	"sync"

	"sheepdog/gateway/flight"
	"sheepdog/sheep"
)

// order makes requests to one VDI that overlap run one after the other, in the
// order in which they came: a write waits for every earlier request to its
// range, a read for every earlier write. Requests to other ranges or objects
// pass. The zero order is ready for use.
type order struct {
	mu    sync.Mutex
	lines map[sheep.ObjectID]*line // guarded by mu; only objects with requests
	spare *place                   // guarded by mu; places to be used again, linked by next
}

// A line is the requests to one object in the order in which they came.
type line struct {
	first, last *place
}

// A place is one request in a line.
type place struct {
	from, to   uint64 // the range, to excluded
	write      bool
	ahead      int           // earlier requests that must finish first; guarded by order.mu
	ready      chan struct{} // receives once ahead has dropped to 0
	prev, next *place
}

// enter puts a request to the bytes [from, to) of id in line and returns when
// its turn has come. Whoever has entered must leave. If the caller that ctx names
// goes before, the request is out of line again.
func (o *order) enter(ctx context.Context, id sheep.ObjectID, from, to uint64, write bool) (*place, error) {
	o.mu.Lock()
	p := o.spare
	if p != nil {
		o.spare = p.next
	} else {
		p = &place{ready: make(chan struct{}, 1)}
	}
	p.from, p.to, p.write, p.ahead = from, to, write, 0
	if o.lines == nil {
		o.lines = make(map[sheep.ObjectID]*line)
	}
	l := o.lines[id]
	if l == nil {
		l = new(line)
		o.lines[id] = l
	}
	for q := l.first; q != nil; q = q.next {
		if p.conflicts(q) {
			p.ahead++
		}
	}
	l.append(p)
	wait := p.ahead > 0
	o.mu.Unlock()
	if !wait {
		return p, nil
	}
	flight.Of(ctx).Waits(flight.Line, 0, nil)
	caller := sheep.Caller(ctx)
	select {
	case <-p.ready:
		return p, nil
	case <-caller.Done():
		o.giveUp(id, p)
		return nil, fmt.Errorf("wait for earlier requests to object %v: %w", id, context.Cause(caller))
	}
}

// giveUp takes a request out of the line of id that waits for its turn, which may
// just have come.
func (o *order) giveUp(id sheep.ObjectID, p *place) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p.ahead == 0 {
		<-p.ready
	}
	o.remove(id, p)
}

// leave takes a finished request out of the line of id.
func (o *order) leave(id sheep.ObjectID, p *place) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.remove(id, p)
}

// remove takes a request out of the line of id. The caller holds mu.
func (o *order) remove(id sheep.ObjectID, p *place) {
	l := o.lines[id]
	for q := p.next; q != nil; q = q.next {
		if q.conflicts(p) {
			if q.ahead--; q.ahead == 0 {
				q.ready <- struct{}{}
			}
		}
	}
	l.remove(p)
	if l.first == nil {
		delete(o.lines, id)
	}
	p.next = o.spare
	o.spare = p
}

func (p *place) conflicts(q *place) bool {
	return (p.write || q.write) && p.from < q.to && q.from < p.to
}

func (l *line) append(p *place) {
	p.prev, p.next = l.last, nil
	if l.last != nil {
		l.last.next = p
	} else {
		l.first = p
	}
	l.last = p
}

func (l *line) remove(p *place) {
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		l.first = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	} else {
		l.last = p.prev
	}
	p.prev, p.next = nil, nil
}
