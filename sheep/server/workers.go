package server

import (
	"sync"
)

const maxIdleWorkers = 256

// workers runs requests on goroutines that are used again, because a goroutine
// that has grown its stack once is cheaper than a new one. Their number is
// bounded only by what the budgets let in.
type workers struct {
	run func(*Request) // set once
	wg  sync.WaitGroup

	mu     sync.Mutex
	idle   []chan *Request // guarded by mu; the last one used is the last
	closed bool            // guarded by mu
}

// do runs r on some worker and returns at once.
func (p *workers) do(r *Request) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		next := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		next <- r
		return
	}
	p.mu.Unlock()
	p.wg.Go(func() { p.work(r) })
}

func (p *workers) work(r *Request) {
	next := make(chan *Request, 1)
	for r != nil {
		p.run(r)
		p.mu.Lock()
		if p.closed || len(p.idle) >= maxIdleWorkers {
			p.mu.Unlock()
			return
		}
		p.idle = append(p.idle, next)
		p.mu.Unlock()
		r = <-next
	}
}

// close ends the workers and returns when all have ended. No request may be
// handed in any more.
func (p *workers) close() {
	p.mu.Lock()
	p.closed = true
	for _, next := range p.idle {
		next <- nil
	}
	p.idle = nil
	p.mu.Unlock()
	p.wg.Wait()
}
